"""One round of the neutral harness: a job on standard input, times per call on standard output."""

import json
import random
import sys
from pathlib import Path

from side_by_side.tasks import load_task
from tunewright.core.tvm_adapter.kernel import BuiltKernel, build_kernel, replay, unscheduled
from tunewright.core.types import TuningTask
from tunewright.workers import WorkerConfig
from tunewright.workers.inputs import Array, InputSet, make_inputs
from tunewright.workers.threads import set_kernel_threads
from tunewright.workers.timing import calls_per_sample
from tunewright.workers.verification import compare

_NUM_PASSES = 7
_SAMPLE_SECS = 0.02
_INPUT_SEED = 0


def main() -> None:
    job = json.load(sys.stdin)
    task = load_task(Path(job["task_file"]))
    set_kernel_threads(task.target.num_threads, WorkerConfig.for_threads(task.target.num_threads).timing_cpus)
    mod_json = task.workload.mod_json
    kernels = {
        tuner: build_kernel(replay(mod_json, trace), task.target) for tuner, trace in job["traces"].items()
    }
    wrong = _wrong_kernels(task, kernels) if job["round"] == 0 else {}
    print(json.dumps({"secs": _time(task, kernels, job["round"]), "wrong": wrong}))


def _time(task: TuningTask, kernels: dict[str, BuiltKernel], seed: int) -> dict[str, list[float]]:
    arrays = make_inputs(task.workload.args, InputSet.RANDOM, _INPUT_SEED)
    bound = {tuner: kernel.bind(arrays) for tuner, kernel in kernels.items()}
    numbers = {}
    for tuner, kernel in bound.items():
        kernel.run()
        numbers[tuner] = calls_per_sample(kernel.time(1), _SAMPLE_SECS)
    samples: dict[str, list[float]] = {tuner: [] for tuner in kernels}
    rng = random.Random(seed)
    for _ in range(_NUM_PASSES):
        for tuner in rng.sample(sorted(bound), len(bound)):
            bound[tuner].run()  # its data back into the caches
            samples[tuner].append(bound[tuner].time(numbers[tuner]))
    return samples


def _wrong_kernels(task: TuningTask, kernels: dict[str, BuiltKernel]) -> dict[str, str]:
    reference = build_kernel(unscheduled(task.workload.mod_json), task.target)
    wrong: dict[str, str] = {}
    for input_set in InputSet:
        arrays = make_inputs(task.workload.args, input_set, _INPUT_SEED)
        expected = _outputs(reference, arrays)
        for tuner, kernel in kernels.items():
            outputs = _outputs(kernel, arrays)
            mismatch = compare(outputs, expected, input_set=input_set, flop=task.workload.flop)
            if mismatch is not None:
                wrong[tuner] = str(mismatch)
    return wrong


def _outputs(kernel: BuiltKernel, arrays: list[Array]) -> list[Array]:
    bound = kernel.bind(arrays)
    bound.poison()
    bound.run()
    return bound.outputs()


if __name__ == "__main__":
    main()
