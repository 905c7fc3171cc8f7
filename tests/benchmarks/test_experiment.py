from pathlib import Path

import pytest
from side_by_side.experiment import Experiment, check_settings, planned_units
from side_by_side.tuners import OURS, OURS_WITH_LOG, PATCHED, PEERS


def experiment(
    out: Path, tasks: list[str], *, tuners: tuple[str, ...] = PEERS, trials: int = 8
) -> Experiment:
    return Experiment(out, tasks, tuners, num_seeds=2, num_trials=trials, num_threads=1)


def test_every_run_is_planned_once_and_seeds_do_not_mix(tmp_path: Path) -> None:
    planned = list(planned_units(experiment(tmp_path, ["a", "b"])))
    assert len(set(planned)) == len(planned) == 2 * 2 * len(PEERS)
    assert [key.seed for key in planned] == [0] * 8 + [1] * 8


def test_tuners_take_turns_in_being_first(tmp_path: Path) -> None:
    planned = list(planned_units(experiment(tmp_path, ["a", "b"])))
    first = [next(k.tuner for k in planned if (k.task, k.seed) == (t, s)) for t in "ab" for s in (0, 1)]
    assert len(set(first)) == 3


def test_the_log_of_other_tasks_is_measured_before_it_is_needed(tmp_path: Path) -> None:
    planned = list(planned_units(experiment(tmp_path, ["a"], tuners=(PATCHED, OURS_WITH_LOG))))
    of_seed = [key for key in planned if key.seed == 1]
    assert of_seed[-1].tuner == OURS_WITH_LOG
    lent = {key.task for key in of_seed if key.tuner == OURS}
    assert len(lent - {"a"}) >= 2


def test_runs_with_other_settings_are_refused(tmp_path: Path) -> None:
    check_settings(experiment(tmp_path, ["a"]))
    check_settings(experiment(tmp_path, ["a", "b"]))
    with pytest.raises(ValueError, match="name another --out"):
        check_settings(experiment(tmp_path, ["a"], trials=9))
