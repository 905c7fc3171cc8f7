"""What is drawn of a session's trials, against sums done by hand and a slow reference."""

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plots.conftest import START, MakeTrial
from tunewright.core.types import FailureKind, Origin, TaskKey
from tunewright.plots import (
    Gains,
    TaskShare,
    best_so_far,
    count_outcomes,
    gains_by_origin,
    gains_by_task,
    task_shares,
)

A, B, C = TaskKey("a"), TaskKey("b"), TaskKey("c")


def test_model_latency_is_the_weighted_sum_once_every_task_has_a_time(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 4.0, wall_secs=2.0, build_secs=1.5),
        make_trial("b", wall_secs=0.5, build_secs=0.5),
        make_trial("b", 10.0),
        make_trial("other", 0.1, wall_secs=100.0),
        make_trial("a", 1.0),
        make_trial("a", 2.0),
    ]
    curve = best_so_far(trials, {A: 3, B: 1})
    np.testing.assert_array_equal(curve.trials, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(curve.measuring_secs, [2.0, 2.5, 3.5, 4.5, 5.5])
    np.testing.assert_allclose(curve.device_secs, [0.5, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(curve.latency_secs, [math.nan, math.nan, 22.0, 13.0, 13.0])


def test_wall_seconds_are_the_clock_s_without_pauses(make_trial: MakeTrial) -> None:
    # Two trials of a batch end together; the clock is set back once; then the session rests for a day.
    trials = [make_trial("a", 1.0, wall_secs=4.0, at_secs=at) for at in (10, 10, 25, 20, 86_420, 86_430)]
    from_the_start = best_so_far(trials, {A: 1}, started_at=START)
    np.testing.assert_allclose(from_the_start.wall_secs, [10, 10, 25, 25, 25, 35])
    np.testing.assert_allclose(best_so_far(trials, {A: 1}).wall_secs, [4, 4, 19, 19, 19, 29])
    late = best_so_far(trials, {A: 1}, started_at=START - timedelta(days=1))
    assert late.wall_secs[0] == 0.0


def test_what_may_not_be_used_is_never_best(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 2.0),
        make_trial("a", 0.5, is_verified=False),
        make_trial("a", 0.5, is_in_quarantine=True),
        make_trial("a", failure=FailureKind.PRUNED, run_secs=(1e-9,)),
    ]
    np.testing.assert_array_equal(best_so_far(trials, {A: 1}).latency_secs, [2.0] * 4)


def test_what_was_known_before_counts_from_the_first_trial(make_trial: MakeTrial) -> None:
    known = [make_trial("b", 10.0, wall_secs=50.0), make_trial("other", 0.1)]
    curve = best_so_far([make_trial("a", 1.0)], {A: 3, B: 1}, known=known)
    np.testing.assert_array_equal(curve.latency_secs, [13.0])
    np.testing.assert_array_equal(curve.measuring_secs, [1.0])


def test_a_run_without_trials_has_an_empty_curve() -> None:
    curve = best_so_far([], {A: 1})
    for column in (
        curve.trials,
        curve.measuring_secs,
        curve.device_secs,
        curve.wall_secs,
        curve.latency_secs,
    ):
        assert column.shape == (0,)


drawn_trials = st.tuples(st.sampled_from("ab"), st.none() | st.floats(1e-6, 1e3), st.floats(0, 10))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(drawn_trials, max_size=30))
def test_latency_never_rises_and_is_what_the_trials_so_far_say(
    make_trial: MakeTrial, drawn: list[tuple[str, float | None, float]]
) -> None:
    trials = [make_trial(task, secs, wall_secs=wall) for task, secs, wall in drawn]
    curve = best_so_far(trials, {A: 2, B: 5})
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


NAMES = {A: "conv", B: "matmul", C: "pool"}


def test_shares_compare_the_default_schedule_with_the_best(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 9.0),
        make_trial("a", 3.0, origin=Origin.SEED),
        make_trial("a", 1.0),
        make_trial("a", 0.5, is_verified=False, origin=Origin.SEED),
        make_trial("b", 4.0),
        make_trial("b", 2.0),
        make_trial("c"),
        make_trial("other", 0.1),
    ]
    assert task_shares(trials, {A: 1, B: 2, C: 1}, NAMES) == [
        TaskShare("matmul", 2, before_secs=4.0, after_secs=2.0),
        TaskShare("conv", 1, before_secs=3.0, after_secs=1.0),
    ]
    assert task_shares([], {A: 1}, NAMES) == []


def test_gains_by_task_are_the_largest_first_and_sum_up() -> None:
    shares = [TaskShare("a", 3, 2.0, 1.0), TaskShare("b", 1, 9.0, 2.0), TaskShare("c", 1, 5.0, 5.0)]
    assert gains_by_task(shares) == Gains(20.0, 10.0, (("b", 7.0), ("a", 3.0)))
    assert gains_by_task([]) == Gains(0.0, 0.0, ())


def test_gains_by_origin_are_what_each_origin_took_off(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 8.0, origin=Origin.SEED),
        make_trial("b", 4.0, origin=Origin.SEED),
        make_trial("a", 6.0, origin=Origin.RANDOM),
        make_trial("a", 7.0, origin=Origin.TRANSFER),
        make_trial("a", 5.0, origin=Origin.MUTATION),
        make_trial("b", 1.0, origin=Origin.RANDOM),
        make_trial("a", 0.1, origin=Origin.DESCENT, is_verified=False),
    ]
    gains = gains_by_origin(trials, {A: 10, B: 1})
    assert (gains.before_secs, gains.after_secs) == (84.0, 51.0)
    assert gains.steps == (("random points", 23.0), ("mutations", 10.0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(1e-3, 1e3), st.sampled_from(Origin)), max_size=20))
def test_the_steps_lead_from_before_to_after(
    make_trial: MakeTrial, drawn: list[tuple[str, float, Origin]]
) -> None:
    trials = [make_trial(task, secs, origin=origin) for task, secs, origin in drawn]
    for gains in (
        gains_by_origin(trials, {A: 2, B: 5}),
        gains_by_task(task_shares(trials, {A: 2, B: 5}, NAMES)),
    ):
        assert math.isclose(
            gains.before_secs - sum(secs for _, secs in gains.steps), gains.after_secs, abs_tol=1e-9
        )
        assert all(secs > 0 for _, secs in gains.steps)


def test_outcomes_are_counted_bin_by_bin(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 1.0),
        make_trial("a", 1.0, is_verified=False),
        make_trial("a", 1.0, is_verified=False, is_duplicate=True),
        make_trial("a", failure=FailureKind.PRUNED),
        make_trial("a", 1.0, is_in_quarantine=True),
        make_trial("a", failure=FailureKind.OOM),
        make_trial("a", failure=FailureKind.OOM),
    ]
    outcomes = count_outcomes(trials, max_bins=3)
    np.testing.assert_array_equal(outcomes.edges, [0, 3, 6, 7])
    assert {name: counts.tolist() for name, counts in outcomes.counts.items()} == {
        "verified": [1, 0, 0],
        "timed only": [1, 0, 0],
        "duplicate": [1, 0, 0],
        "pruned": [0, 1, 0],
        "in quarantine": [0, 1, 0],
        "oom": [0, 1, 1],
    }
    assert next(iter(outcomes.counts)) == "verified"


@pytest.mark.parametrize(("num_trials", "max_bins"), [(0, 4), (1, 4), (4, 4), (5, 4), (101, 40), (7, 1)])
def test_bins_cover_all_trials(make_trial: MakeTrial, num_trials: int, max_bins: int) -> None:
    outcomes = count_outcomes([make_trial("a", 1.0)] * num_trials, max_bins=max_bins)
    assert outcomes.num_trials == num_trials
    assert len(outcomes.edges) - 1 <= max_bins
    assert sum(counts.sum() for counts in outcomes.counts.values()) == num_trials
    for counts in outcomes.counts.values():
        np.testing.assert_array_equal(counts, np.diff(outcomes.edges))
