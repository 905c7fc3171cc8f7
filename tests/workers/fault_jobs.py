"""The production jobs, with a door for faults. A zygote of the tests loads it by name.

A candidate whose trace is "build:FAULT" misbehaves while it is built, "run:FAULT" when it is timed;
"wrong" builds a kernel that leaves out the last term of a matrix product.
"""

from typing import Any

from echo_jobs import FAULTS  # beside this file, which is on the zygote's path

from tunewright.workers import jobs
from tunewright.workers.candidate_job import time_build
from tunewright.workers.child import JobHandlers
from tunewright.workers.codec import args_from_dict
from tunewright.workers.frames import Channel, Message


def handlers() -> JobHandlers:
    """The production handlers, with one replaced."""
    return {**jobs.handlers(), "candidate": _candidate}


def jumpy_handlers() -> JobHandlers:
    """The yardstick takes twice as long with every sample."""
    return {**handlers(), "yardstick": _jumpy_yardstick}


def broken_handlers() -> JobHandlers:
    """The yardstick dies when it is built."""
    return {**handlers(), "yardstick": lambda channel, payload: FAULTS["segfault"]()}


def _jumpy_yardstick(channel: Channel, payload: Message) -> None:
    channel.send({"event": "built"})
    secs = 1.0
    while (command := channel.receive()) is not None:
        secs *= 2.0
        channel.send({"event": command["op"], "secs": secs})


def _candidate(channel: Channel, payload: Message) -> None:
    phase, _, fault = payload["trace"].partition(":")
    if phase == "build":
        FAULTS[fault]()
    elif phase == "run":
        channel.send({"event": "built", "build_secs": 0.1, "object_key": fault})
        channel.receive()
        FAULTS[fault]()
    elif phase == "wrong":
        kernel = time_build(payload, lambda: _wrong_matmul(args_from_dict(payload["task"])[0].shape[0]))
        channel.send({"event": "built", "build_secs": kernel.build_secs, "object_key": kernel.object_key})
        jobs.serve_held(channel, kernel)
    else:
        jobs.handlers()["candidate"](channel, payload)


def _wrong_matmul(n: int) -> Any:
    import tvm
    from tvm import te

    a, b = te.placeholder((n, n), name="a"), te.placeholder((n, n), name="b")
    k = te.reduce_axis((0, n - 1), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    return tvm.IRModule({"main": te.create_prim_func([a, b, c])})
