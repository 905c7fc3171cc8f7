"""Wilcoxon's signed-rank test, and the interval that belongs to it, for many experiments at once.

Rows are experiments, columns differences of pairs. Exact for every number of pairs: the null distribution is
computed, not approximated.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Walsh averages are made for so many rows at a time that they take about 64 MiB.
_MAX_AVERAGES = 8 << 20


def p_greater(differences: Floats) -> Floats:
    """The probability of ranks as positive as these, or more, where differences are symmetric about 0.

    Args:
        differences: (n_rows, n_pairs).

    Returns: (n_rows,). A zero counts as negative, and ties are ranked against the alternative: both can only
    make it larger.
    """
    num_pairs = differences.shape[1]
    is_positive = differences > 0
    order = np.lexsort((~is_positive, np.abs(differences)), axis=1)
    ranks = np.arange(1, num_pairs + 1)
    sums = (np.take_along_axis(is_positive, order, axis=1) * ranks).sum(axis=1)
    found: Floats = _survival(num_pairs)[sums]
    return found


def estimate_and_interval(differences: Floats, tail_probability: float) -> tuple[Floats, Floats, Floats]:
    """The Hodges-Lehmann estimate of the centre, and the limits that the test does not reject.

    Args:
        differences: (n_rows, n_pairs).
        tail_probability: how often a limit may be on the wrong side, for each of the two.

    Returns: estimate, low and high, (n_rows,) each; infinite limits where there are too few pairs for any.
    """
    num_rows, num_pairs = differences.shape
    num_averages = num_pairs * (num_pairs + 1) // 2
    # The low limit is the c-th smallest average, with the largest c for which P(sum < c) is small enough.
    below = 1.0 - _survival(num_pairs)
    place = int(np.searchsorted(below, tail_probability, side="right")) - 1
    middle = (num_averages - 1) // 2, num_averages // 2
    wanted = sorted({*middle, max(place - 1, 0), num_averages - max(place, 1)})
    left, right = np.triu_indices(num_pairs)
    estimate, low, high = np.empty(num_rows), np.full(num_rows, -np.inf), np.full(num_rows, np.inf)
    step = max(1, _MAX_AVERAGES // num_averages)
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        averages = (differences[rows][:, left] + differences[rows][:, right]) / 2
        averages.partition(wanted, axis=1)
        estimate[rows] = (averages[:, middle[0]] + averages[:, middle[1]]) / 2
        if place >= 1:
            low[rows], high[rows] = averages[:, place - 1], averages[:, num_averages - place]
    return estimate, low, high


@cache
def _survival(num_pairs: int) -> Floats:
    """P(sum of positive ranks >= s) for s = 0, 1, ... under the null hypothesis."""
    probabilities = np.zeros(num_pairs * (num_pairs + 1) // 2 + 1)
    probabilities[0] = 1.0
    for rank in range(1, num_pairs + 1):
        shifted = np.zeros_like(probabilities)
        shifted[rank:] = probabilities[:-rank]
        probabilities = (probabilities + shifted) / 2
    survival = np.cumsum(probabilities[::-1])[::-1]
    survival.flags.writeable = False
    return survival
