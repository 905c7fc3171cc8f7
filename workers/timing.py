"""The measuring protocol: how many samples, of how many calls, and when to stop.

Pure: the kernel is a function `time_calls(number) -> mean seconds per call`.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunewright.core.types import EvaluatorConfig

TimeCalls = Callable[[int], float]

CONTENDER_RATIO = 1.05
"""A candidate may win if its median is at most this many times the incumbent's."""

# After 1, 2, 3 samples a candidate is behind for certain if even its fastest sample takes this many times the
# incumbent's time. On a machine that others used to 20 %, 0.1 % of samples took more than twice a kernel's
# own median, and 0.3 % of pairs more than 1.5 times.
_BEHIND_RATIOS = (2.0, 1.5, CONTENDER_RATIO)
_MIN_SAMPLES = 3
_STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
_MAX_CALLS = 1 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """`run_secs`: the samples, seconds per call; a single one if the candidate was pruned."""

    run_secs: tuple[float, ...]
    is_pruned: bool

    @property
    def median_secs(self) -> float:
        return statistics.median(self.run_secs)

    def is_contender(self, incumbent_secs: float | None) -> bool:
        """Whether it may be the task's best, as far as noise lets one tell."""
        return incumbent_secs is None or self.median_secs <= CONTENDER_RATIO * incumbent_secs


def calls_per_sample(single_secs: float, min_sample_secs: float) -> int:
    """How many calls last `min_sample_secs` where one takes `single_secs`."""
    return max(1, min(_MAX_CALLS, math.ceil(min_sample_secs / max(single_secs, 1e-9))))


def measure_samples(time_calls: TimeCalls, config: EvaluatorConfig, incumbent_secs: float | None) -> Timing:
    """Sample a warmed-up kernel as `EvaluatorConfig` says."""
    single_secs = time_calls(1)
    number = calls_per_sample(single_secs, config.min_sample_secs)
    samples = [single_secs if number == 1 else time_calls(number)]
    if incumbent_secs is not None and samples[0] > config.prune_ratio * incumbent_secs:
        return Timing(tuple(samples), is_pruned=True)
    while len(samples) < config.max_samples and not _is_settled(samples, config, incumbent_secs):
        samples.append(time_calls(number))
    return Timing(tuple(samples), is_pruned=False)


def relative_half_width(samples: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of the mean, divided by the mean; at least 2 samples."""
    mean = statistics.fmean(samples)
    return _student_t(len(samples) - 1) * statistics.stdev(samples) / math.sqrt(len(samples)) / mean


def _is_settled(samples: Sequence[float], config: EvaluatorConfig, incumbent_secs: float | None) -> bool:
    if incumbent_secs is not None:
        # Disturbances only ever add time: if even the fastest sample is behind, the rest will not help.
        ratio = _BEHIND_RATIOS[min(len(samples), len(_BEHIND_RATIOS)) - 1]
        if min(samples) > ratio * incumbent_secs:
            return True
    return len(samples) >= _MIN_SAMPLES and relative_half_width(samples) < config.target_relative_ci


def _student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    if degrees <= len(_STUDENT_T):
        return _STUDENT_T[degrees - 1]
    z = 1.959964
    # Abramowitz and Stegun 26.7.5, its first two terms.
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
