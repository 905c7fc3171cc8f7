"""Find the processes that a test has started, orphans included: they inherit a mark in their environment."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_NAME = "TUNEWRIGHT_TEST_MARK"


@contextmanager
def marked_environment() -> Iterator[str]:
    """Mark what is started inside; zygotes can import the modules beside this file."""
    mark = uuid.uuid4().hex
    before = {name: os.environ.get(name) for name in (_NAME, "PYTHONPATH")}
    os.environ[_NAME] = mark
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), before["PYTHONPATH"]])
    )
    try:
        yield mark
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def marked_processes(mark: str) -> list[psutil.Process]:
    """Living processes that carry the mark; this process, marked after its start, does not count."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_NAME) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def left_processes(mark: str) -> list[psutil.Process]:
    """Those that stay alive. One that has been killed may take a moment to end where the CPUs are busy."""
    return psutil.wait_procs(marked_processes(mark), timeout=10)[1]
