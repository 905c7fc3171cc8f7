"""What a forked child does around its job: own process group, limits, errors as messages, certain end."""

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.core.types import MAX_MESSAGE_CHARS, FailureKind
from tunewright.workers.frames import Channel, Message
from tunewright.workers.sandbox import enter_sandbox

_PR_SET_PDEATHSIG = 1
_MAX_OPEN_FILES = 256
_MEMORY_ERRORS = ("bad_alloc", "out of memory", "Cannot allocate memory")

JobHandler = Callable[[Channel, Message], None]
"""Does one job: receives its payload, sends messages, returns when it is done."""

JobHandlers = Mapping[str, JobHandler]


class JobError(Exception):
    """A job ends with a failure that belongs to the candidate."""

    def __init__(self, kind: FailureKind, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = dict(details or {})


def run_child(sock: socket.socket, handlers: JobHandlers, zygote_pid: int) -> None:
    """Run the one job that the supervisor sends, then end this process: never returns.

    Exit code 0: the job is done or has reported its failure. Everything else is the zygote's to report.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != zygote_pid:  # it died before PR_SET_PDEATHSIG could act
        os._exit(1)
    channel = Channel(sock)
    job = channel.receive()
    if job is None:
        os._exit(0)
    try:
        _apply_limits(int(job["memory_bytes"]), int(job["file_bytes"]))
        os.sched_setaffinity(0, job["cpus"])
        if job["is_sandboxed"]:
            enter_sandbox()
        handlers[job["kind"]](channel, job["payload"])
    except JobError as exc:
        _report(channel, exc.kind, str(exc), exc.details)
    except Exception as exc:
        kind = FailureKind.OOM if is_memory_error(exc) else FailureKind.RUN
        _report(channel, kind, describe(exc), {"unexpected": True})
    os._exit(0)


def serve_items(channel: Channel, payload: Message, answer: Callable[[Message, Any], Any]) -> None:
    """Answer the "items" of a call, one by one, and of all further calls until the channel is closed.

    Args:
        answer: of (the call, the item), a plain JSON value.
    """
    call: Message | None = payload
    while call is not None and "items" in call:
        for number, item in enumerate(call["items"], 1):
            is_last = number == len(call["items"])
            channel.send({"event": "item", "more": not is_last, "value": answer(call, item)})
        call = channel.receive()


def is_memory_error(exc: BaseException) -> bool:
    """Whether an allocation failed, in Python or in native code that reports by message."""
    return isinstance(exc, MemoryError) or any(text in str(exc) for text in _MEMORY_ERRORS)


def describe(exc: BaseException) -> str:
    """Type and message of an exception: the last lines of it, where native code puts the reason."""
    text = str(exc).strip()
    room = MAX_MESSAGE_CHARS - 200
    return f"{type(exc).__name__}: {text if len(text) <= room else '…' + text[-room:]}".removesuffix(": ")


def _report(channel: Channel, kind: FailureKind, message: str, details: Mapping[str, Any]) -> None:
    try:
        channel.send({"event": "failed", "kind": kind, "message": message, **details})
    except OSError:
        os._exit(1)


def _apply_limits(memory_bytes: int, file_bytes: int) -> None:
    used = _address_space_bytes()
    for limit, value in (
        (resource.RLIMIT_AS, used + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        hard = resource.getrlimit(limit)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (capped, capped))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
