"""Where builds run while others of their batch are timed. The children are played by a script."""

from collections import deque
from collections.abc import Container

import pytest

from tests.workers.workloads import matmul_task, measure_input
from tunewright.core.types import TaskKey
from tunewright.workers.build_limits import BuildLimits
from tunewright.workers.building import BuildQueue
from tunewright.workers.config import WorkerConfig
from tunewright.workers.events import ExitCause, JobEvent, JobExit, JobMessage, JobSpec
from tunewright.workers.pace import Pace

TASK = matmul_task()


class Children:
    """Builds end in the order in which they were started: when somebody waits, or when it is set."""

    def __init__(self) -> None:
        self.running: deque[tuple[int, JobSpec]] = deque()
        self.num_started = 0
        self.fails = False
        self.num_done = 0  # builds that have ended without anybody waiting

    def start(self, spec: JobSpec) -> int:
        self.num_started += 1
        self.running.append((self.num_started, spec))
        return self.num_started

    def next_of(self, job_ids: Container[int]) -> JobEvent:
        job_id, _ = self.running.popleft()
        assert job_id in job_ids
        if self.fails:
            return JobExit(job_id, ExitCause.ENDED, code=3)
        return JobMessage(job_id, {"event": "built", "build_secs": 0.4, "object_key": f"k{job_id}"})

    def poll(self, job_ids: Container[int]) -> JobEvent | None:
        if not self.num_done:
            return None
        self.num_done -= 1
        return self.next_of(job_ids)

    def cpus(self) -> list[tuple[int, ...]]:
        return sorted(spec.cpus for _, spec in self.running)


def _queue(children: Children, pace: Pace | None, *, cpus: tuple[int, ...] = (0, 1, 2, 3)) -> BuildQueue:
    config = WorkerConfig(timing_cpus=(2, 3), build_cpus=cpus, adapts_build_limit=False)
    inputs = [measure_input(TASK, f"trace {i}") for i in range(16)]
    return BuildQueue(config, BuildLimits(), pace, children, lambda: 0.0, inputs, range(16))  # type: ignore


def _known_pace(run_secs: float = 0.1) -> Pace:
    pace = Pace()
    pace.add_build(TASK.key, 0.4)
    pace.add_run(TASK.key, run_secs)
    return pace


def _build_until_time(queue: BuildQueue) -> list[TaskKey]:
    ready: list[TaskKey] = []
    while not queue.can_time:
        ready += [trial.task_key for trial, failure in queue.finished(ready, wait=True) if failure is None]
    return ready


@pytest.mark.parametrize("pace", [None, Pace()])
def test_without_a_known_pace_all_is_built_on_all_cpus_first(pace: Pace | None) -> None:
    children = Children()
    queue = _queue(children, pace)
    assert queue.finished([], wait=False) == []
    assert children.cpus() == [(0, 1), (0, 1), (2, 3), (2, 3)]
    ready = _build_until_time(queue)
    if pace is None:
        assert queue.is_over and len(ready) == 16
    else:  # nothing waits any more: the last two are built beside the timing
        assert len(ready) >= 12 and (2, 3) not in children.cpus()


def test_the_last_builds_leave_the_cpus_that_time() -> None:
    children = Children()
    queue = _queue(children, _known_pace())
    ready = _build_until_time(queue)
    # 16 x 0.1 s of timing are 8 builds of 0.4 s on two CPUs.
    assert children.num_started == 16 - 8 + 2
    num_timed = 0
    while ready:
        assert queue.can_time and (2, 3) not in children.cpus()
        ready, num_timed = ready[1:], num_timed + 1
        children.num_done = num_timed % 2
        ready += [trial.task_key for trial, _ in queue.finished(ready, wait=False)]
    assert queue.is_over and num_timed == 16


def test_builds_come_back_when_timing_has_nothing_left() -> None:
    children = Children()
    queue = _queue(children, _known_pace())
    _build_until_time(queue)
    for _ in range(8):  # builds that take far longer than those before
        queue._pace.add_build(TASK.key, 40.0)  # type: ignore
    queue.finished([], wait=False)
    assert (2, 3) in children.cpus() and not queue.can_time


def test_failed_builds_are_reported_and_make_room() -> None:
    children = Children()
    children.fails = True
    queue = _queue(children, _known_pace())
    failures = []
    while not queue.is_over:
        failures += [failure for _, failure in queue.finished([], wait=True)]
    assert len(failures) == 16 and all(failure is not None for failure in failures)


def test_without_other_cpus_all_is_built_first() -> None:
    children = Children()
    queue = _queue(children, _known_pace(), cpus=(2, 3))
    assert len(_build_until_time(queue)) >= 14 and children.num_started == 16
