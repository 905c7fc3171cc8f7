"""Runners that contestants of a model benchmark name."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np

from tunewright.scheduler.bench_child import Array, Feed, Runner


def make_constant(path: Path, num_threads: int) -> Runner:
    """Gives the number that stands in the file, times the threads, whatever the input."""
    value = np.full((1,), float(path.read_text()) * num_threads, dtype=np.float32)

    def run(feed: Feed) -> list[Array]:
        return [value]

    return run


def make_spinning(path: Path, num_threads: int) -> Runner:
    """A thread of it works on after each call, as those of most libraries do; the file tells when."""

    def spin(started: float) -> None:
        while time.monotonic() < started + 0.1:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)  # without Python's lock
        with path.open("a", encoding="ascii") as file:
            file.write(f"{started} {time.monotonic()}\n")

    def run(feed: Feed) -> list[Array]:
        threading.Thread(target=spin, args=(time.monotonic(),)).start()
        return [np.zeros(1, dtype=np.float32)]

    return run
