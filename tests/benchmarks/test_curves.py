import math
from dataclasses import replace

import pytest
from side_by_side.curves import (
    NEVER,
    Reach,
    best_curve,
    geometric_mean,
    neutral_scale,
    paired_ratios,
    ratio,
    reach,
    spread,
)
from side_by_side.results import Trial, Tuned

INF = math.inf


def tuned(*secs: float | None, batch: int = 2) -> Tuned:
    """Trials whose batches end 10 s apart."""
    trials = [
        Trial(10.0 * (index // batch + 1), one, "" if one is not None else "build")
        for index, one in enumerate(secs)
    ]
    return Tuned(trials, 100.0, {"build": 60.0, "run": 30.0}, "trace", min(s for s in secs if s), {})


def test_a_curve_never_rises_and_failures_do_not_end_it() -> None:
    assert best_curve(tuned(None, 4.0, 5.0, None, 2.0)) == [INF, 4.0, 4.0, 4.0, 2.0]


def test_what_was_not_verified_is_never_the_best() -> None:
    run = tuned(4.0, 3.0)
    doubtful = replace(run, trials=[run.trials[0], replace(run.trials[1], failure="unverified")])
    assert best_curve(doubtful) == [4.0, 4.0]


def test_a_scaled_curve_ends_at_the_neutral_time() -> None:
    run = tuned(8.0, 4.0)
    assert best_curve(run, neutral_scale(run, 5.0)) == [10.0, 5.0]


def test_a_latency_is_reached_when_its_batch_is_known() -> None:
    run = tuned(8.0, 4.0, 3.0, 3.0)
    assert reach(run, 4.0) == Reach(2, 10.0)
    assert reach(run, 3.5) == Reach(3, 20.0)
    assert reach(run, 2.9) == NEVER
    assert reach(run, 2.9, scale=0.5) == Reach(2, 10.0)


def test_what_nobody_reached_is_no_success() -> None:
    assert ratio(INF, INF) == INF
    assert ratio(3.0, INF) == 0.0
    assert ratio(3.0, 6.0) == 0.5


def test_ratios_are_paired_by_seed() -> None:
    assert paired_ratios({0: 1.0, 1: 6.0, 2: 5.0}, {1: 3.0, 0: 2.0, 7: 1.0}) == [0.5, 2.0]


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([3.0, 1.0, 2.0], 2.0),
        ([1.0, 3.0], 2.0),
        ([1.0, 2.0, INF], 2.0),
        ([1.0, INF], INF),
        ([INF, INF, 1.0], INF),
    ],
)
def test_a_median_with_runs_that_never_arrived(values: list[float], median: float) -> None:
    found = spread(values)
    assert found is not None
    assert (found.median, found.low, found.high, found.n) == (median, min(values), max(values), len(values))


def test_nothing_measured_has_neither_spread_nor_mean() -> None:
    assert spread([]) is None
    assert geometric_mean([]) is None


def test_one_task_that_is_never_reached_makes_the_mean_infinite() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.5, INF]) == INF
