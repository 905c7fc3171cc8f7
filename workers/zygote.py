"""The zygote: a single-threaded process that has TVM loaded and forks one child per job.

    python -m tunewright.workers.zygote --control FD --jobs MODULE:FUNCTION

It listens on a Unix socket (SOCK_SEQPACKET, one JSON object per packet) and never runs a job itself, never
waits for a child, and never starts a thread: a forked child of a process that ran a parallel kernel hangs
in its own first one.

    supervisor -> zygote   {"op": "fork", "id": 7} with one socket attached; {"op": "kill", "id": 7}
    zygote -> supervisor   {"op": "ready"}; {"op": "started", "id": 7, "pid": 4711};
                           {"op": "exit", "id": 7, "code": 0 | null, "signal": null | 9, ...}

The attached socket becomes the child's: from then on the supervisor talks to the child directly. When the
control socket closes, the supervisor is gone, and the zygote kills all children and ends. When the zygote
dies, the kernel kills the children (PR_SET_PDEATHSIG).
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.workers.child import JobHandlers, run_child

_MAX_PACKET_BYTES = 1 << 16
_STDERR_TAIL_BYTES = 2048
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class _Child:
    job_id: int
    pid: int
    pidfd: int
    output_fd: int


class Zygote:
    """The select loop. `handlers` are the jobs that a child knows how to do."""

    def __init__(self, control: socket.socket, handlers: JobHandlers) -> None:
        self._control = control
        self._handlers = handlers
        self._children: dict[int, _Child] = {}
        self._orphans: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Serve until the supervisor closes the control socket; then kill what still runs."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send({"op": "ready"})
            while True:
                events = self._selector.select()
                for key, _ in events:
                    if key.data is not None:
                        self._reap(key.data)
                if any(key.data is None for key, _ in events) and not self._handle_request():
                    break
        for child in self._children.values():
            _kill_group(child.pid)

    def _handle_request(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, _MAX_PACKET_BYTES, 1)
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "fork":
            self._fork(int(request["id"]), fds[0])
        elif (child := self._children.get(int(request["id"]))) is not None:
            _kill_group(child.pid)
        return True

    def _fork(self, job_id: int, job_fd: int) -> None:
        output_fd = os.memfd_create(f"job-{job_id}")
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child(job_fd, output_fd, zygote_pid)
        os.close(job_fd)
        child = _Child(job_id, pid, os.pidfd_open(pid), output_fd)
        self._children[job_id] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._send({"op": "started", "id": job_id, "pid": pid})

    def _become_child(self, job_fd: int, output_fd: int, zygote_pid: int) -> None:
        """In the child: keep only what the job needs, run it, never return."""
        try:
            self._selector.close()
            self._control.close()
            for other in self._children.values():
                os.close(other.pidfd)
                os.close(other.output_fd)
            os.dup2(output_fd, 1)
            os.dup2(output_fd, 2)
            os.close(output_fd)
            run_child(socket.socket(fileno=job_fd), self._handlers, zygote_pid)
        finally:
            os._exit(70)

    def _reap(self, child: _Child) -> None:
        # While the leader is an unreaped zombie its process group id cannot be given to anybody else.
        _kill_group(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.job_id]
        report: dict[str, Any] = {
            "op": "exit",
            "id": child.job_id,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            "max_rss_bytes": usage.ru_maxrss * 1024,
            "output_tail": _tail(child.output_fd),
        }
        os.close(child.output_fd)
        self._end_orphans()
        self._send(report)

    def _end_orphans(self) -> None:
        """Kill processes that a job left in groups of their own; as subreaper we inherited them."""
        known = {child.pid for child in self._children.values()}
        pid = os.getpid()
        for orphan in Path(f"/proc/self/task/{pid}/children").read_text(encoding="ascii").split():
            if int(orphan) not in known:
                self._orphans.add(int(orphan))
                os.kill(int(orphan), signal.SIGKILL)
        for orphan_pid in list(self._orphans):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(orphan_pid, os.WNOHANG)[0] == 0:
                    continue
            self._orphans.discard(orphan_pid)

    def _send(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the second for a child that has not yet made its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, _STDERR_TAIL_BYTES, max(0, size - _STDERR_TAIL_BYTES)).decode(errors="replace")


def _load_handlers(spec: str) -> JobHandlers:
    module, _, function = spec.partition(":")
    load: Callable[[], JobHandlers] = getattr(importlib.import_module(module), function)
    return load()


def main() -> None:
    """Load the job handlers, TVM among what they need, then serve."""
    parser = argparse.ArgumentParser(description="Fork one child per job for a Tunewright worker pool.")
    parser.add_argument("--control", type=int, required=True, help="inherited SOCK_SEQPACKET descriptor")
    parser.add_argument("--jobs", required=True, help="MODULE:FUNCTION that gives the job handlers")
    options = parser.parse_args()
    # Ray starts its processes with SIGCHLD ignored, which would throw exit statuses away.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with socket.socket(fileno=options.control) as control:
        Zygote(control, _load_handlers(options.jobs)).serve()
    os._exit(0)  # the session waits for us, and taking TVM down in good order takes a tenth of a second


if __name__ == "__main__":
    main()
