"""Faults committed for real, and a job without TVM that commits them; a zygote loads it by name."""

import contextlib
import ctypes
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright.workers.child import JobHandlers, serve_items
from tunewright.workers.frames import Channel, Message


def handlers() -> JobHandlers:
    """Only "echo"."""
    return {"echo": _echo}


def leaking_handlers() -> JobHandlers:
    """The same, in a zygote that loses 32 MiB at every fork."""
    lost: list[bytes] = []
    os.register_at_fork(before=lambda: lost.append(b"x" * (32 << 20)))
    return handlers()


def _echo(channel: Channel, payload: Message) -> None:
    """Answer each item with itself, or commit the fault that it names."""

    def answer(_call: Message, item: Message) -> object:
        if item["value"] in FAULTS:
            FAULTS[item["value"]]()
        return os.getpid() if item["value"] == "pid" else item["value"]

    serve_items(channel, payload, answer)


def _grandchild() -> None:
    if os.fork() == 0:
        os.setsid()
        signal.pause()
    os._exit(3)


def _kill_grandparent() -> None:
    status = Path(f"/proc/{os.getppid()}/status").read_text(encoding="ascii")
    parent = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(int(parent), signal.SIGKILL)


def _native_out_of_memory() -> None:
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    sys.stderr.flush()
    os.abort()


FAULTS: dict[str, Callable[[], Any]] = {
    "nap": lambda: time.sleep(0.3),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(7),
    "hang-with-gil": lambda: ctypes.PyDLL(None).sleep(1000),
    "hang": lambda: ctypes.CDLL(None).sleep(1000),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "huge": lambda: bytearray(100 << 30),
    "bad-alloc": _native_out_of_memory,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "garbage": lambda: os.write(_socket_fd(), b"\xff" * 64) and signal.pause(),
    "grandchild": _grandchild,
    "kill-supervisor": lambda: _kill_grandparent() or signal.pause(),
    "kill-zygote": lambda: os.kill(os.getppid(), signal.SIGKILL) or signal.pause(),
}


def _socket_fd() -> int:
    """The only socket that this child holds."""
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                return fd
    raise AssertionError("no socket")
