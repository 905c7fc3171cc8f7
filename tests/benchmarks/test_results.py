from pathlib import Path

import pytest
from side_by_side.results import Trial, Tuned, UnitKey, UnitResult, load_unit, save_unit

SPLIT = {"build": 6.0, "run": 3.0, "search": 1.0}


def unit(num_trials: int, **extra: str) -> UnitResult:
    trials = [Trial(float(n), 1e-3) for n in range(num_trials)]
    tuned = Tuned(trials, 10.0, SPLIT, "trace", 1e-3, extra)
    key = UnitKey("softmax", 0, "tunewright")
    return UnitResult(key, 256, 2, tuned, 1.0, {}, {}, (0.0,), (0.0,), "2026-11-23T12:00:00+00:00")


@pytest.mark.parametrize(
    ("result", "secs"),
    [
        (unit(256, reason="256 trials are measured"), 10.0),
        (unit(28, reason="every task has stalled or is exhausted"), 10.0),
        (unit(64, reason="100 s are spent"), 40.0),
        (unit(64), 40.0),  # of TVM's, cut short
    ],
    ids=["all", "all there are", "cut short", "a peer cut short"],
)
def test_seconds_for_all_trials(result: UnitResult, secs: float) -> None:
    assert result.secs_for_all_trials == pytest.approx(secs)
    assert result.overhead_ratio == pytest.approx(0.1)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = unit(3, reason="3 trials are measured")
    save_unit(written, tmp_path / "unit.json")
    read = load_unit(tmp_path / "unit.json")
    assert read.key == written.key and list(read.tuned.trials) == list(written.tuned.trials)
    assert read.secs_for_all_trials == written.secs_for_all_trials
