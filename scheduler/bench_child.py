"""One contestant of a model benchmark, in a process of its own: load, run once, then time on command.

`python -m tunewright.scheduler.bench_child JOB.json`. Every answer is one JSON line on standard output;
every line on standard input is a number of calls to time.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.scheduler.array_file import load_arrays, save_arrays
from tunewright.workers.threads import wait_until_at_rest

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
Runner = Callable[[Feed], list[Array]]

# Longer than any of them spins: 0.16 s (TVM), 0.2 s (Intel's OpenMP).
_REST_LIMIT_SECS = 1.0


def main(job_file: Path) -> None:
    """Serve until standard input ends."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    # Before any library starts threads: they inherit the affinity.
    os.sched_setaffinity(0, job["cpus"])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with answers
    feeds = _feeds(job["inputs"], job["input_names"])
    started = perf_counter()
    run = _make_runner(Path(job["path"]), job["runner"], job["num_threads"])
    setup_secs = perf_counter() - started
    save_arrays(job["outputs"], (output for feed in feeds for output in run(feed)))
    timed = feeds[0]
    answer = {"setup_secs": setup_secs, "call_secs": time_calls(run, timed, 2)}
    while True:
        # The threads of most libraries spin for a while, on the CPUs of the contestant that is next.
        wait_until_at_rest(_REST_LIMIT_SECS)
        answers.write(json.dumps(answer) + "\n")
        line = sys.stdin.readline()
        if not line:
            return
        answer = {"secs": time_calls(run, timed, int(line))}


def _feeds(path: str, names: Sequence[str]) -> list[Feed]:
    """The input sets of the file, which holds the arrays of one set after those of the other."""
    arrays = load_arrays(path)
    starts = range(0, len(arrays), len(names))
    return [dict(zip(names, arrays[start : start + len(names)], strict=True)) for start in starts]


def time_calls(run: Callable[[Feed], object], feed: Feed, num_calls: int) -> float:
    """Mean seconds per call, after one untimed call that makes caches and threads this contestant's."""
    run(feed)
    started = perf_counter()
    for _ in range(num_calls):
        run(feed)
    return (perf_counter() - started) / num_calls


def _make_runner(path: Path, named: str, num_threads: int) -> Runner:
    if named:
        module, _, function = named.partition(":")
        make: Callable[[Path, int], Runner] = getattr(importlib.import_module(module), function)
        return make(path, num_threads)
    return _bundle_runner(path) if path.is_dir() else _onnx_runner(path, num_threads)


def _bundle_runner(folder: Path) -> Runner:
    from tunewright.scheduler.bundle import load

    model = load(folder)
    return lambda feed: list(model.run_named(feed).values())


def _onnx_runner(path: Path, num_threads: int) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(feed: Feed) -> list[Array]:
        if set(names) != set(feed):
            # Names may have changed between two exports of a model; the order has not.
            feed = dict(zip(names, feed.values(), strict=True))
        return [np.asarray(output) for output in session.run(None, dict(feed))]

    return run


if __name__ == "__main__":
    main(Path(sys.argv[1]))
