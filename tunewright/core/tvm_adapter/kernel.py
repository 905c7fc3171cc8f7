"""One kernel: schedule it, split off its weight packing, build it, bind arguments, run it.

Only child processes may build and run candidates: both are native code that can crash or hang.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.s_tir.schedule import SBlockRV, Schedule
from tvm.tirx import IterVar, PrimFunc
from tvm_ffi import structural_hash

from tunewright.core.keys import digest
from tunewright.core.tvm_adapter.canonical import load_module, tensor_args
from tunewright.core.tvm_adapter.codegen import generate_code
from tunewright.core.tvm_adapter.contraction import reads_along
from tunewright.core.tvm_adapter.traces import (
    PEEL,
    ReplayError,
    block_named,
    block_names,
    new_schedule,
    replay_trace,
)
from tunewright.core.types import TargetSpec, TensorSpec

# TVM names alias-analysis nodes in the IR by the addresses that its own objects happen to have.
_ADDRESS = re.compile(r'"0x[0-9a-f]+')  # a suffix says which part of the object

_MAX_PYTHON_CALLS = 100
_PAGE_BYTES, _CACHE_LINE_BYTES = 4096, 64


def replay(mod_json: str, trace_json: str) -> tvm.IRModule:
    """The scheduled module of a candidate, with its weight-packing blocks still inside.

    Raises:
        ReplayError: the trace does not apply to the workload.
    """
    scheduled = replay_trace(load_module(mod_json), trace_json).mod
    return tvm.tirx.transform.ForceNarrowIndexToInt32()(scheduled) if PEEL in trace_json else scheduled


def unscheduled(mod_json: str) -> tvm.IRModule:
    """The workload as it came from the model: scalar and single-threaded."""
    return load_module(mod_json)


def reference_program(mod_json: str) -> tvm.IRModule:
    """What outputs are compared with: the unscheduled program, but for the order of its loops.

    Where neighbouring outputs are made of neighbouring inputs, they are the innermost loop, so that LLVM
    makes vectors of them: 15 to 90 times as fast on convolutions and products. Every sum adds the same
    numbers in the same order, so the outputs are those of the unscheduled program, bit for bit but where LLVM
    makes one instruction of a product and a sum in only one of them.
    """
    schedule = new_schedule(load_module(mod_json), seed=1)
    for name in block_names(schedule):
        attempt = schedule.copy()
        try:
            _sum_side_by_side(attempt, block_named(attempt, name))
        except RuntimeError:  # ScheduleError: of a form that has no such order
            continue
        schedule = attempt
    return schedule.mod


def _sum_side_by_side(schedule: Schedule, reduction: SBlockRV) -> None:
    block, loops = schedule.get(reduction), schedule.get_loops(reduction)
    kinds = [int(axis.iter_type) for axis in block.iter_vars]
    num_outer = kinds.count(IterVar.DataPar) - 1
    is_plain = len(kinds) == len(loops) and kinds == sorted(kinds)
    if not is_plain or num_outer < 0 or IterVar.CommReduce not in kinds:
        return
    if not reads_along(block, block.iter_vars[num_outer]):
        return
    outputs, steps = loops[num_outer], loops[num_outer + 1 :]
    schedule.reorder(*steps, outputs)
    schedule.decompose_reduction(reduction, steps[0])


def output_indices(func: PrimFunc) -> tuple[int, ...]:
    """Positions of the parameters that the function writes."""
    schedule = new_schedule(tvm.IRModule({"main": func}), seed=1)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root", func_name="main"))
    written = [region.source for block in blocks for region in schedule.get(block).writes]
    return tuple(i for i, param in enumerate(func.params) if any(param.same_as(buffer) for buffer in written))


def accumulators(func: PrimFunc) -> frozenset[str]:
    """The types in which an unscheduled function reduces."""
    schedule = new_schedule(tvm.IRModule({"main": func}), seed=1)
    blocks = map(schedule.get, schedule.get_child_blocks(schedule.get_sblock("root", func_name="main")))
    return frozenset(
        str(region.source.ty.dtype)
        for block in blocks
        if any(int(axis.iter_type) == IterVar.CommReduce for axis in block.iter_vars)
        for region in block.writes
    )


@dataclass(frozen=True, slots=True)
class SplitKernel:
    """A scheduled function and the packing of its weights, as compiled models hold them.

    `packed_inputs`: positions of the arguments that `prepack` takes; its results replace them, in order.
    `weights`: positions of the arguments that are weights, packed or not.
    """

    compute: PrimFunc
    prepack: PrimFunc | None
    packed_inputs: tuple[int, ...]
    weights: tuple[int, ...]


def split_prepack(scheduled: tvm.IRModule) -> SplitKernel:
    """Move weight-layout rewriting out of a scheduled function, as it is moved out of a whole model."""
    func = scheduled["main"]
    weights = tuple(int(i) for i in (func.attrs or {}).get("layout_free_buffers", []))
    specs = tensor_args(func)
    num_outputs = len(output_indices(func))
    variables = [relax.Var(f"p{i}", relax.TensorType(s.shape, s.dtype)) for i, s in enumerate(specs)]
    inputs, outputs = variables[: len(specs) - num_outputs], variables[len(specs) - num_outputs :]
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        callee = builder.add_func(func, "kernel")
        types = [output.ty for output in outputs]
        call = relax.call_tir(callee, inputs, out_ty=types if len(types) > 1 else types[0])
        builder.emit_func_output(builder.emit(call))
    mod = relax.transform.SplitLayoutRewritePreproc()(builder.get())
    names = {gv.name_hint: gv for gv in mod.functions}
    if "kernel_prepacked" not in names:
        return SplitKernel(func, None, (), weights)
    calls = [b.value for block in mod["main"].body.blocks for b in block.bindings if _is_call_tir(b.value)]
    prepack_args = list(calls[0].args[1])
    positions = tuple(
        next(i for i, variable in enumerate(inputs) if variable.same_as(arg)) for arg in prepack_args
    )
    return SplitKernel(mod["kernel_prepacked"], mod["kernel_weight_prepack"], positions, weights)


def _is_call_tir(value: Any) -> bool:
    return isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.call_tir")


class BuiltKernel:
    """Machine code of one kernel, complete but for the packing of its weights, which timing does not need."""

    def __init__(self, split: SplitKernel, library: Any, target: TargetSpec) -> None:
        self._split = split
        self._library = library
        self._target = target
        self._compute: Callable[..., None] = library["kernel"]
        packing = "" if split.prepack is None else str(structural_hash(split.prepack))
        #: Equal for two candidates that LLVM compiled to the same code.
        self.object_key = digest(_ADDRESS.sub("", library.inspect_source("ll")), packing)[:16]

    @property
    def compute_args(self) -> tuple[TensorSpec, ...]:
        """What the kernel itself takes: of the workload's arguments, weights as they are packed."""
        return tensor_args(self._split.compute)

    def bind(
        self, arrays: Sequence[np.ndarray[Any, Any]], *, places: np.random.Generator | None = None
    ) -> "BoundKernel":
        """Take the workload's own arguments, outputs included, and pack the weights once.

        Args:
            arrays: one array per `Workload.args`, of that shape and dtype.
            places: where in its first page each argument shall begin; None: where the allocator puts it,
                which for large ones is always the same place.

        Raises:
            RuntimeError: TVM or LLVM refused the packing.
        """
        tensors = [_tensor(np.asarray(array, order="C"), places) for array in arrays]
        if self._split.prepack is not None:
            specs = tensor_args(self._split.prepack)[len(self._split.packed_inputs) :]
            packed = [_empty(spec.shape, spec.dtype, places) for spec in specs]
            self._prepack(*(tensors[i] for i in self._split.packed_inputs), *packed)
            for position, tensor in zip(self._split.packed_inputs, packed, strict=True):
                tensors[position] = tensor
        return self._bound(tensors)

    def bind_compute(
        self,
        arrays: Sequence[np.ndarray[Any, Any]],
        *,
        places: np.random.Generator | None = None,
        weight_copies: int = 1,
    ) -> "BoundKernel":
        """Take one array per `compute_args`: enough to time the kernel, without building what packs.

        Args:
            weight_copies: the calls read the weights from so many places in turn (at least 1).
        """
        tensors = [_tensor(np.asarray(array, order="C"), places) for array in arrays]
        copies = [
            [
                _tensor(np.asarray(array, order="C"), places) if i in self._split.weights else tensors[i]
                for i, array in enumerate(arrays)
            ]
            for _ in range(1, weight_copies)
        ]
        return self._bound(tensors, *copies)

    @property
    def weight_bytes(self) -> int:
        """Size of all weights that one call reads."""
        args = self.compute_args
        return sum(args[i].num_bytes for i in self._split.weights)

    def _bound(self, *tensors: list[Any]) -> "BoundKernel":
        return BoundKernel(self._library, self._compute, tensors, output_indices(self._split.compute))

    @cached_property
    def _prepack(self) -> Callable[..., None]:
        # Built with the kernel and optimised, it would take a third of a convolution's build.
        assert self._split.prepack is not None
        library = generate_code({"prepack": self._split.prepack}, self._target, is_run_once=True)
        prepack: Callable[..., None] = library["prepack"]
        return prepack


def _tensor(array: np.ndarray[Any, Any], places: np.random.Generator | None) -> Any:
    """A copy of an array."""
    placed = _empty(array.shape, str(array.dtype), places)
    placed.copyfrom(array)
    return placed


def _empty(shape: Sequence[int], dtype: str, places: np.random.Generator | None) -> Any:
    if places is None or dtype not in np.sctypeDict:  # bfloat16: numpy cannot pass it on
        return tvm.runtime.empty(tuple(shape), dtype)
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + 2 * _PAGE_BYTES, np.uint8)
    line = int(places.integers(_PAGE_BYTES // _CACHE_LINE_BYTES))
    start = -memory.ctypes.data % _PAGE_BYTES + line * _CACHE_LINE_BYTES
    return tvm.runtime.from_dlpack(memory[start : start + num_bytes].view(dtype).reshape(shape))


class BoundKernel:
    """A built kernel with its arguments in place, ready to be called and timed.

    Of several lists of arguments each call takes the next; the outputs are those of all.
    """

    def __init__(
        self,
        library: Any,
        function: Callable[..., None],
        tensors: Sequence[list[Any]],
        output_positions: tuple[int, ...],
    ) -> None:
        self._library = library
        self._function = function
        self._tensors = tensors[0]
        self._num_places = len(tensors)
        self._turns = itertools.cycle(tensors)
        self._output_positions = output_positions

    def run(self) -> None:
        """Call the kernel once."""
        self._function(*next(self._turns))

    def time(self, number: int) -> float:
        """Mean seconds per call over `number` calls (at least 1), with no call before them."""
        # TVM's evaluator makes a call of its own first, dear for few calls; ours costs 0.5 us per call.
        if number <= _MAX_PYTHON_CALLS or self._num_places > 1:
            start = perf_counter()
            for tensors in itertools.islice(self._turns, number):
                self._function(*tensors)
            return (perf_counter() - start) / number
        evaluator = self._library.time_evaluator("kernel", tvm.cpu(), number=number, repeat=1)
        return float(evaluator(*self._tensors).results[0])

    def poison(self) -> None:
        """Fill the outputs with NaN, or 0xAA bytes in integers, so that a stale result cannot pass."""
        for position in self._output_positions:
            tensor = self._tensors[position]
            dtype = np.dtype(tensor.dtype)
            if np.issubdtype(dtype, np.floating):
                poison = np.full(tensor.shape, np.nan, dtype=dtype)
            else:
                size = int(np.prod(tensor.shape)) * dtype.itemsize
                poison = np.frombuffer(b"\xaa" * size, dtype=dtype).reshape(tensor.shape)
            tensor.copyfrom(poison)

    def outputs(self) -> list[np.ndarray[Any, Any]]:
        """Copies of the outputs, in the order of the parameters."""
        return [self._tensors[position].numpy() for position in self._output_positions]


def build_kernel(scheduled: tvm.IRModule, target: TargetSpec) -> BuiltKernel:
    """Compile a scheduled module; only what packs its weights is compiled later, by the first `bind`.

    Raises:
        RuntimeError: TVM or LLVM refused the program.
    """
    split = split_prepack(scheduled)
    return BuiltKernel(split, generate_code({"kernel": split.compute}, target), target)


__all__ = [
    "BoundKernel",
    "BuiltKernel",
    "ReplayError",
    "SplitKernel",
    "accumulators",
    "build_kernel",
    "output_indices",
    "replay",
    "split_prepack",
    "unscheduled",
]
