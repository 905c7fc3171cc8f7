"""What a measurer learns from its batches: equal kernels, how long builds take, how fast the machine is."""

import dataclasses
import logging
import os
import signal
import time

import numpy as np
import psutil
import pytest

from tests.workers.measurer_contract import RealMeasurerContract
from tests.workers.workloads import QUICK, default_trace_json, matmul_task, measure_input
from tunewright.core.types import FailureKind, MeasureFailure, MeasureSuccess
from tunewright.workers import LocalMeasurer, WorkerConfig

PLAIN_LOOPS = '[[["EnterPostproc",[],[],[]]],[]]'

pytestmark = [pytest.mark.tvm, pytest.mark.slow]


def measurer_config(jobs: str = "handlers") -> WorkerConfig:
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return WorkerConfig(cpus[-1:], cpus, jobs_module=f"fault_jobs:{jobs}")


class TestContract(RealMeasurerContract):
    """The same promises as every measurer."""


def test_a_kernel_that_failed_fails_again_without_running(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    results = measurer.measure([measure_input(task, "run:bad-alloc")] * 2)
    # Which of the two is built first is not promised; the other one's message is longer.
    first, second = sorted(results, key=lambda result: len(getattr(result, "message", "")))
    assert isinstance(first, MeasureFailure) and isinstance(second, MeasureFailure)
    assert first.kind is second.kind is FailureKind.OOM
    assert first.object_key == second.object_key == "bad-alloc"
    assert second.message == f"its machine code is that of an earlier candidate: {first.message}"


def test_pruned_kernels_stay_pruned(measurer: LocalMeasurer) -> None:
    task = matmul_task(56)
    pruning = dataclasses.replace(QUICK, prune_ratio=3.0)
    slow = measure_input(task, default_trace_json(task), pruning, incumbent_secs=1e-9)
    first, second = measurer.measure([slow, slow])
    assert isinstance(first, MeasureFailure) and isinstance(second, MeasureFailure)
    assert first.kind is second.kind is FailureKind.PRUNED
    assert first.run_secs == second.run_secs


def test_a_duplicate_of_a_lost_candidate_is_tried_itself(measurer: LocalMeasurer) -> None:
    results = measurer.measure([measure_input(matmul_task(), "run:kill-zygote")] * 2)
    assert [getattr(result, "kind", None) for result in results] == [FailureKind.WORKER_LOST] * 2


def test_builds_are_cut_by_what_the_tasks_builds_take(measurer: LocalMeasurer) -> None:
    task = matmul_task(24)
    good = measure_input(task, default_trace_json(task))
    hanging = measure_input(task, "build:hang")
    assert all(isinstance(result, MeasureSuccess) for result in measurer.measure([good] * 16))
    (cut,) = measurer.measure([hanging])
    assert isinstance(cut, MeasureFailure) and cut.kind is FailureKind.BUILD_TIMEOUT
    assert 2.0 <= cut.build_secs < QUICK.build_timeout_secs
    assert f"killed after {cut.build_secs:g} s of building" in cut.message


def test_contenders_are_measured_again_when_the_machine_has_changed() -> None:
    task = matmul_task()
    good = default_trace_json(task)
    quick = dataclasses.replace(QUICK, max_samples=3)
    with LocalMeasurer(measurer_config("jumpy_handlers")) as measurer:
        contender, failure = measurer.measure(
            [measure_input(task, good, quick), measure_input(task, "run:abort", quick)]
        )
        (other,) = measurer.measure(
            [measure_input(matmul_task(40), default_trace_json(matmul_task(40)), quick)]
        )
    assert isinstance(failure, MeasureFailure)
    for result in (contender, other):
        assert isinstance(result, MeasureSuccess)
        assert result.is_noisy and result.is_verified
        assert len(result.run_secs) == 3 + 5


def test_a_steady_machine_is_not_noisy_and_its_yardstick_may_die(
    measurer: LocalMeasurer, caplog: pytest.LogCaptureFixture
) -> None:
    task = matmul_task(32)
    measurer.measure([measure_input(task, default_trace_json(task))])
    assert measurer.pool.zygote_pid is not None
    zygote = psutil.Process(measurer.pool.zygote_pid)
    while len(children := zygote.children()) > 1:  # the candidate ends by itself
        time.sleep(0.01)
    os.kill(children[0].pid, signal.SIGKILL)
    other = matmul_task(36)
    with caplog.at_level(logging.WARNING):
        (result,) = measurer.measure([measure_input(other, default_trace_json(other))])
    assert isinstance(result, MeasureSuccess)
    assert "the yardstick's process ended" in caplog.text


def test_without_a_yardstick_measuring_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with LocalMeasurer(measurer_config("broken_handlers")) as measurer, caplog.at_level(logging.WARNING):
        for size in (32, 40, 48):
            task = matmul_task(size)
            (result,) = measurer.measure([measure_input(task, default_trace_json(task))])
            assert isinstance(result, MeasureSuccess) and not result.is_noisy
    assert caplog.text.count("the yardstick's process ended") == 2


def test_interleaved_candidates_get_as_many_samples_however_slow_one_is(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    good = measure_input(task, default_trace_json(task))
    slow = measure_input(task, PLAIN_LOOPS)
    first, second = measurer.interleave([good, slow], rounds=5, rng=np.random.default_rng(0))
    assert isinstance(first, MeasureSuccess) and isinstance(second, MeasureSuccess)
    assert len(first.run_secs) == len(second.run_secs) == 5
    assert second.median_secs > 1.5 * first.median_secs  # a race would have ended without it
    assert not first.is_verified and not second.is_verified
    broken = measure_input(task, "run:segfault")
    crashed, survivor = measurer.interleave([broken, good], rounds=2, rng=np.random.default_rng(0))
    assert isinstance(crashed, MeasureFailure) and crashed.kind is FailureKind.RUN
    assert isinstance(survivor, MeasureSuccess) and len(survivor.run_secs) == 2


def test_who_is_behind_leaves_a_race_unless_the_others_are_compared_with_it(
    measurer: LocalMeasurer,
) -> None:
    task = matmul_task()
    good = measure_input(task, default_trace_json(task))
    slow = measure_input(task, PLAIN_LOOPS)
    for inputs, expected in (([good, slow], [9, 7]), ([slow, good], [9, 9])):
        results = measurer.race(inputs, rounds=9)
        assert [len(result.run_secs) for result in results] == expected
