"""How a race is judged: by what each round says about the entrants, not about the machine.

A shared machine is slow in some rounds and fast in others. Whoever takes part in a round meets the same
speed, so entrants are compared round by round. The same kernel in six children, a product of 0.7 ms: after 25
rounds, 86 % of the pairs of medians are within 3 % of each other, and 95 % when rounds are levelled.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_NUM_SWEEPS = 8
_LEAVES_BELOW_PROBABILITY = 0.01
_SETTLED_HALF_WIDTH = 0.01
_HALF_OF_UNCERTAINTY = 0.025


def levelled(samples: Mapping[int, Sequence[float]]) -> dict[int, tuple[float, ...]]:
    """Samples, seconds per call, as if the machine had run at its median speed in every round.

    A sample is an entrant's own time, times how slow the machine was in that round, times noise. The second
    factor is told by those who stayed to the end, by median polish (Tukey, "Exploratory Data Analysis",
    1977), and taken out.

    Args:
        samples: of each entrant, those of rounds 0, 1, 2, ...; who has left has fewer.
    """
    num_rounds = max(map(len, samples.values()), default=0)
    if len(samples) < 2 or not num_rounds:
        return {index: tuple(secs) for index, secs in samples.items()}
    logs = np.log([secs for secs in samples.values() if len(secs) == num_rounds])
    slowness = np.zeros(num_rounds)
    for _ in range(_NUM_SWEEPS):
        own = np.median(logs - slowness, axis=1, keepdims=True)
        slowness = np.median(logs - own, axis=0)
    factors = np.exp(slowness - np.median(slowness))
    return {
        index: tuple(one / float(factor) for one, factor in zip(secs, factors, strict=False))
        for index, secs in samples.items()
    }


def behind(samples: Mapping[int, Sequence[float]]) -> set[int]:
    """Who loses to the leader in so many rounds that it is no chance: a sign test, p < 0.01.

    Args:
        samples: seconds per call of those who still take part, equally many of each. Below seven nobody is.
    """
    ratios = _ratios_to_leader(samples)
    num_rounds = ratios.shape[1]
    return {
        index
        for index, num_won in zip(samples, (ratios <= 1.0).sum(axis=1), strict=True)
        if _probability_of_at_most(int(num_won), num_rounds) < _LEAVES_BELOW_PROBABILITY
    }


def is_settled(samples: Mapping[int, Sequence[float]]) -> bool:
    """Whether the ratio of each of several to the leader is known to 1 %, with 95 % confidence.

    The interval of a median by order statistics, whatever the distribution (Conover, "Practical Nonparametric
    Statistics"). Never below six rounds.

    Args:
        samples: as for `behind`.
    """
    ratios = np.sort(_ratios_to_leader(samples), axis=1)
    num_rounds = ratios.shape[1]
    if len(samples) < 2 or _probability_of_at_most(0, num_rounds) > _HALF_OF_UNCERTAINTY:
        return False
    rank = 0
    while _probability_of_at_most(rank + 1, num_rounds) <= _HALF_OF_UNCERTAINTY:
        rank += 1
    half_widths = (ratios[:, num_rounds - 1 - rank] - ratios[:, rank]) / 2
    return bool((half_widths <= _SETTLED_HALF_WIDTH * np.median(ratios, axis=1)).all())


def _ratios_to_leader(samples: Mapping[int, Sequence[float]]) -> npt.NDArray[np.float64]:
    """Shape (n_entrants, n_rounds)."""
    secs = np.asarray(list(samples.values()), dtype=np.float64)
    if not secs.size:
        return np.empty((len(samples), 0))
    leader = np.median(secs / np.median(secs, axis=0), axis=1).argmin()
    ratios: npt.NDArray[np.float64] = secs / secs[leader]
    return ratios


def _probability_of_at_most(num_won: int, num_rounds: int) -> float:
    """Of winning so few rounds against an equal."""
    return float(sum(math.comb(num_rounds, won) for won in range(num_won + 1)) / 2**num_rounds)
