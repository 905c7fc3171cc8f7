"""Threads and affinity are seen as they are."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.core.errors import EnvironmentProblem
from tunewright.workers import WorkerConfig
from tunewright.workers.threads import cpu_ticks, thread_problem


@pytest.fixture
def num_threads() -> Iterator[int]:
    """Two waiting threads beside those that the process has."""
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield len(list(Path("/proc/self/task").iterdir()))
    stop.set()
    for thread in threads:
        thread.join()


def test_right_and_wrong_threads(num_threads: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert thread_problem(num_threads, cpus) is None
    assert thread_problem(num_threads + 1, cpus) == (
        f"the kernel ran with {num_threads} threads, asked were {num_threads + 1}"
    )
    problem = thread_problem(num_threads, [max(cpus) + 1])
    assert problem is not None and f"may run on CPUs {cpus}" in problem


def test_ticks_only_grow() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    stolen, total = cpu_ticks(cpus)
    later_stolen, later_total = cpu_ticks(cpus)
    assert 0 <= stolen <= later_stolen
    assert 0 < total <= later_total
    assert cpu_ticks([]) == (0, 0)


def test_timing_gets_the_last_cpus_and_building_all() -> None:
    config = WorkerConfig.for_threads(2, cpus=(0, 1, 4, 5))
    assert config.timing_cpus == (4, 5)
    assert config.build_cpus == (0, 1, 4, 5)
    assert config.max_held >= 4


def test_too_few_cpus_is_one_clear_sentence() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no core left for timing: .*on 8 threads.*may use 2 CPUs"):
        WorkerConfig.for_threads(8, cpus=(0, 1))
