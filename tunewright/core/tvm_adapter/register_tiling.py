"""Design space of contractions: a tile of the output held in registers while the reductions run.

TVM's own rule (SSRSRS) leaves it to chance whether the accumulators of its innermost tile stay in registers.
Here the last axis of the output is the vector, all axes lend factors to an unrolled tile of accumulators, and
nothing stands between the reductions and that tile, as in the micro-kernels of BLIS (Van Zee and van de
Geijn, TOMS 2015) and in direct convolutions (Georganas et al., SC 2018):

    for the outer tiles, in parallel                  x0 ... v0
        for the middle tiles                          v1 x1 ...
            accumulators = 0
            for the reductions                        r0 ...
                for a few of their steps, unrolled    ri ...
                    accumulators += ...               xi ... vi (unrolled) lanes (one vector)
            what follows the contraction, on the tile

One structure serves matrix products, convolutions whose channels come last (depthwise ones too), and pooling.
How much is unrolled is limited, as LLVM's time grows faster than the code.
"""

import math
from collections.abc import Sequence

import numpy as np
import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import ExprRV, Instruction, LoopRV, SBlockRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.factors import prime_factors
from tunewright.core.tile_rules import (
    MAX_ACCUMULATORS,
    MAX_UNROLLED_STEPS,
    REDUCTION_LEVELS,
    SPATIAL_LEVELS,
    VECTOR_LEVELS,
    are_reasonable,
    fullest_vector,
)
from tunewright.core.tvm_adapter.contraction import (
    Contraction,
    axis_extent,
    batch_axes,
    find_contraction,
    part_starts,
    spatial_axes,
)
from tunewright.core.tvm_adapter.traces import PEEL, extent_of
from tunewright.core.tvm_adapter.x86_intrinsics import DotIntrinsic

MAX_PAD_LANES = 64
# Shorter vectors of an epilogue are left to LLVM, which masks them.
LEAST_LANES = 4
_MAX_DRAWS = 1000
_NEARLY_FULL = 0.6

Tiles = dict[Instruction, list[int]]


def register_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """Sketches for a workload with one reduction block; none where the structure does not fit.

    Where the input is padded there are two: the padded copy is made at once, or by each outer tile.

    Args:
        vector_lanes: elements of the output that one vector register holds.
    """
    contraction = find_contraction(mod, vector_lanes=vector_lanes)
    if contraction is None:
        return []
    sketches = []
    for pads_early in when_to_pad(contraction):
        schedule = contraction.schedule.copy()
        try:
            if not tile(schedule, contraction, vector_lanes, pads_early=pads_early):
                return []
        except (RuntimeError, ValueError):  # ScheduleError: the epilogue, or the padding, is of another form
            continue
        sketches.append(schedule.trace.simplified(True))
    return sketches


def own_tiles(sketch: Trace) -> Tiles:
    """The tiles that a sketch happens to hold, in the order of its instructions (TVM's map has none)."""
    decisions = sketch.decisions
    return {inst: [int(n) for n in decisions[inst]] for inst in sketch.insts if inst in decisions}


def fills_vectors(sketch: Trace, *, vector_lanes: int) -> bool:
    """Whether the vectors of a sketch are nearly full; those of an instruction always are."""
    extents = [math.prod(tile) for tile in own_tiles(sketch).values() if len(tile) == VECTOR_LEVELS]
    return all(fullest_vector(extent, vector_lanes) >= _NEARLY_FULL * vector_lanes for extent in extents)


def draw_tiles(
    own: Tiles, rng: np.random.Generator, *, vector_lanes: int, num_registers: int, num_results: int = 1
) -> Tiles:
    """Random tiles of the same extents, none of them unreasonable; `own` where none was found.

    Args:
        num_registers, num_results: as `are_reasonable` takes them.
    """
    # Looking at an instruction takes longer than drawing a factor.
    innermost = {inst: int(inst.attrs[1]) for inst in own}
    for _ in range(_MAX_DRAWS):
        drawn = {
            inst: _random_tile(factors, innermost[inst], rng, vector_lanes) for inst, factors in own.items()
        }
        has_few_steps = all(
            len(tile) != REDUCTION_LEVELS or tile[1] <= innermost[inst] for inst, tile in drawn.items()
        )
        if has_few_steps and are_reasonable(
            drawn.values(), vector_lanes=vector_lanes, num_registers=num_registers, num_results=num_results
        ):
            return drawn
    return own


def _random_tile(
    factors: Sequence[int], max_innermost: int, rng: np.random.Generator, vector_lanes: int
) -> list[int]:
    """Every prime factor of the extent at a random level, but for the lanes."""
    rest = math.prod(factors)
    lanes = []
    if len(factors) == VECTOR_LEVELS:
        lanes = [fullest_vector(rest, vector_lanes)]
        rest //= lanes[0]
    num_levels = len(factors) - len(lanes) - (max_innermost == 1)
    tile = [1] * (len(factors) - len(lanes))
    for prime in prime_factors(rest):
        tile[rng.integers(num_levels)] *= prime
    return tile + lanes


def when_to_pad(contraction: Contraction) -> tuple[bool, ...]:
    """When inputs may be padded: what packs weights has to come first of all."""
    if not contraction.paddings:
        return (True,)
    return (False,) if contraction.pads_weights else (True, False)


def tile(
    schedule: Schedule,
    contraction: Contraction,
    vector_lanes: int,
    *,
    pads_early: bool,
    dot: DotIntrinsic | None = None,
) -> bool:
    """Apply the structure; False where the block has no axis for vectors.

    Args:
        dot: the instruction that takes the place of the innermost vector and of a group of steps of the last
            reduction; both axes must divide evenly.
    """
    anchor = schedule.get_sblock(contraction.anchor, func_name="main")
    loops = schedule.get_loops(anchor)
    block = schedule.get(anchor)
    kinds = [int(axis.iter_type) for axis in block.iter_vars]
    if len(loops) != len(kinds):
        return False
    spatial = [
        loop
        for loop, kind in zip(loops, kinds, strict=True)
        if kind == IterVar.DataPar and extent_of(schedule, loop) > 1
    ]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.CommReduce]
    if not spatial or not reduced or len(loops) != len(reduced) + sum(k == IterVar.DataPar for k in kinds):
        return False
    *rows, last = spatial
    groups, last = _split_groups(schedule, rows, last, contraction.columns_per_group)
    outer: list[LoopRV] = []
    middle: list[LoopRV] = []
    inner: list[LoopRV] = []
    for loop, max_rows in zip(rows, _most_rows(block), strict=True):
        x0, x1, xi = schedule.split(loop, _sample_spatial(schedule, loop, max_rows))
        outer, middle, inner = [*outer, x0], [*middle, x1], [*inner, xi]
    element: list[LoopRV] = []
    if dot is None:
        factors = schedule.sample_perfect_tile(last, n=VECTOR_LEVELS, max_innermost_factor=vector_lanes)
        v0, v1, vi, lanes = schedule.split(last, factors)
        width = factors[3]
    else:
        width = dot.lanes
        vectors, lanes = schedule.split(last, [None, width])
        v0, v1, vi = schedule.split(vectors, _sample_spatial(schedule, vectors))
        depth, group = schedule.split(reduced[-1], [None, dot.group])
        reduced[-1], element = depth, [group]
    num_parts = len(part_starts(block)) + 1
    outer_steps, inner_steps = _split_steps(schedule, reduced, MAX_UNROLLED_STEPS // num_parts)
    inner = [*inner, vi]
    middle = [v1, *middle]
    schedule.reorder(*outer, v0, *middle, *outer_steps, *inner_steps, *inner, lanes, *element)
    chunks = schedule.fuse(*groups, *outer, v0)
    schedule.parallel(chunks)
    if contraction.epilogue is not None:
        epilogue = schedule.get_sblock(contraction.epilogue, func_name="main")
        schedule.reverse_compute_at(epilogue, middle[-1], preserve_unit_loops=True)
        *own, last_own = schedule.get_loops(epilogue)[-len(spatial) :]
        # No vector may straddle the end of an axis that was padded: TVM would take it apart.
        whole = math.gcd(contraction.vector_extent, vector_lanes) if contraction.pads_vectors else None
        if whole is None or whole >= LEAST_LANES:
            rest, vector = schedule.split(last_own, [None, whole or width])
            unroll_and_vectorize(schedule, [*own, rest], vector)
    for name in contraction.paddings:
        _pad(schedule, schedule.get_sblock(name, func_name="main"), None if pads_early else chunks)
    unroll_and_vectorize(schedule, [*inner_steps, *inner], lanes if dot is None else None)
    if num_parts > 1:
        schedule.annotate(outer_steps[-1], PEEL, 1)
    start = schedule.decompose_reduction(anchor, outer_steps[0])
    *own, vector = schedule.get_loops(start)[-len(inner) - 1 :]
    unroll_and_vectorize(schedule, own, vector)
    if dot is not None:
        schedule.tensorize(lanes, dot.name)
    return True


def _split_steps(
    schedule: Schedule, reduced: Sequence[LoopRV], most_unrolled: int
) -> tuple[list[LoopRV], list[LoopRV]]:
    """The loops around the unrolled steps of each reduction, and those steps."""
    pairs = [
        schedule.split(
            loop, schedule.sample_perfect_tile(loop, n=REDUCTION_LEVELS, max_innermost_factor=most_unrolled)
        )
        for loop in reduced
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _split_groups(
    schedule: Schedule, rows: Sequence[LoopRV], last: LoopRV, columns_per_group: int | None
) -> tuple[list[LoopRV], LoopRV]:
    """The loop over the groups of a grouped convolution, outside of all, and that over a group's columns."""
    if columns_per_group is None:
        return [], last
    groups, columns = schedule.split(last, [None, columns_per_group])
    schedule.reorder(groups, *rows, columns)
    return [groups], columns


def _pad(schedule: Schedule, padding: SBlockRV, chunks: LoopRV | None) -> None:
    """Copy the padded input in parallel, or inside the outer tile that reads it; channels as vectors."""
    if chunks is not None:
        schedule.compute_at(padding, chunks, preserve_unit_loops=True)
        *_, last = schedule.get_loops(padding)
    else:
        *rows, last = schedule.get_loops(padding)
        schedule.parallel(schedule.fuse(*rows[:-1]) if len(rows) > 2 else rows[0])
    extent = extent_of(schedule, last)
    lanes = fullest_vector(extent, MAX_PAD_LANES)
    if lanes > 1:
        _, vector = schedule.split(last, [None, lanes])
        schedule.vectorize(vector)


def _most_rows(block: SBlock) -> list[int]:
    """How many of each axis but the last a tile of accumulators may hold; 1 of those that bring nothing.

    A batch of products shares no operand. Images share the weights, but so do their pixels, which lie side by
    side.
    """
    others = spatial_axes(block)[:-1]
    batch = batch_axes(block)
    rows = [axis for axis in others if not any(axis.same_as(one) for one in batch)]
    if len(rows) > 2 and axis_extent(rows[-2]) * axis_extent(rows[-1]) >= MAX_ACCUMULATORS:
        rows = rows[-2:]
    return [MAX_ACCUMULATORS if any(axis.same_as(row) for row in rows) else 1 for axis in others]


def _sample_spatial(schedule: Schedule, loop: LoopRV, max_rows: int = MAX_ACCUMULATORS) -> list[ExprRV]:
    factors: list[ExprRV] = schedule.sample_perfect_tile(
        loop, n=SPATIAL_LEVELS, max_innermost_factor=max_rows
    )
    return factors


def unroll_and_vectorize(schedule: Schedule, loops: Sequence[LoopRV], vector: LoopRV | None) -> None:
    """Make code of the loops, and a vector of the innermost one where there is one."""
    for loop in loops:
        schedule.unroll(loop)
    if vector is not None:
        schedule.vectorize(vector)
