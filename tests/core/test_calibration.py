"""Times of different batches are compared as if the machine had always been equally fast."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    calibrated_secs,
    known_secs,
    speed_ratio,
)

yardsticks = st.none() | st.floats(1e-5, 1e-2)
results = st.lists(
    st.builds(
        MeasureSuccess,
        run_secs=st.tuples(st.floats(1e-6, 1.0)),
        build_secs=st.just(0.1),
        wall_secs=st.just(0.2),
        is_verified=st.booleans(),
        yardstick_secs=yardsticks,
    )
    | st.builds(
        MeasureFailure,
        kind=st.sampled_from([FailureKind.PRUNED, FailureKind.BUILD]),
        message=st.just(""),
        wall_secs=st.just(0.1),
        run_secs=st.sampled_from([(), (0.5,)]),
        yardstick_secs=yardsticks,
    ),
    max_size=12,
)


def timed(secs: float, yardstick_secs: float | None) -> MeasureSuccess:
    return MeasureSuccess((secs,), 0.1, 0.2, is_verified=True, yardstick_secs=yardstick_secs)


@given(results)
def test_a_time_moves_by_a_factor_of_two_at_most_and_failures_stay(measured: list[MeasureResult]) -> None:
    for result, secs in zip(measured, calibrated_secs(measured), strict=True):
        known = known_secs(result)
        assert secs == known == math.inf or known / 2 <= secs <= known * 2


@given(st.lists(st.floats(1e-6, 1.0), max_size=9), yardsticks)
def test_a_steady_machine_changes_nothing(secs: list[float], yardstick_secs: float | None) -> None:
    assert calibrated_secs([timed(one, yardstick_secs) for one in secs]) == secs


@given(yardsticks, yardsticks)
def test_the_ratio_there_is_the_inverse_of_the_ratio_back(one: float | None, other: float | None) -> None:
    assert speed_ratio(one, other) * speed_ratio(other, one) == pytest.approx(1.0)


def test_a_time_of_a_fast_moment_does_not_beat_a_better_one_of_a_slow_moment() -> None:
    lucky, usual, unlucky = timed(0.95e-3, 0.24e-3), timed(1.3e-3, 0.34e-3), timed(1.4e-3, 0.50e-3)
    secs = calibrated_secs([lucky, usual, unlucky])
    assert secs[2] < secs[0]
    assert secs[1] == pytest.approx(1.3e-3)
