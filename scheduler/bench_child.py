"""One contestant of a model benchmark, in a process of its own: load, run once, then time on command.

`python -m tunewright.scheduler.bench_child JOB.json`. Every answer is one JSON line on standard output;
every line on standard input is a number of calls to time.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Runner = Callable[[], list[Array]]


def main(job_file: Path) -> None:
    """Serve until standard input ends."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    # Before any library starts threads: they inherit the affinity.
    os.sched_setaffinity(0, job["cpus"])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with answers
    with np.load(job["inputs"]) as archive:
        inputs = {name: archive[f"arr_{index}"] for index, name in enumerate(job["input_names"])}
    path = Path(job["path"])
    started = perf_counter()
    run = _bundle_runner(path, inputs) if path.is_dir() else _onnx_runner(path, inputs, job["num_threads"])
    setup_secs = perf_counter() - started
    outputs = run()
    np.savez(job["outputs"], *outputs)
    answers.write(json.dumps({"setup_secs": setup_secs, "call_secs": _time(run, 2)}) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps({"secs": _time(run, int(line))}) + "\n")


def _time(run: Runner, num_calls: int) -> float:
    """Mean seconds per call, after one untimed call that makes caches and threads this contestant's."""
    run()
    started = perf_counter()
    for _ in range(num_calls):
        run()
    return (perf_counter() - started) / num_calls


def _bundle_runner(folder: Path, inputs: Mapping[str, Array]) -> Runner:
    from tunewright.scheduler.bundle import load

    model = load(folder)
    return lambda: list(model.run_named(inputs).values())


def _onnx_runner(path: Path, inputs: Mapping[str, Array], num_threads: int) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    # Names may have changed between two exports of a model; the order has not.
    feed: dict[str, Any] = dict(zip(names, inputs.values(), strict=True))
    if set(names) == set(inputs):
        feed = dict(inputs)
    return lambda: [np.asarray(output) for output in session.run(None, feed)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
