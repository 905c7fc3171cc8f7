"""What our settings of TVM and LLVM save of a kernel's build, and whether its time changes.

    python benchmarks/builds.py [--tasks matmul-512,...] [--candidates 4] [--rounds 21]

Builds default schedules and random candidates of each task twice: as `tvm.tirx.build` does by itself, kernel
and packing of the weights in one module, and as `core.tvm_adapter.codegen` does. Prints CPU time of the build
and time of a call, ours / TVM's, the calls in turns; on one thread.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from side_by_side.tasks import available_tasks, make_task

from tunewright.core.tvm_adapter.codegen import codegen_target
from tunewright.core.tvm_adapter.kernel import BuiltKernel, build_kernel, replay, split_prepack
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.tvm_adapter.x86_intrinsics import register_intrinsics
from tunewright.core.types import Candidate, TargetSpec, TuningTask
from tunewright.scheduler.kernel_choice import default_candidate
from tunewright.workers.inputs import InputSet, make_inputs
from tunewright.workers.timing import calls_per_sample

_SAMPLE_SECS = 0.005
_INPUT_SEED = 0


def main() -> int:
    args = _parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"
    register_intrinsics()
    target = host_target(num_threads=1)
    ratios: list[tuple[float, float]] = []
    print("| task | build, by candidate | call, by candidate |\n|---|---|---|")
    for name in args.tasks:
        task = make_task(name, target)
        found = [_compared(task, one, args.rounds) for one in _candidates(task, args.candidates)]
        ratios += found
        builds, calls = (" ".join(f"{pair[side]:.2f}" for pair in found) for side in (0, 1))
        print(f"| {name} | {builds} | {calls} |", flush=True)
    builds, calls = (f"{statistics.geometric_mean(pair[side] for pair in ratios):.3f}" for side in (0, 1))
    print(f"| geometric mean | {builds} | {calls} |")
    return 0


def _candidates(task: TuningTask, num_candidates: int) -> list[Candidate]:
    """The default schedule, then random ones."""
    space = TaskSpace(task.workload.mod_json, task.target, task.key)
    drawn = [space.sample(seed) for seed in range(4 * num_candidates)]
    random = [applied.candidate for applied in drawn if applied is not None]
    return [default_candidate(task), *random][:num_candidates]


def _compared(task: TuningTask, candidate: Candidate, rounds: int) -> tuple[float, float]:
    """Ratios ours / TVM's: CPU seconds of the build, seconds of a call."""
    scheduled = replay(task.workload.mod_json, candidate.trace_json)
    theirs, their_secs = _clocked(lambda: _built_plainly(scheduled, task.target))
    ours, our_secs = _clocked(lambda: build_kernel(scheduled, task.target))
    arrays = make_inputs(task.workload.args, InputSet.RANDOM, _INPUT_SEED)
    sides = [kernel.bind(arrays) for kernel in (ours, theirs)]
    for side in sides:
        side.run()
    number = calls_per_sample(sides[0].time(1), _SAMPLE_SECS)
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(rounds):
        secs = [0.0, 0.0]
        for index in rng.permutation(2):
            sides[index].run()
            secs[index] = sides[index].time(number)
        ratios.append(secs[0] / secs[1])
    return our_secs / their_secs, statistics.median(ratios)


def _built_plainly(scheduled: tvm.IRModule, target: TargetSpec) -> BuiltKernel:
    """As `tvm.tirx.build` does; the packing that is bound is ours on both sides."""
    split = split_prepack(scheduled)
    functions = {"kernel": split.compute.with_attr("global_symbol", "kernel")}
    if split.prepack is not None:
        functions["prepack"] = split.prepack.with_attr("global_symbol", "prepack")
    library = tvm.tirx.build(tvm.IRModule(functions), target=codegen_target(target))
    return BuiltKernel(split, library, target)


def _clocked(build: Callable[[], BuiltKernel]) -> tuple[BuiltKernel, float]:
    start = time.process_time()
    built = build()
    return built, time.process_time() - start


def _parse_args() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=available_tasks())
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=21)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
