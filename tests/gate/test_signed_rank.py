"""Against SciPy, and against counting."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from tunewright.gate.signed_rank import estimate_and_interval, p_greater

WITHOUT_TIES = st.lists(
    st.integers(-(10**6), 10**6).filter(bool), min_size=1, max_size=40, unique_by=abs
).map(lambda values: np.array([values], dtype=np.float64))


@given(WITHOUT_TIES)
def test_p_values_are_scipys_exact_ones(differences: np.ndarray) -> None:
    expected = wilcoxon(differences[0], alternative="greater", method="exact").pvalue
    assert p_greater(differences)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_rows_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0.2, 1, (7, 23))
    together = p_greater(rows)
    assert together == pytest.approx([p_greater(row[np.newaxis])[0] for row in rows])
    estimates = np.array(estimate_and_interval(rows, 0.01))
    alone = [np.array(estimate_and_interval(row[np.newaxis], 0.01))[:, 0] for row in rows]
    assert np.allclose(estimates, np.array(alone).T)


def test_zeros_and_ties_speak_for_the_null_hypothesis() -> None:
    assert p_greater(np.zeros((1, 9)))[0] == 1.0
    # Sums of ranks: the pairs that tie rank first where they are positive.
    assert p_greater(np.array([[1.0, -1.0, 2.0]]))[0] == p_greater(np.array([[1.0, -1.5, 2.0]]))[0]


def test_the_error_rate_is_exact_even_with_ties() -> None:
    """Over all signs of given sizes, a p-value of at most p comes with a probability of at most p."""
    for sizes in ([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 2, 2, 5, 5, 5]):
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(sizes))))
        p_values = p_greater(signs * np.array(sizes))
        for p in np.unique(p_values):
            assert np.mean(p_values <= p) <= p + 1e-12


def test_the_interval_holds_what_the_test_does_not_reject() -> None:
    rng = np.random.default_rng(3)
    for num_pairs in (8, 15, 30):
        row = rng.normal(0.3, 1, (1, num_pairs))
        tail = 0.02
        center, low, high = (float(value[0]) for value in estimate_and_interval(row, tail))
        assert low < center < high
        for shift, is_inside in ((low - 1e-9, False), (low + 1e-9, True)):
            assert bool(p_greater(row - shift)[0] > tail) is is_inside
        for shift, is_inside in ((high + 1e-9, False), (high - 1e-9, True)):
            assert bool(p_greater(shift - row)[0] > tail) is is_inside
        averages = [(row[0, i] + row[0, j]) / 2 for i in range(num_pairs) for j in range(i, num_pairs)]
        assert center == pytest.approx(np.median(averages))


def test_too_few_pairs_have_no_limits() -> None:
    _, low, high = estimate_and_interval(np.array([[1.0, 2.0, 3.0]]), 0.01)
    assert low[0] == -np.inf and high[0] == np.inf
