"""LocalMeasurer with a real zygote: real kernels, and candidates that misbehave for real."""

import dataclasses
import os
from pathlib import Path

import psutil
import pytest

from tests.workers.processes import marked_processes
from tests.workers.workloads import QUICK, default_trace_json, matmul_task, measure_input
from tunewright.core.errors import EnvironmentProblem
from tunewright.core.types import FailureKind, MeasureFailure, MeasureSuccess
from tunewright.workers import LocalMeasurer, WorkerConfig

pytestmark = [pytest.mark.tvm, pytest.mark.slow]


def measurer_config() -> WorkerConfig:
    """Everything is run, and only candidates are."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return WorkerConfig(
        cpus[-1:],
        cpus,
        jobs_module="fault_jobs:handlers",
        drops_duplicates=False,
        adapts_build_limit=False,
        watches_reference=False,
    )


FAULTS = {
    "build:segfault": (FailureKind.BUILD, "SIGSEGV"),
    "build:hang-with-gil": (FailureKind.BUILD_TIMEOUT, "killed after 1 s of building"),
    "build:huge": (FailureKind.OOM, "MemoryError"),
    "run:segfault": (FailureKind.RUN, "SIGSEGV"),
    "run:abort": (FailureKind.RUN, "SIGABRT"),
    "run:exit": (FailureKind.RUN, "exit code 7"),
    "run:hang-with-gil": (FailureKind.RUN_TIMEOUT, "killed after 1 s of running"),
    "run:hang": (FailureKind.RUN_TIMEOUT, "killed after 1 s"),
    "run:stop": (FailureKind.RUN_TIMEOUT, "killed after 1 s"),
    "run:huge": (FailureKind.OOM, "MemoryError"),
    "run:bad-alloc": (FailureKind.OOM, "std::bad_alloc"),
    "run:killed": (FailureKind.OOM, "SIGKILL"),
    "run:garbage": (FailureKind.RUN, "garbage"),
    "run:grandchild": (FailureKind.RUN, "exit code 3"),
}


def test_every_fault_is_its_own_failure_and_good_candidates_go_on(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    good = measure_input(task, default_trace_json(task))
    # Short limits only for what hangs: on a busy machine anything may take a second.
    limits = {
        FailureKind.BUILD_TIMEOUT: dataclasses.replace(QUICK, build_timeout_secs=1.0),
        FailureKind.RUN_TIMEOUT: dataclasses.replace(QUICK, run_timeout_secs=1.0),
    }
    faults = [measure_input(task, fault, limits.get(kind, QUICK)) for fault, (kind, _) in FAULTS.items()]
    inputs = [good, *faults, good]
    first, *failures, last = measurer.measure(inputs)
    for (fault, (kind, text)), failure in zip(FAULTS.items(), failures, strict=True):
        assert isinstance(failure, MeasureFailure), fault
        assert (fault, failure.kind) == (fault, kind), failure.message
        assert text in failure.message, fault
    assert isinstance(first, MeasureSuccess)
    assert isinstance(last, MeasureSuccess)
    assert measurer.pool.zygote_pid is not None
    children = psutil.Process(measurer.pool.zygote_pid).children(recursive=True)
    assert psutil.wait_procs(children, timeout=5)[1] == [], "all end by themselves"


def test_death_of_the_zygote_costs_only_the_candidate_that_killed_it(
    measurer: LocalMeasurer, mark: str
) -> None:
    task = matmul_task()
    good = measure_input(task, default_trace_json(task))
    before = measurer.pool.zygote_pid
    results = measurer.measure([good, measure_input(task, "run:kill-zygote"), good])
    assert isinstance(results[0], MeasureSuccess)
    assert isinstance(results[1], MeasureFailure) and results[1].kind is FailureKind.WORKER_LOST
    assert isinstance(results[2], MeasureSuccess)
    assert measurer.pool.zygote_pid != before
    zygote_pid = measurer.pool.zygote_pid
    assert zygote_pid is not None and psutil.pid_exists(zygote_pid)
    others = [process for process in marked_processes(mark) if process.pid != zygote_pid]
    assert psutil.wait_procs(others, timeout=10)[1] == []


def test_descriptors_do_not_leak(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    inputs = [
        measure_input(task, trace)
        for trace in (default_trace_json(task), "run:segfault", "build:exit", "wrong")
    ]
    measurer.measure(inputs)
    measurer.verify(inputs[:1])  # waits for all children
    zygote_pid = measurer.pool.zygote_pid
    before = _open_files(os.getpid()), _open_files(zygote_pid)
    measurer.measure(inputs * 2)
    measurer.verify(inputs[:1])
    assert (_open_files(os.getpid()), _open_files(zygote_pid)) == before


def test_wrong_kernel_is_never_a_success(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    for result in (
        *measurer.measure([measure_input(task, "wrong")]),
        *measurer.race([measure_input(task, "wrong")], rounds=2),
    ):
        assert isinstance(result, MeasureFailure)
        assert result.kind is FailureKind.WRONG_RESULT
        assert "is wrong on input set 'random' in" in result.message


def test_verifying_compares_each_and_times_none(measurer: LocalMeasurer) -> None:
    """Also one that is no contender: nothing is left out because it is slow."""
    task = matmul_task()
    good = measure_input(task, default_trace_json(task), incumbent_secs=1e-9)
    faults = [measure_input(task, fault) for fault in ("wrong", "[[],{]", "run:segfault", "run:kill-zygote")]
    first, *failures, last = measurer.verify([good, *faults, good])
    for result in (first, last):
        assert isinstance(result, MeasureSuccess) and result.is_verified and len(result.run_secs) == 1
    assert [failure.kind for failure in failures if isinstance(failure, MeasureFailure)] == [
        *(FailureKind.WRONG_RESULT, FailureKind.REPLAY, FailureKind.RUN, FailureKind.WORKER_LOST)
    ]
    assert measurer.verify([]) == []


def test_slow_candidates_are_pruned_and_middling_ones_stay_unverified(measurer: LocalMeasurer) -> None:
    task = matmul_task()
    trace = default_trace_json(task)
    pruning = dataclasses.replace(QUICK, prune_ratio=3.0)
    pruned, unverified = measurer.measure(
        [
            measure_input(task, trace, pruning, incumbent_secs=1e-9),
            measure_input(task, trace, incumbent_secs=1e-9),
        ]
    )
    assert isinstance(pruned, MeasureFailure) and pruned.kind is FailureKind.PRUNED
    assert len(pruned.run_secs) == 1
    assert isinstance(unverified, MeasureSuccess) and not unverified.is_verified


def test_trace_that_does_not_apply_is_a_replay_failure(measurer: LocalMeasurer) -> None:
    (result,) = measurer.measure([measure_input(matmul_task(), "[[],{]")])
    assert isinstance(result, MeasureFailure) and result.kind is FailureKind.REPLAY


def test_target_with_other_threads_than_the_timing_cpus_is_refused(measurer: LocalMeasurer) -> None:
    with pytest.raises(EnvironmentProblem, match="on 2 threads, but 1 CPUs are kept for timing"):
        measurer.measure([measure_input(matmul_task(num_threads=2), "[[],[]]")])


def test_two_threads_run_where_they_were_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child itself asserts thread count and affinity after the first run."""
    monkeypatch.delenv("TVM_BIND_THREADS", raising=False)  # the tests' own wish for this process
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs 2 CPUs")
    task = matmul_task(num_threads=2)
    with LocalMeasurer(WorkerConfig.for_threads(2)) as measurer:
        (result,) = measurer.measure([measure_input(task, default_trace_json(task))])
    assert isinstance(result, MeasureSuccess) and result.is_verified


def _open_files(pid: int | None) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
