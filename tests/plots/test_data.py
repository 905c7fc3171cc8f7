"""The curves and shares that are drawn, against sums done by hand and a slow reference."""

import math
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewright.core.types import FailureKind, MeasureFailure, MeasureSuccess, Origin, TaskKey, TuningRecord
from tunewright.plots import TaskShare, best_so_far, task_shares

A, B = TaskKey("a"), TaskKey("b")


def timed(secs: float, *, wall_secs: float = 1.0, is_verified: bool = True) -> MeasureSuccess:
    return MeasureSuccess((secs,), build_secs=0.1, wall_secs=wall_secs, is_verified=is_verified)


def failed(kind: FailureKind = FailureKind.BUILD, *, wall_secs: float = 1.0) -> MeasureFailure:
    return MeasureFailure(kind, "no", wall_secs, run_secs=(1e-9,) if kind is FailureKind.PRUNED else ())


def test_model_latency_is_the_weighted_sum_once_every_task_has_a_time(
    make_record: Callable[..., TuningRecord],
) -> None:
    records = [
        make_record("a", timed(4.0, wall_secs=2.0)),
        make_record("b", failed(wall_secs=0.5)),
        make_record("b", timed(10.0)),
        make_record("other", timed(0.1, wall_secs=100.0)),
        make_record("a", timed(1.0)),
        make_record("a", timed(2.0)),
    ]
    curve = best_so_far(records, {A: 3, B: 1})
    np.testing.assert_array_equal(curve.trials, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(curve.measuring_secs, [2.0, 2.5, 3.5, 4.5, 5.5])
    np.testing.assert_array_equal(curve.latency_secs, [math.nan, math.nan, 22.0, 13.0, 13.0])


def test_unverified_and_censored_times_are_never_best(make_record: Callable[..., TuningRecord]) -> None:
    records = [
        make_record("a", timed(2.0)),
        make_record("a", timed(0.5, is_verified=False)),
        make_record("a", failed(FailureKind.PRUNED)),
    ]
    np.testing.assert_array_equal(best_so_far(records, {A: 1}).latency_secs, [2.0, 2.0, 2.0])


def test_what_was_known_before_counts_from_the_first_trial(make_record: Callable[..., TuningRecord]) -> None:
    known = [make_record("b", timed(10.0, wall_secs=50.0)), make_record("other", timed(0.1))]
    curve = best_so_far([make_record("a", timed(1.0))], {A: 3, B: 1}, known=known)
    np.testing.assert_array_equal(curve.latency_secs, [13.0])
    np.testing.assert_array_equal(curve.measuring_secs, [1.0])


def test_a_run_without_trials_has_an_empty_curve() -> None:
    assert best_so_far([], {A: 1}).latency_secs.shape == (0,)


trials = st.tuples(st.sampled_from("ab"), st.none() | st.floats(1e-6, 1e3), st.floats(0, 10))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(trials, max_size=30))
def test_latency_never_rises_and_is_what_the_trials_so_far_say(
    make_record: Callable[..., TuningRecord], drawn: list[tuple[str, float | None, float]]
) -> None:
    records = [
        make_record(task, failed(wall_secs=wall) if secs is None else timed(secs, wall_secs=wall))
        for task, secs, wall in drawn
    ]
    curve = best_so_far(records, {A: 2, B: 5})
    assert (np.diff(curve.measuring_secs) >= 0).all()
    known = curve.latency_secs[np.isfinite(curve.latency_secs)]
    assert (np.diff(known) <= 0).all()
    for n in range(1, len(drawn) + 1):
        times = {task: [secs for name, secs, _ in drawn[:n] if name == task and secs] for task in "ab"}
        if times["a"] and times["b"]:
            expected = 2 * min(times["a"]) + 5 * min(times["b"])
            assert math.isclose(curve.latency_secs[n - 1], expected)
        else:
            assert math.isnan(curve.latency_secs[n - 1])


def test_shares_compare_the_default_schedule_with_the_best(make_record: Callable[..., TuningRecord]) -> None:
    records = [
        make_record("a", timed(9.0)),
        make_record("a", timed(3.0), Origin.SEED),
        make_record("a", timed(1.0)),
        make_record("b", timed(4.0)),
        make_record("b", timed(2.0)),
        make_record("c", failed()),
    ]
    weights = {A: 1, B: 2, TaskKey("c"): 1}
    names = {A: "conv", B: "matmul", TaskKey("c"): "pool"}
    assert task_shares(records, weights, names) == [
        TaskShare("matmul", 2, before_secs=4.0, after_secs=2.0),
        TaskShare("conv", 1, before_secs=3.0, after_secs=1.0),
    ]
