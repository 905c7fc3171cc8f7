"""The loop that owns a zygote: starts it, passes it sockets, enforces limits, survives its death.

One thread runs `Supervisor.run`; the others reach it through `post` only. Everything that happens to a job
goes to the mailbox that came with it.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec, Mailbox
from tunewright.workers.frames import BufferedChannel, FrameError, Message

_READY_LIMIT_SECS = 120.0
_ANSWER_LIMIT_SECS = 5.0
_MAX_PACKET_BYTES = 1 << 16
_TAIL_BYTES = 2048
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FIXED_ENV = {
    # Libraries that start threads when they are loaded would make fork unsafe.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # TVM would otherwise pin its threads to the first cores, whatever the affinity says.
    "TVM_BIND_THREADS": "0",
}


@dataclass(slots=True)
class _Job:
    job_id: int
    limit_secs: float
    mailbox: Mailbox
    channel: BufferedChannel
    is_expendable: bool
    deadline: float | None = None
    cause: ExitCause = ExitCause.ENDED
    kill_by: float | None = None  # when the zygote must have reported the death


@dataclass(slots=True)
class _Zygote:
    process: subprocess.Popen[bytes]
    control: socket.socket
    stderr_fd: int
    ready_by: float
    is_ready: bool = False
    fresh_rss_bytes: int = 0  # when it had just become ready
    jobs: dict[int, _Job] = field(default_factory=dict)


class Supervisor:
    """Single-threaded; see the module's docstring. `jobs_module` is the zygote's `--jobs`.

    A zygote that has grown by `max_growth_bytes` is replaced as soon as no child needs it.
    """

    def __init__(self, jobs_module: str, *, max_growth_bytes: int) -> None:
        self._jobs_module = jobs_module
        self._max_growth_bytes = max_growth_bytes
        self._zygote: _Zygote | None = None
        self._selector = selectors.DefaultSelector()
        self._commands: deque[Callable[[], None]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._on_wake)
        self._is_closing = False
        self.startup_problem: str | None = None
        self.zygote_pid: int | None = None

    def post(self, command: Callable[[], None]) -> None:
        """Have `command` run in the loop's thread; the only method that other threads may call."""
        self._commands.append(command)
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        """Serve until `close` has been posted."""
        while not self._is_closing:
            for key, _ in self._selector.select(self._timeout()):
                # An earlier callback of this round may have closed what this event is about.
                if key.fd in self._selector.get_map():
                    key.data()
            while self._commands:
                self._commands.popleft()()
            self._enforce_limits(time.monotonic())
        self._drop_zygote(ExitCause.CANCELLED)
        self._selector.close()
        os.close(self._wake_fd)

    # Commands, run in the loop's thread.

    def close(self) -> None:
        """End the loop; children and zygote are killed."""
        self._is_closing = True

    def warm_up(self) -> None:
        """Start a zygote where there is none: it takes a second."""
        if self._zygote is None and not self._is_closing and self.startup_problem is None:
            self._start_zygote()

    def start(self, job_id: int, spec: JobSpec, mailbox: Mailbox) -> None:
        """Fork a child for a job; a zygote is started when there is none."""
        if self._is_closing or self.startup_problem is not None:
            mailbox.put(JobExit(job_id, ExitCause.LOST))
            return
        if self._zygote is not None and self._is_due(self._zygote):
            self._drop_zygote(ExitCause.CANCELLED)
        zygote = self._zygote or self._start_zygote()
        ours, theirs = socket.socketpair()
        job = _Job(job_id, spec.limit_secs, mailbox, BufferedChannel(ours), spec.is_expendable)
        job.channel.queue(
            {
                "kind": spec.kind,
                "payload": spec.payload,
                "cpus": spec.cpus,
                "memory_bytes": spec.memory_bytes,
                "file_bytes": spec.file_bytes,
                "is_sandboxed": spec.is_sandboxed,
            }
        )
        zygote.jobs[job_id] = job
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_job(job))
        self._flush(job)
        try:
            socket.send_fds(zygote.control, [_packet("fork", job_id)], [theirs.fileno()])
        except OSError:
            self._drop_zygote(ExitCause.LOST)
        finally:
            theirs.close()

    def send(self, job_id: int, message: Message, limit_secs: float | None) -> None:
        """Send a message to a child, which must answer within `limit_secs`; nothing if it is gone."""
        job = self._job(job_id)
        if job is None:
            return
        job.channel.queue(message)
        job.deadline = None if limit_secs is None else time.monotonic() + limit_secs
        self._flush(job)

    def cancel(self, job_id: int) -> None:
        """Kill a child."""
        if (job := self._job(job_id)) is not None:
            self._kill(job, ExitCause.CANCELLED)

    # Events.

    def _on_wake(self) -> None:
        os.eventfd_read(self._wake_fd)

    def _on_job(self, job: _Job) -> None:
        """The child's socket is readable or writable."""
        self._flush(job)
        self._deliver(job)

    def _on_control(self) -> None:
        zygote = self._zygote
        assert zygote is not None
        try:
            packet = zygote.control.recv(_MAX_PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            self._drop_zygote(ExitCause.LOST)
            return
        report: dict[str, Any] = json.loads(packet)
        if report["op"] == "ready":
            zygote.is_ready = True
            zygote.fresh_rss_bytes = _rss_bytes(zygote.process.pid)
            return
        job = zygote.jobs[report["id"]]
        if report["op"] == "started":
            if job.kill_by is None:
                job.deadline = time.monotonic() + job.limit_secs
            return
        exit_event = JobExit(
            job.job_id,
            job.cause,
            code=report["code"],
            signal=report["signal"],
            max_rss_bytes=report["max_rss_bytes"],
            output_tail=report["output_tail"],
        )
        self._deliver(job)
        self._finish(zygote, job, exit_event)

    def _deliver(self, job: _Job) -> None:
        try:
            messages, is_at_end = job.channel.receive()
        except FrameError:
            messages, is_at_end = [], True
            self._kill(job, ExitCause.GARBLED)
        for message in messages:
            job.deadline = time.monotonic() + job.limit_secs if message.get("more") else None
            job.mailbox.put(JobMessage(job.job_id, message))
        if is_at_end:
            with contextlib.suppress(KeyError):
                self._selector.unregister(job.channel.sock)

    def _finish(self, zygote: _Zygote, job: _Job, event: JobExit) -> None:
        del zygote.jobs[job.job_id]
        with contextlib.suppress(KeyError):
            self._selector.unregister(job.channel.sock)
        job.channel.close()
        job.mailbox.put(event)

    # Limits.

    def _timeout(self) -> float | None:
        zygote = self._zygote
        if zygote is None:
            return None
        times = [t for job in zygote.jobs.values() for t in (job.deadline, job.kill_by) if t is not None]
        if not zygote.is_ready:
            times.append(zygote.ready_by)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _enforce_limits(self, now: float) -> None:
        zygote = self._zygote
        if zygote is None:
            return
        if not zygote.is_ready and now >= zygote.ready_by:
            self._drop_zygote(ExitCause.LOST)
            return
        for job in list(zygote.jobs.values()):
            if job.kill_by is not None and now >= job.kill_by:
                self._drop_zygote(ExitCause.LOST)
                return
            if job.deadline is not None and now >= job.deadline:
                self._kill(job, ExitCause.DEADLINE)

    def _kill(self, job: _Job, cause: ExitCause) -> None:
        zygote = self._zygote
        if zygote is None or job.kill_by is not None:
            return
        job.cause = cause
        job.deadline = None
        # A zygote that still loads TVM gets to its requests only when it is ready.
        job.kill_by = _ANSWER_LIMIT_SECS + (time.monotonic() if zygote.is_ready else zygote.ready_by)
        with contextlib.suppress(OSError):  # a dead zygote is noticed at its control socket
            zygote.control.send(_packet("kill", job.job_id))

    # The zygote.

    def _is_due(self, zygote: _Zygote) -> bool:
        """Whether it has grown too large, and no child would miss it."""
        if not zygote.is_ready or not all(job.is_expendable for job in zygote.jobs.values()):
            return False
        return _rss_bytes(zygote.process.pid) - zygote.fresh_rss_bytes > self._max_growth_bytes

    def _start_zygote(self) -> _Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_LIMIT_SECS)
        stderr_fd = os.memfd_create("zygote-stderr")
        command = [sys.executable, "-P", "-m", "tunewright.workers.zygote"]
        with theirs:
            process = subprocess.Popen(
                [*command, "--control", str(theirs.fileno()), "--jobs", self._jobs_module],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stderr_fd,
                stderr=stderr_fd,
                env={k: v for k, v in os.environ.items() if k != "TVM_NUM_THREADS"} | _FIXED_ENV,
                start_new_session=True,  # so that Ctrl-C in a terminal reaches only us
            )
        zygote = _Zygote(process, ours, stderr_fd, ready_by=time.monotonic() + _READY_LIMIT_SECS)
        self._selector.register(ours, selectors.EVENT_READ, self._on_control)
        self._zygote = zygote
        self.zygote_pid = process.pid
        return zygote

    def _drop_zygote(self, cause: ExitCause) -> None:
        """The zygote is dead, does not answer, or is not needed: its jobs end with `cause`."""
        zygote = self._zygote
        if zygote is None:
            return
        self._zygote = None
        self.zygote_pid = None
        self._selector.unregister(zygote.control)
        zygote.control.close()  # a living zygote now kills its children and ends
        try:
            zygote.process.wait(_ANSWER_LIMIT_SECS if cause is ExitCause.CANCELLED else 0.5)
        except subprocess.TimeoutExpired:
            zygote.process.send_signal(signal.SIGKILL)
            zygote.process.wait()
        if not zygote.is_ready and cause is ExitCause.LOST:
            self.startup_problem = _startup_problem(zygote)
        os.close(zygote.stderr_fd)
        for job in list(zygote.jobs.values()):
            self._deliver(job)
            # A child that we were killing anyway keeps its cause.
            self._finish(zygote, job, JobExit(job.job_id, job.cause if job.kill_by is not None else cause))

    def _job(self, job_id: int) -> _Job | None:
        return self._zygote.jobs.get(job_id) if self._zygote is not None else None

    def _flush(self, job: _Job) -> None:
        job.channel.flush()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if job.channel.wants_write else 0)
        with contextlib.suppress(KeyError):
            self._selector.modify(job.channel.sock, events, lambda: self._on_job(job))


def _packet(operation: str, job_id: int) -> bytes:
    return json.dumps({"op": operation, "id": job_id}).encode()


def _rss_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it has gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _startup_problem(zygote: _Zygote) -> str:
    size = os.fstat(zygote.stderr_fd).st_size
    tail = (
        os.pread(zygote.stderr_fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace").strip()
    )
    reason = tail.splitlines()[-1] if tail else f"exit status {zygote.process.returncode}"
    return f"the worker process did not start ({reason}); `tunewright doctor` checks the installation"
