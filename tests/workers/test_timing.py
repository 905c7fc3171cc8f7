"""The measuring protocol against kernels whose times are scripted."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from tunewright.core.types import EvaluatorConfig
from tunewright.workers.timing import _student_t, calls_per_sample, measure_samples, relative_half_width


class ScriptedKernel:
    """Takes `single` for the calibrating call, then the scripted seconds per call."""

    def __init__(self, single: float, samples: Sequence[float]) -> None:
        self._times = itertools.chain([single], samples)
        self.numbers: list[int] = []

    def __call__(self, number: int) -> float:
        self.numbers.append(number)
        return next(self._times)


CONFIG = EvaluatorConfig(min_sample_secs=0.005, max_samples=10, prune_ratio=3.0, target_relative_ci=0.02)


def test_steady_kernel_needs_three_samples() -> None:
    kernel = ScriptedKernel(0.001, [0.001, 0.00101, 0.00100, 0.001])
    timing = measure_samples(kernel, CONFIG, incumbent_secs=None)
    assert timing.run_secs == (0.001, 0.00101, 0.00100)
    assert kernel.numbers == [1, 5, 5, 5]
    assert timing.is_contender(None)


def test_noisy_kernel_gets_all_samples() -> None:
    kernel = ScriptedKernel(0.001, [0.001, 0.002] * 10)
    assert len(measure_samples(kernel, CONFIG, incumbent_secs=None).run_secs) == 10


def test_slow_kernel_is_pruned_after_one_sample_and_no_further_call() -> None:
    kernel = ScriptedKernel(0.5, [])
    timing = measure_samples(kernel, CONFIG, incumbent_secs=0.1)
    assert timing.is_pruned
    assert timing.run_secs == (0.5,)
    assert kernel.numbers == [1]


def test_a_kernel_that_cannot_win_is_not_sampled_on() -> None:
    kernel = ScriptedKernel(0.001, [0.0012, 0.0019, 0.0014, 0.0012])
    timing = measure_samples(kernel, CONFIG, incumbent_secs=0.0011)
    assert timing.run_secs == (0.0012, 0.0019, 0.0014)
    assert not timing.is_contender(0.0011)


@pytest.mark.parametrize(("secs", "expected"), [(0.0024, 1), (0.0018, 2), (0.0012, 3), (0.00105, 10)])
def test_the_farther_behind_the_fewer_samples(secs: float, expected: int) -> None:
    kernel = ScriptedKernel(secs, [secs, 1.2 * secs] * 5)
    assert len(measure_samples(kernel, CONFIG, incumbent_secs=0.0011).run_secs) == expected


def test_one_fast_sample_keeps_a_noisy_contender_alive() -> None:
    kernel = ScriptedKernel(0.001, [0.0016, 0.0016, 0.0010] + [0.0011] * 10)
    timing = measure_samples(kernel, CONFIG, incumbent_secs=0.0011)
    assert len(timing.run_secs) == 10
    assert timing.is_contender(0.0011)


@pytest.mark.parametrize(
    ("single", "expected"), [(1.0, 1), (0.005, 1), (0.0049, 2), (1e-6, 5000), (0.0, 1 << 20)]
)
def test_samples_last_as_long_as_asked(single: float, expected: int) -> None:
    assert calls_per_sample(single, 0.005) == expected


def test_half_width_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        samples = rng.normal(1.0, 0.05, 5).tolist()
        covered += abs(statistics.fmean(samples) - 1.0) < relative_half_width(samples) * statistics.fmean(
            samples
        )
    assert 0.93 < covered / 2000 < 0.97


@pytest.mark.parametrize("degrees", range(1, 30))
def test_students_t_agrees_with_scipy(degrees: int) -> None:
    quantile: Callable[[float, int], float] = stats.t.ppf
    assert math.isclose(_student_t(degrees), quantile(0.975, degrees), rel_tol=2e-3)
