import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.search import is_stalled


@pytest.mark.parametrize(
    ("curve", "stalled"),
    [
        ([], False),
        ([2.0, 2.0, 2.0], False),  # no trial precedes the last three
        ([2.0, 2.0, 2.0, 2.0], True),
        ([2.0, 2.0, 2.0, 1.97], False),
        ([2.0, 2.0, 2.0, 1.99], True),  # 0.5 %
        ([2.0, 1.99, 1.98, 1.97], False),  # small gains add up
        ([2.0, 1.5, 1.5, 1.5, 1.5], True),
        ([math.inf, math.inf, math.inf, 2.0], False),
        ([math.inf, 2.0, 2.0, 2.0], False),
        ([math.inf, math.inf, math.inf, math.inf], True),
    ],
)
def test_three_trials_of_patience_for_one_percent(curve: list[float], stalled: bool) -> None:
    assert is_stalled(curve, 3, 0.01) is stalled


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40),
    st.integers(1, 40),
    st.floats(0.001, 0.5),
)
def test_more_patience_never_stalls_earlier(secs: list[float], patience: int, ratio: float) -> None:
    curve = [min(secs[: index + 1]) for index in range(len(secs))]
    if is_stalled(curve, patience + 1, ratio):
        assert is_stalled(curve, patience, ratio)


def test_patience_must_be_positive() -> None:
    with pytest.raises(ValueError, match="patience is 0"):
        is_stalled([1.0], 0, 0.01)
