"""Arithmetic of the comparison: curves, when they reach a latency, ratios and their spread.

A tuner's own times are not comparable with another's: they measure differently, and the best of many noisy
times is too good. So a curve is scaled such that its end is the neutral time of the tuner's final kernel.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from side_by_side.results import Tuned


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of `n` values; infinite values count."""

    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Reach:
    """Trials and seconds until a latency was reached, both infinite where it never was."""

    trials: float
    secs: float


NEVER = Reach(math.inf, math.inf)


def best_curve(tuned: Tuned, scale: float = 1.0) -> list[float]:
    """Best seconds per call after each trial, infinite until there is one."""
    curve, best = [], math.inf
    for trial in tuned.trials:
        best = min(best, trial.secs * scale if trial.secs is not None and not trial.failure else math.inf)
        curve.append(best)
    return curve


def neutral_scale(tuned: Tuned, neutral_secs: float) -> float:
    """What makes the end of the tuner's own curve the neutral time of its final kernel; 1 without a curve."""
    curve = best_curve(tuned)
    return neutral_secs / curve[-1] if curve and curve[-1] != math.inf else 1.0


def reach(tuned: Tuned, secs: float, scale: float = 1.0) -> Reach:
    """When the scaled curve first was at `secs` or below."""
    for index, best in enumerate(best_curve(tuned, scale)):
        if best <= secs:
            return Reach(index + 1, tuned.trials[index].at_secs)
    return NEVER


def ratio(ours: float, theirs: float) -> float:
    """Infinite where ours is, also where both are: what nobody reached is no success."""
    return math.inf if ours == math.inf else ours / theirs


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours / theirs for every seed that both have."""
    return [ratio(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def spread(values: Iterable[float]) -> Spread | None:
    """None for no values. With infinite ones the median is exact: it is never between finite and infinite."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = ordered[len(ordered) // 2]
    median = middle if middle == math.inf else statistics.median(ordered)
    return Spread(median, ordered[0], ordered[-1], len(ordered))


def geometric_mean(values: Sequence[float]) -> float | None:
    """None for no values, infinite where one of them is."""
    if not values:
        return None
    return math.inf if math.inf in values else statistics.geometric_mean(values)


def num_unreached(values: Iterable[float]) -> int:
    return sum(value == math.inf for value in values)
