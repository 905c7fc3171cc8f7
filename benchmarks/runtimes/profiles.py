"""Where a model's time goes, ours and ONNX Runtime's, each in a process of its own.

`python -m runtimes.profiles JOB.json`: writes the job's `result` file.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from runtimes.results import KernelTime, OpTime
from tunewright.core.types import TensorSpec
from tunewright.scheduler.manifest import Manifest, read_manifest
from tunewright.scheduler.model_bench import Array, make_input

_TIMEOUT_SECS = 900.0
_NUM_WARM_UP_RUNS = 3
_MIN_RUNS, _MAX_RUNS, _ENOUGH_SECS = 5, 100, 3.0
_NO_FACTS = {"flop": None, "num_bytes": None, "floor_secs": None}
_PREPACKED = "_prepacked"  # what TVM appends to a function's name when its weights' packing is split off


def profile(kind: str, bundle: Path, model: Path, *, cpus: Sequence[int], log: str) -> dict[str, Any]:
    """Profile in a fresh process on some CPUs, one thread on each.

    Args:
        kind: "tunewright" or "onnxruntime".

    Raises:
        RuntimeError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="tunewright-profile-") as scratch:
        job_file, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
        job = {"kind": kind, "bundle": str(bundle), "model": str(model), "cpus": list(cpus), "log": log}
        job_file.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
        command = [sys.executable, "-m", "runtimes.profiles", str(job_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECS, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"profile of {kind} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer


def main(job_file: Path) -> None:
    job = json.loads(job_file.read_text(encoding="utf-8"))
    os.sched_setaffinity(0, job["cpus"])  # before any library starts threads
    profiled = {"tunewright": _profile_bundle, "onnxruntime": _profile_onnxruntime}[job["kind"]](job)
    Path(job["result"]).write_text(json.dumps(profiled), encoding="utf-8")


def _profile_bundle(job: Mapping[str, Any]) -> dict[str, Any]:
    """The model runs alternately as users run it, and watched: the clock is read around each function.

    Either runs twice, the second counts: then its own copy of the weights is in the caches. Multiply-adds in
    registers take turns with them, so that kernels are compared with what the machine can do at that time.
    """
    from tunewright.scheduler.bundle import load
    from tunewright.workers.peak_job import BoundPeak, multiply_add_peaks

    folder = Path(job["bundle"])
    manifest = read_manifest(folder)
    arrays = _inputs(manifest.inputs)
    model, watched = load(folder), _Watched(folder, manifest)
    feed = dict(zip(model.inputs, arrays, strict=True))
    multiply_adds = max(multiply_add_peaks(manifest.target), key=BoundPeak.per_sec)
    peaks: list[float] = []
    plain_secs: list[float] = []
    runs: list[Mapping[str, float]] = []
    started = time.monotonic()
    while len(runs) < _NUM_WARM_UP_RUNS + _MIN_RUNS or (
        len(runs) < _MAX_RUNS and time.monotonic() - started < _ENOUGH_SECS
    ):
        model.run_named(feed)
        before = perf_counter()
        model.run_named(feed)
        plain_secs.append(perf_counter() - before)
        watched.run(arrays)
        runs.append(watched.run(arrays))
        peaks.append(multiply_adds.per_sec())
    plain_secs, runs = plain_secs[_NUM_WARM_UP_RUNS:], runs[_NUM_WARM_UP_RUNS:]
    peaks = peaks[_NUM_WARM_UP_RUNS:]
    totals = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    between = [secs - sum(run.values()) for secs, run in zip(plain_secs, runs, strict=True)]
    facts, peak = _facts(job, manifest)
    peak_flop = {
        name: statistics.median(run[name] * rate for run, rate in zip(runs, peaks, strict=True))
        for name in totals
    }
    kernels = [
        {
            "function": entry.function,
            "name": entry.name,
            "num_calls": entry.num_calls,
            "secs": totals.pop(entry.function, 0.0) / entry.num_calls,
            "source": str(entry.source),
            "peak_flop": peak_flop.get(entry.function, 0.0) / entry.num_calls,
            **facts.get(entry.task_key or "", _NO_FACTS),
        }
        for entry in manifest.kernels
    ]
    kernels += [
        {"function": name, "name": name, "num_calls": 1, "secs": secs, "source": "added", **_NO_FACTS}
        for name, secs in totals.items()
    ]
    return {
        "model_secs": statistics.median(plain_secs),
        "between_secs": statistics.median(between),
        "kernels": kernels,
        "peak_flop_per_sec": peak,
    }


class _Watched:
    """A compiled model that says how long each of its functions took."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import tvm
        from tvm import relax

        from tunewright.core.tvm_adapter.graph import MAIN_FUNCTION, PACK_FUNCTION, PREPARE_FUNCTION
        from tunewright.scheduler.manifest import LIBRARY_FILE, PARAMS_FILE

        self._tensor = tvm.runtime.tensor
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(folder / LIBRARY_FILE)), tvm.cpu())
        named = tvm.runtime.load_param_dict_from_file(str(folder / PARAMS_FILE))
        weights = [named[str(index)] for index in range(manifest.num_params)]
        self._weights = list(machine[PACK_FUNCTION](machine[PREPARE_FUNCTION](weights)))
        self._main = machine[MAIN_FUNCTION]
        self._secs: dict[str, float] = defaultdict(float)
        self._entered = 0.0
        machine.set_instrument(self._watch)

    def run(self, arrays: Sequence[Array]) -> dict[str, float]:
        """Seconds of one run by function."""
        self._secs.clear()
        self._main(*map(self._tensor, arrays), *self._weights)
        return dict(self._secs)

    def _watch(self, _function: object, name: str, is_before: bool, *_: object) -> None:
        now = perf_counter()
        if is_before:
            self._entered = perf_counter()
        elif not name.startswith("vm.builtin."):
            self._secs[name.removesuffix(_PREPACKED)] += now - self._entered


def _facts(job: Mapping[str, Any], manifest: Manifest) -> tuple[dict[str, dict[str, Any]], float | None]:
    """Task key -> work, bytes and floor of a call; and the machine's peak in FLOP/s."""
    from tunewright.core.tvm_adapter.target import machine_info
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.partition import partition
    from tunewright.tuning_logs import TuningLog

    with TuningLog.open(job["log"], read_only=True) as log:
        peak = log.peak(manifest.target, machine_fingerprint=machine_info().fingerprint)
    workloads = {
        task.key: task.workload
        for task in partition(import_model(job["model"], target=manifest.target)).tasks
    }
    facts = {
        key: {
            "flop": workload.flop,
            "num_bytes": workload.arg_bytes,
            "floor_secs": peak.floor_secs(workload) if peak else None,
        }
        for key, workload in workloads.items()
    }
    return {str(key): fact for key, fact in facts.items()}, peak.flop_per_sec if peak else None


def _profile_onnxruntime(job: Mapping[str, Any]) -> dict[str, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = len(job["cpus"])
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(job["result"]).parent / "onnxruntime")
    session = ort.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    arrays = _inputs(read_manifest(Path(job["bundle"])).inputs)
    feed = dict(zip((value.name for value in session.get_inputs()), arrays, strict=True))
    started, num_runs = time.monotonic(), 0
    while num_runs < _NUM_WARM_UP_RUNS + _MIN_RUNS or (
        num_runs < _MAX_RUNS and time.monotonic() - started < _ENOUGH_SECS
    ):
        session.run(None, feed)
        num_runs += 1
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {"peer_ops": op_times(events, num_warm_up_runs=_NUM_WARM_UP_RUNS)}


def op_times(events: Sequence[Mapping[str, Any]], *, num_warm_up_runs: int) -> list[dict[str, Any]]:
    """ONNX Runtime's profile by type of operator: the median of each node, added up; as fields of OpTime."""
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            durations[event["args"]["op_name"], event["name"]].append(1e-6 * event["dur"])
    by_op: dict[str, list[float]] = defaultdict(list)
    for (op, _), secs in durations.items():
        by_op[op].append(statistics.median(secs[num_warm_up_runs:] or secs))
    ordered = sorted(by_op.items(), key=lambda item: -sum(item[1]))
    return [{"op": op, "num_nodes": len(secs), "secs": sum(secs)} for op, secs in ordered]


def _inputs(specs: Sequence[tuple[str, TensorSpec]]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [make_input(spec, rng) for _, spec in specs]


def to_kernels(answer: Mapping[str, Any]) -> list[KernelTime]:
    return [KernelTime(**fields) for fields in answer["kernels"]]


def to_ops(answer: Mapping[str, Any]) -> list[OpTime]:
    return [OpTime(**fields) for fields in answer["peer_ops"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
