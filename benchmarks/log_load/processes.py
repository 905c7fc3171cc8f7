"""What other processes do to the log: producers at the same time, and readers that begin anew."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np

from log_load.synthesis import Trial
from tunewright.core.errors import TunewrightError
from tunewright.core.types import TaskKey
from tunewright.tuning_logs import RankedTrial, TuningLog

_START_TIMEOUT_SECS = 600.0
_NUM_OPENINGS = 10

# A fresh interpreter: nothing is loaded, compiled or cached before it begins.
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Produced:
    """What one producer saw. `append_secs`: of each batch that was acknowledged."""

    append_secs: tuple[float, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Seconds of each lookup of one task and of one model; `best_secs` of each task that was looked up."""

    one_secs: tuple[float, ...]
    model_secs: tuple[float, ...]
    best_secs: dict[TaskKey, float | None]


@dataclass(frozen=True, slots=True)
class Opened:
    first_secs: float
    again_secs: tuple[float, ...]
    read_only_secs: tuple[float, ...]


def produce(url: str, rows: Sequence[Sequence[Trial]], *, batch_size: int) -> tuple[float, list[Produced]]:
    """Let a process for each list of trials append it, all at the same time.

    Returns: seconds from the common start, when all have opened the log, until the last has finished; and
    what each saw.
    """
    start, answers = _SPAWN.Barrier(len(rows) + 1), _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=_producer, args=(url, list(trials), batch_size, start, answers), daemon=True)
        for trials in rows
    ]
    for process in processes:
        process.start()
    start.wait(_START_TIMEOUT_SECS)
    began = time.perf_counter()
    produced = [answers.get() for _ in processes]
    secs = time.perf_counter() - began
    for process in processes:
        process.join()
    return secs, produced


def _producer(
    url: str, trials: Sequence[Trial], batch_size: int, start: Barrier, answers: "Queue[Produced]"
) -> None:
    append_secs: list[float] = []
    error = ""
    try:
        with TuningLog.open(url) as log:
            start.wait(_START_TIMEOUT_SECS)
            for first in range(0, len(trials), batch_size):
                began = time.perf_counter()
                log.append(trials[first : first + batch_size])
                append_secs.append(time.perf_counter() - began)
    except TunewrightError as exc:
        error = f"{type(exc).__name__}: {exc}"
    finally:
        answers.put(Produced(tuple(append_secs), error))


def look_up_in_fresh_process(
    url: str, models: Sequence[Sequence[TaskKey]], *, num_one: int, num_models: int, seed: int
) -> LookedUp:
    """Look up random tasks, and random models, after as many lookups again as a twentieth of these."""
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(_look_up, url, models, num_one, num_models, seed).result()


def _look_up(
    url: str, models: Sequence[Sequence[TaskKey]], num_one: int, num_models: int, seed: int
) -> LookedUp:
    rng = np.random.default_rng(seed)
    keys = [key for model in models for key in model]
    best_secs: dict[TaskKey, float | None] = {}
    secs: tuple[list[float], list[float]] = [], []
    with TuningLog.open(url, read_only=True) as log:
        for number in rng.integers(len(keys), size=num_one + num_one // 20).tolist():
            began = time.perf_counter()
            found = log.best(keys[number])
            secs[0].append(time.perf_counter() - began)
            best_secs[keys[number]] = _secs(found)
        for number in rng.integers(len(models), size=num_models + num_models // 20).tolist():
            began = time.perf_counter()
            found_of = log.best_many(models[number])
            secs[1].append(time.perf_counter() - began)
            best_secs.update((key, _secs(found)) for key, found in found_of.items())
    return LookedUp(tuple(secs[0][-num_one:]), tuple(secs[1][-num_models:]), best_secs)


def _secs(found: Sequence[RankedTrial]) -> float | None:
    return found[0].secs if found else None


def open_in_fresh_process(url: str) -> Opened:
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(_open, url).result()


def _open(url: str) -> Opened:
    again = [_opening_secs(url, read_only=False) for _ in range(_NUM_OPENINGS + 1)]
    read_only = [_opening_secs(url, read_only=True) for _ in range(_NUM_OPENINGS)]
    return Opened(again[0], tuple(again[1:]), tuple(read_only))


def _opening_secs(url: str, *, read_only: bool) -> float:
    began = time.perf_counter()
    with TuningLog.open(url, read_only=read_only):
        return time.perf_counter() - began
