"""Jobs that are listened to, dismissed, and killed."""

import os
from collections.abc import Iterator

import psutil
import pytest

from tunewright.workers import Pool
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import JobExit, JobMessage, JobSpec

pytestmark = pytest.mark.slow

CPUS = tuple(sorted(os.sched_getaffinity(0)))


@pytest.fixture(scope="module")
def pool(mark: str) -> Iterator[Pool]:
    with Pool(CPUS, jobs_module="echo_jobs:handlers") as pool:
        yield pool


def start(jobs: Conversation, *values: str) -> int:
    items = [{"value": value} for value in values]
    return jobs.start(JobSpec("echo", {"items": items}, CPUS, 30.0, 1 << 30))


def answer(jobs: Conversation, job_id: int) -> object:
    event = jobs.next_of((job_id,))
    assert isinstance(event, JobMessage)
    return event.message["value"]


def process_of(jobs: Conversation, job_id: int) -> psutil.Process:
    return psutil.Process(int(str(answer(jobs, job_id))))


def test_events_are_kept_for_whom_they_are_meant(pool: Pool) -> None:
    with Conversation(pool) as jobs:
        first, second = start(jobs, "a"), start(jobs, "b")
        assert answer(jobs, second) == "b"
        assert answer(jobs, first) == "a"
        jobs.finish([first], limit_secs=5.0)
        assert jobs.poll((first,)) is None


def test_who_is_dismissed_ends_unheard_while_others_go_on(pool: Pool) -> None:
    with Conversation(pool) as jobs:
        gone = [start(jobs, "pid", "unheard") for _ in range(3)]
        processes = [process_of(jobs, job_id) for job_id in gone]
        other = start(jobs, "pid", "b")
        stays = process_of(jobs, other)
        jobs.dismiss(gone, limit_secs=5.0)
        jobs.await_dismissed()
        assert not any(map(psutil.Process.is_running, processes))
        assert jobs.poll(gone) is None
        assert answer(jobs, other) == "b" and stays.is_running()
    assert not stays.is_running()


def test_who_does_not_go_is_killed(pool: Pool) -> None:
    with Conversation(pool) as jobs:
        hanging = start(jobs, "pid", "hang-with-gil")
        process = process_of(jobs, hanging)
        jobs.dismiss([hanging], limit_secs=0.2)
        jobs.await_dismissed()
        assert not process.is_running()


def test_who_was_dismissed_is_neither_killed_nor_forgotten_at_the_end(pool: Pool) -> None:
    jobs = Conversation(pool)
    with jobs:
        napping = start(jobs, "pid", "nap")
        process = process_of(jobs, napping)
        jobs.dismiss([napping], limit_secs=5.0)
    assert process.is_running(), "nobody has waited for it"
    jobs.await_dismissed()
    assert not process.is_running()


def test_a_dead_zygote_ends_the_waiting(pool: Pool) -> None:
    with Conversation(pool) as jobs:
        job_id = start(jobs, "pid", "kill-zygote")
        process_of(jobs, job_id)
        jobs.dismiss([job_id], limit_secs=30.0)
        jobs.await_dismissed()
        assert isinstance(jobs.next_of((start(jobs, "exit"),)), JobExit)
