"""A candidate inside its child: built, held until it is its turn, timed, verified."""

import math
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tunewright.core.tvm_adapter.kernel import (
    BoundKernel,
    BuiltKernel,
    accumulators,
    build_kernel,
    unscheduled,
)
from tunewright.core.tvm_adapter.traces import ReplayError
from tunewright.core.types import EvaluatorConfig, FailureKind
from tunewright.workers.child import JobError, describe, is_memory_error
from tunewright.workers.codec import args_from_dict, evaluator_from_dict, target_from_dict
from tunewright.workers.frames import Message
from tunewright.workers.inputs import InputSet, make_inputs
from tunewright.workers.reference import load_outputs
from tunewright.workers.threads import (
    cpu_ticks,
    pin_threads,
    set_kernel_threads,
    thread_problem,
    wait_until_at_rest,
)
from tunewright.workers.timing import calls_per_sample, measure_samples
from tunewright.workers.verification import compare

_REST_LIMIT_SECS = 0.5
# Arguments up to this size are made while other candidates build, not on the time of those that wait. Not
# with several memory nodes: those near the CPUs that time must hold them.
_MAX_EARLY_BYTES = 32 << 20
# Weights so small that they need more copies are not worth the time to make them.
_MAX_WEIGHT_COPIES = 64
_MEMORY_NODES = Path("/sys/devices/system/node/online")


def time_build(payload: Message, schedule: Callable[[], Any]) -> "HeldKernel":
    """Schedule and build a candidate; all code that is timed is generated when this returns.

    Raises:
        JobError: the trace does not apply, or TVM or LLVM refused the program.
    """
    start = perf_counter()
    try:
        kernel = build_kernel(schedule(), target_from_dict(payload["task"]["target"]))
    except ReplayError as exc:
        raise JobError(FailureKind.REPLAY, str(exc), details={"build_secs": perf_counter() - start}) from exc
    except Exception as exc:
        details = {"build_secs": perf_counter() - start}
        raise JobError(_refusal(exc), describe(exc), details=details) from exc
    return HeldKernel(kernel, payload, perf_counter() - start)


class HeldKernel:
    """A built kernel that waits for commands; `payload` is the job's.

    Whenever it has answered, no thread of this process runs.
    """

    def __init__(self, kernel: BuiltKernel, payload: Message, build_secs: float) -> None:
        self.build_secs = build_secs
        self.object_key = kernel.object_key
        self._kernel = kernel
        self._task = payload["task"]
        self._input_seed = int(payload["input_seed"])
        self._bound: BoundKernel | None = None
        self._places: np.random.Generator | None = None
        self._number = 1
        self._args = args_from_dict(self._task)
        self._weight_copies = _num_copies(kernel.weight_bytes, int(payload["streamed_bytes"]))
        num_bytes = sum(arg.num_bytes for arg in self._args)
        num_bytes += (self._weight_copies - 1) * kernel.weight_bytes
        if num_bytes <= _MAX_EARLY_BYTES and _has_one_memory_node():
            self._bound = self._bind()

    def time(self, command: Message) -> Message:
        """One warm-up, then samples as the evaluator's settings say."""
        evaluator = evaluator_from_dict(command["evaluator"])
        bound = self._warm_up(command)
        before = cpu_ticks(command["cpus"])
        timing = measure_samples(bound.time, evaluator, command["incumbent_secs"])
        after = cpu_ticks(command["cpus"])
        self._bound = None  # it may have to wait for the end of the batch: without its arguments
        wait_until_at_rest(_REST_LIMIT_SECS)
        return {
            "event": "timed",
            "run_secs": timing.run_secs,
            "is_pruned": timing.is_pruned,
            "steal_ratio": (after[0] - before[0]) / max(1, after[1] - before[1]),
        }

    def prepare(self, command: Message) -> Message:
        """Get ready for `sample`; "secs" is what one call took.

        "place_seed": arguments begin anywhere in their pages, each time elsewhere. Some kernels take a fifth
        longer where all begin alike.
        """
        if (seed := command.get("place_seed")) is not None:
            self._places = np.random.default_rng(seed)
            self._bound = None
        evaluator: EvaluatorConfig = evaluator_from_dict(command["evaluator"])
        bound = self._warm_up(command)
        secs = bound.time(1)
        self._number = calls_per_sample(secs, evaluator.min_sample_secs)
        wait_until_at_rest(_REST_LIMIT_SECS)
        return {"event": "prepared", "secs": secs}

    def sample(self) -> Message:
        """One sample, after one call that warms the caches which another candidate has used."""
        assert self._bound is not None, "sample comes after prepare"
        self._bound.run()
        secs = self._bound.time(self._number)
        wait_until_at_rest(_REST_LIMIT_SECS)
        return {"event": "sample", "secs": secs}

    def verify(self, reference_path: str) -> Message:
        """Compare the outputs on every input set with the unscheduled kernel's.

        Raises:
            JobError: they differ, or TVM or LLVM refused what packs the weights.
        """
        self._bound = None
        sums = accumulators(unscheduled(self._task["mod_json"])["main"])
        for input_set, expected in load_outputs(reference_path):
            try:
                bound = self._kernel.bind(make_inputs(self._args, input_set, self._input_seed))
            except RuntimeError as exc:
                raise JobError(_refusal(exc), describe(exc)) from exc
            bound.poison()
            bound.run()
            mismatch = compare(
                bound.outputs(),
                expected,
                input_set=input_set,
                flop=self._task["flop"],
                accumulators=sums,
            )
            if mismatch is not None:
                raise JobError(FailureKind.WRONG_RESULT, str(mismatch))
        wait_until_at_rest(_REST_LIMIT_SECS)
        return {"event": "verified"}

    def _warm_up(self, command: Message) -> BoundKernel:
        num_threads = int(self._task["target"]["num_threads"])
        set_kernel_threads(num_threads, command["cpus"])
        self._bound = self._bound or self._bind()
        self._bound.run()
        problem = thread_problem(num_threads, command["cpus"])
        if problem is not None:
            raise JobError(FailureKind.RUN, problem)
        pin_threads(command["cpus"])
        return self._bound

    def _bind(self) -> BoundKernel:
        """With packed weights of any values: they are not what takes time."""
        arrays = make_inputs(self._kernel.compute_args, InputSet.RANDOM, self._input_seed)
        return self._kernel.bind_compute(arrays, places=self._places, weight_copies=self._weight_copies)


def _num_copies(weight_bytes: int, streamed_bytes: int) -> int:
    """From how many places a kernel reads its weights in turn."""
    if not weight_bytes:
        return 1
    return max(1, min(_MAX_WEIGHT_COPIES, math.ceil(streamed_bytes / weight_bytes)))


def _refusal(exc: Exception) -> FailureKind:
    """What it is when TVM or LLVM do not generate code."""
    return FailureKind.OOM if is_memory_error(exc) else FailureKind.BUILD


def _has_one_memory_node() -> bool:
    try:
        return _MEMORY_NODES.read_text(encoding="ascii").strip() == "0"
    except OSError:  # a kernel without memory nodes
        return True
