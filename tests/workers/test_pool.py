"""Pool and streams with a zygote that loads no TVM: starting, dying, and whose fault it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.workers.processes import left_processes, marked_processes
from tunewright.core.errors import EnvironmentProblem
from tunewright.core.types import FailureKind
from tunewright.workers import Pool, streaming
from tunewright.workers.events import ExitCause, JobExit, JobSpec, classify_exit
from tunewright.workers.pool import new_mailbox
from tunewright.workers.streaming import Crew, PieceFailure, StreamSpec

pytestmark = pytest.mark.slow

ECHO = StreamSpec("echo", limit_secs=3.0, memory_bytes=1 << 30)
ONE_CPU = sorted(os.sched_getaffinity(0))[:1]  # the first of the machine may be forbidden


@pytest.fixture(scope="module")
def pool(mark: str) -> Iterator[Pool]:
    cpus = sorted(os.sched_getaffinity(0))
    with Pool((cpus * 3)[:3], jobs_module="echo_jobs:handlers") as pool:
        yield pool
    assert left_processes(mark) == []


def _echo(pool: Pool, values: list[str]) -> list[object]:
    with Crew(pool, ECHO) as crew:
        return _ask(crew, values)


def _ask(crew: Crew, values: list[str]) -> list[object]:
    return crew.answers([{"value": value} for value in values], {})


def test_answers_keep_the_order_of_the_pieces(pool: Pool) -> None:
    values = [str(i) for i in range(50)]
    assert _echo(pool, values) == values
    assert _echo(pool, []) == []


def test_a_fault_costs_only_its_own_piece(pool: Pool) -> None:
    values = [str(i) for i in range(20)]
    values[3], values[4], values[11] = "segfault", "hang-with-gil", "exit"
    answers = _echo(pool, values)
    kinds = {i: answer.kind for i, answer in enumerate(answers) if isinstance(answer, PieceFailure)}
    assert kinds == {3: FailureKind.RUN, 4: FailureKind.RUN_TIMEOUT, 11: FailureKind.RUN}
    assert [answer for i, answer in enumerate(answers) if i not in kinds] == [
        value for i, value in enumerate(values) if i not in kinds
    ]


def test_streams_survive_the_zygote(pool: Pool) -> None:
    answers = _echo(pool, ["a", "kill-zygote", "b", "c"])
    assert answers[0] == "a" and answers[2:] == ["b", "c"]
    assert isinstance(answers[1], PieceFailure) and answers[1].kind is FailureKind.WORKER_LOST


def test_no_work_goes_to_idle_children_of_a_dead_zygote(pool: Pool) -> None:
    # The third child is idle when the second kills the zygote in the middle of the first one's last piece.
    answers = _echo(pool, ["nap", "nap", "a", "nap", "kill-zygote"])
    assert answers[:4] == ["nap", "nap", "a", "nap"]
    assert isinstance(answers[4], PieceFailure) and answers[4].kind is FailureKind.WORKER_LOST


def test_the_children_of_a_crew_wait_for_its_next_call(pool: Pool) -> None:
    with Crew(pool, ECHO) as crew:
        first = _ask(crew, ["pid"] * 3)
        assert len(set(first)) == 3
        assert set(_ask(crew, ["pid"] * 7)) == set(first)
        time.sleep(ECHO.limit_secs + 0.5)  # the limit is for pieces, not for waiting
        assert set(_ask(crew, ["pid"])) <= set(first)
    with Crew(pool, ECHO) as crew:
        assert not set(_ask(crew, ["pid"] * 3)) & set(first)


def test_a_crew_replaces_the_children_that_it_loses(pool: Pool) -> None:
    with Crew(pool, ECHO) as crew:
        first = _ask(crew, ["pid"] * 3)
        assert isinstance(_ask(crew, ["1", "segfault", "2"])[1], PieceFailure)
        assert len(set(_ask(crew, ["pid"] * 3)) & set(first)) == 2
        zygote_pid = pool.zygote_pid
        assert zygote_pid is not None
        os.kill(zygote_pid, signal.SIGKILL)
        while pool.zygote_pid == zygote_pid:
            time.sleep(0.01)
        after = _ask(crew, ["pid"] * 3)
        assert all(isinstance(answer, int) for answer in after) and not set(after) & set(first)


def test_a_child_that_has_answered_much_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_MAX_PIECES_PER_CHILD", 4)
    with Crew(pool, ECHO) as crew:
        first = _ask(crew, ["pid"] * 9)
        assert set(_ask(crew, ["pid"] * 3)) == set(first)
        assert not set(_ask(crew, ["pid"] * 3)) & set(first)


def test_a_zygote_that_has_grown_is_replaced_under_an_idle_crew(mark: str) -> None:
    with Pool(ONE_CPU, jobs_module="echo_jobs:leaking_handlers", max_growth_bytes=16 << 20) as pool:
        with Crew(pool, ECHO) as crew, Crew(pool, ECHO) as other:
            (pid,) = _ask(crew, ["pid"])
            first = pool.zygote_pid
            assert _ask(other, ["a"]) == ["a"]
            assert pool.zygote_pid != first
            assert _ask(crew, ["pid"]) not in ([pid], [None])


def test_a_stopped_zygote_is_replaced(pool: Pool) -> None:
    assert _echo(pool, ["a"]) == ["a"]
    stopped = pool.zygote_pid
    assert stopped is not None
    mailbox = new_mailbox()
    job = JobSpec("echo", {"items": [{"value": "hang"}]}, pool.cpus, limit_secs=60.0, memory_bytes=1 << 30)
    job_id = pool.start(job, mailbox)
    _wait_for_child(stopped)
    os.kill(stopped, signal.SIGSTOP)
    pool.cancel(job_id)
    event = pool.wait(mailbox)
    assert isinstance(event, JobExit) and event.cause is ExitCause.CANCELLED
    assert _echo(pool, ["b"]) == ["b"]
    assert pool.zygote_pid != stopped


def test_a_zygote_that_has_grown_is_replaced_when_no_child_is_alive(mark: str) -> None:
    with Pool(ONE_CPU, jobs_module="echo_jobs:leaking_handlers", max_growth_bytes=48 << 20) as pool:
        mailbox = new_mailbox()
        items = {"items": [{"value": "1"}, {"value": "hang"}]}
        held = pool.start(JobSpec("echo", items, tuple(os.sched_getaffinity(0)), 60.0, 1 << 30), mailbox)
        pool.wait(mailbox)
        first = pool.zygote_pid
        for value in "abc":  # three leaks, but one child still waits
            assert _echo(pool, [value]) == [value]
        assert pool.zygote_pid == first
        pool.cancel(held)
        pool.wait(mailbox)
        assert _echo(pool, ["d"]) == ["d"]
        assert pool.zygote_pid != first


def test_cancelling_while_the_zygote_starts_is_no_startup_problem(mark: str) -> None:
    with Pool(ONE_CPU, jobs_module="echo_jobs:handlers") as pool:
        mailbox = new_mailbox()
        job = JobSpec(
            "echo", {"items": [{"value": "hang"}]}, pool.cpus, limit_secs=60.0, memory_bytes=1 << 30
        )
        pool.cancel(pool.start(job, mailbox))
        event = pool.wait(mailbox)
        assert isinstance(event, JobExit) and event.cause is ExitCause.CANCELLED
        pool.check()
        assert _echo(pool, ["a"]) == ["a"]


def test_jobs_end_when_the_pool_is_closed(mark: str) -> None:
    with Pool(ONE_CPU, jobs_module="echo_jobs:handlers") as pool:
        mailbox = new_mailbox()
        items = {"items": [{"value": "1"}, {"value": "hang"}]}
        pool.start(JobSpec("echo", items, tuple(os.sched_getaffinity(0)), 60.0, 1 << 30), mailbox)
        pool.wait(mailbox)
        zygote_pid = pool.zygote_pid
    event = pool.wait(mailbox)
    assert isinstance(event, JobExit) and event.cause is ExitCause.CANCELLED
    assert zygote_pid is not None and not psutil.pid_exists(zygote_pid)
    with pytest.raises(EnvironmentProblem, match="closed"):
        pool.check()


def test_killing_the_session_leaves_no_process_behind(mark: str) -> None:
    code = """if True:
        import os, signal
        from tunewright.workers import Pool
        from tunewright.workers.events import JobSpec
        from tunewright.workers.pool import new_mailbox
        pool = Pool(sorted(os.sched_getaffinity(0))[:1], jobs_module="echo_jobs:handlers")
        mailbox = new_mailbox()
        items = {"items": [{"value": "1"}, {"value": "hang-with-gil"}]}
        pool.start(JobSpec("echo", items, tuple(os.sched_getaffinity(0)), 60.0, 1 << 30), mailbox)
        pool.wait(mailbox)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    others = {process.pid for process in marked_processes(mark)}
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = [process for process in marked_processes(mark) if process.pid not in others]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []


def test_a_zygote_that_cannot_start_is_one_clear_sentence() -> None:
    with Pool(ONE_CPU, jobs_module="no_such_module:handlers") as pool:
        mailbox = new_mailbox()
        pool.start(JobSpec("echo", {}, tuple(ONE_CPU), 1.0, 1 << 30), mailbox)
        event = pool.wait(mailbox)
        assert isinstance(event, JobExit) and event.cause is ExitCause.LOST
        with pytest.raises(EnvironmentProblem, match=r"did not start .*No module named 'no_such_module'"):
            pool.check()


def test_killed_without_us_means_out_of_memory() -> None:
    event = JobExit(1, ExitCause.ENDED, signal=signal.SIGKILL, max_rss_bytes=5 << 20)
    kind, text = classify_exit(event, is_building=True, limit_secs=1.0)
    assert kind is FailureKind.OOM
    assert "SIGKILL while building (peak memory 5 MiB)" in text


def _wait_for_child(pid: int) -> None:
    process = psutil.Process(pid)
    while not process.children():
        os.sched_yield()
