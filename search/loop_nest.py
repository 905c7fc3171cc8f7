"""What a sketch's tiles become: one nest of loops, of which some run in parallel, as vectors, or unrolled.

Read from the trace alone, no TVM. TVM's rule splits every spatial loop (S) in four and every reduction (R) in
two, and orders the levels SSRSRS: all outermost spatial factors, all second ones, all outer reductions, and
so on. The innermost spatial levels are the tile that should stay in registers; in our own rules
(`register_tiling`, `dot_tiling`) they surely do, as they are unrolled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.core.tile_model import relative_speed
from tunewright.core.tile_rules import REDUCTION_LEVELS
from tunewright.core.types import FloatArray

# Registers of what the accumulators are multiplied with.
_OTHER_REGISTERS = 4
# Fewer do not hide the latency of a multiply-add.
_MIN_ACCUMULATORS = 8
# TVM's code for "inlined into its consumer": each element is computed again for each use.
INLINED = -2

_UNLIMITED = 1 << 30

_Logs = npt.NDArray[np.float64]

# log2 of how much slower a program gets by each unit of log2 of waste: least squares over the logged trials
# of 58 tasks (convolutions, products), rounded. On a task left out, the sum ranks with a Spearman of 0.49.
_WASTED_LANES = 0.6
_IDLE_THREADS = 0.25
_SPILLED = 0.4
_TOO_FEW_ACCUMULATORS = 0.2
_NOT_UNROLLED = 0.13
_RECOMPUTED = 1.3


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a look at a schedule without running it needs of the machine."""

    num_threads: int = 1
    vector_lanes: int = 16  # of 32 bits
    vector_registers: int = 32


@dataclass(frozen=True, slots=True)
class LoopNest:
    """The loops of a sketch's tiled block, outermost first.

    `columns`: where the factor of each loop stands in the flattened decisions. At most the first
    `num_parallel` of them run in parallel, fewer where a product exceeds `max_jobs`. The last `num_inner` are
    spatial. `unroll`: column of the choice among `unroll_steps`, None where there is none. `locations`:
    columns of the blocks that may be computed elsewhere. `is_unrolled`: the inner loops surely are.
    `lanes`: extent of the innermost loop of all, where that is an instruction's and no decision.
    `num_results`: accumulators for each element of the tile. `tiles`: columns of each tile.
    """

    columns: tuple[int, ...]
    num_parallel: int
    num_inner: int
    max_jobs: int
    unroll: int | None
    unroll_steps: tuple[int, ...]
    locations: tuple[int, ...]
    is_unrolled: bool = False
    lanes: int | None = None
    num_results: int = 1
    tiles: tuple[slice, ...] = ()

    def has_same_loops(self, other: "LoopNest") -> bool:
        """Whether a tiling of one means the same in the other; their other decisions may differ."""
        return (self.columns, self.num_parallel, self.num_inner, self.lanes) == (
            other.columns,
            other.num_parallel,
            other.num_inner,
            other.lanes,
        )


def read_nest(instructions: Sequence[Sequence[Any]], columns: Mapping[int, slice]) -> LoopNest | None:
    """The nest of a sketch; None where no block is tiled.

    Args:
        instructions: of the trace, without its postprocessing.
        columns: of each instruction that samples, the slice of its decision in the flattened decisions.
    """
    factors: dict[str, tuple[int, bool]] = {}  # variable -> column, is of a reduction
    loops: dict[str, tuple[int, bool]] = {}
    fixed: dict[str, int] = {}  # loop -> extent
    tiles: list[slice] = []
    order: list[str] = []
    lanes, num_results = None, 1
    num_parallel = math.inf
    fused: dict[str, int] = {}
    is_unrolled = False
    max_jobs, unroll, unroll_steps = 1, None, (0,)
    locations: list[int] = []
    for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
        if kind == "SamplePerfectTile":
            is_reduction = attributes[0] == REDUCTION_LEVELS
            start = columns[index].start
            tiles.append(columns[index])
            factors |= {name: (start + level, is_reduction) for level, name in enumerate(outputs)}
        elif kind == "Split" and all(name in factors for name in inputs[1:]):
            loops |= {loop: factors[name] for loop, name in zip(outputs, inputs[1:], strict=True)}
        elif kind == "Split" and inputs[1] == 1 and isinstance(inputs[-1], int):
            num_results = inputs[-1]  # of our own rule: an axis that stays in the tile as a whole
        elif kind == "Split" and isinstance(inputs[-1], int):
            fixed[outputs[-1]] = inputs[-1]
        elif kind == "Reorder" and not order and all(loop in loops or loop in fixed for loop in inputs):
            order = [loop for loop in inputs if loop in loops]
            lanes = next((fixed[loop] for loop in inputs if loop in fixed), None)
        elif kind == "Fuse":
            fused[outputs[0]] = sum(loop in loops for loop in inputs)
        elif kind == "Parallel" and not is_unrolled and order:
            # Our own rule says what runs in parallel; TVM's leaves it to postprocessing.
            num_parallel, max_jobs, is_unrolled = fused.get(inputs[0], 1), _UNLIMITED, True
        elif kind == "ReverseComputeAt" and inputs[1] in order and not is_unrolled:
            num_parallel = min(num_parallel, order.index(inputs[1]) + 1)
        elif kind == "Annotate" and attributes == ["meta_schedule.parallel"]:
            max_jobs = inputs[1]
        elif kind == "SampleCategorical":
            unroll, unroll_steps = columns[index].start, tuple(attributes[0])
        elif kind == "SampleComputeLocation":
            locations.append(columns[index].start)
    if not order:
        return None
    reductions = [position for position, loop in enumerate(order) if loops[loop][1]]
    first, last = (reductions[0], reductions[-1]) if reductions else (len(order), -1)
    return LoopNest(
        columns=tuple(loops[loop][0] for loop in order),
        num_parallel=int(min(num_parallel, first)),
        num_inner=len(order) - 1 - last,
        max_jobs=max_jobs,
        unroll=unroll,
        unroll_steps=unroll_steps,
        locations=tuple(locations),
        is_unrolled=is_unrolled,
        lanes=lanes,
        num_results=num_results,
        tiles=tuple(tiles),
    )


def guess(nest: LoopNest, flat: FloatArray, hardware: Hardware) -> npt.NDArray[np.float64]:
    """What can be said of points without any trial: log2 of their speed up to a constant, higher is better.

    Footprints against the caches were tried too and rank nothing on logged trials.

    Args:
        flat: (n, n_flat), the flattened decisions: factors and numbers as they are.
    """
    if nest.is_unrolled:
        tiles = [flat[:, columns].astype(np.float64) for columns in nest.tiles]
        return relative_speed(
            tiles,
            num_threads=hardware.num_threads,
            num_registers=hardware.vector_registers,
            lanes=nest.lanes,
            num_results=nest.num_results,
        )
    loops = np.log2(flat[:, nest.columns], dtype=np.float64)
    registers = _vectors(loops[:, -1], hardware) + loops[:, len(nest.columns) - nest.num_inner : -1].sum(
        axis=1
    )
    inlined = (flat[:, nest.locations] == INLINED).any(axis=1)
    waste: _Logs = (
        _WASTED_LANES * _wasted_lanes(loops[:, -1], hardware)
        + _IDLE_THREADS * _idle_threads(nest, loops, hardware)
        + _SPILLED * np.maximum(0.0, registers - math.log2(hardware.vector_registers - _OTHER_REGISTERS))
        + _TOO_FEW_ACCUMULATORS * np.maximum(0.0, math.log2(_MIN_ACCUMULATORS) - registers)
        + _NOT_UNROLLED * _not_unrolled(nest, loops, flat)
        + _RECOMPUTED * inlined
    )
    return -waste


def _vectors(innermost: _Logs, hardware: Hardware) -> _Logs:
    """log2 of the number of vectors that the innermost loop fills."""
    return np.asarray(np.log2(np.ceil(np.exp2(innermost) / hardware.vector_lanes - 1e-6)), dtype=np.float64)


def _wasted_lanes(innermost: _Logs, hardware: Hardware) -> _Logs:
    filled = _vectors(innermost, hardware) + math.log2(hardware.vector_lanes)
    return np.asarray(filled - innermost, dtype=np.float64)


def _idle_threads(nest: LoopNest, loops: _Logs, hardware: Hardware) -> _Logs:
    """log2 of thread-seconds over those at work: TVM fuses outer loops until there are enough jobs."""
    if nest.num_parallel == 0:
        return np.full(len(loops), math.log2(hardware.num_threads))
    products = np.cumsum(loops[:, : nest.num_parallel], axis=1)
    is_enough = products > math.log2(nest.max_jobs) + 1e-6
    is_enough[:, -1] = True
    num_jobs = np.round(np.exp2(products[np.arange(len(loops)), is_enough.argmax(axis=1)]))
    rounds = np.ceil(num_jobs / hardware.num_threads)
    return np.asarray(np.log2(rounds * hardware.num_threads / num_jobs), dtype=np.float64)


def _not_unrolled(nest: LoopNest, loops: _Logs, flat: FloatArray) -> _Logs:
    """log2 of the part of the register tile that stays a loop, so that its accumulators go through memory."""
    tile: _Logs = loops[:, len(nest.columns) - nest.num_inner : -1].sum(axis=1)
    if nest.unroll is None:
        return tile
    steps = np.log2(np.maximum(nest.unroll_steps, 1))[flat[:, nest.unroll].astype(np.int64)]
    bodies = np.cumsum(loops[:, -2::-1], axis=1)
    unrolled = np.where(bodies <= steps[:, np.newaxis] + 1e-6, bodies, 0.0).max(axis=1, initial=0.0)
    return np.asarray(np.maximum(0.0, tile - unrolled), dtype=np.float64)
