"""Design space of a contraction of whose results each element that follows needs several.

A unit of an LSTM needs all of its four gates. So what follows the contraction is tiled, and the contraction
is computed where it is read: the gates of a tile of units stay in registers.

    for the outer tiles of units, in parallel         b0 v0
        for the middle tiles                          v1 b1
            accumulators = 0                          as many for each unit as it has gates
            for the reduction                         r0
                for a few of its steps, unrolled      ri
                    accumulators += ...               bi gates vi (unrolled) lanes (one vector)
            the states of these units
"""

import tvm
from tvm.s_tir.schedule import LoopRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.tile_rules import (
    MAX_ACCUMULATORS,
    MAX_UNROLLED_STEPS,
    REDUCTION_LEVELS,
    SPATIAL_LEVELS,
    VECTOR_LEVELS,
    fullest_vector,
)
from tunewright.core.tvm_adapter.contraction import Contraction, find_contraction, spatial_axes
from tunewright.core.tvm_adapter.register_tiling import LEAST_LANES, unroll_and_vectorize
from tunewright.core.tvm_adapter.traces import extent_of


def gated_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch where what follows the contraction reads whole axes of its result; else none."""
    contraction = find_contraction(mod, vector_lanes=vector_lanes)
    if contraction is None or contraction.epilogue is None or contraction.paddings:
        return []
    schedule = contraction.schedule.copy()
    try:
        return [schedule.trace.simplified(True)] if _tile(schedule, contraction, vector_lanes) else []
    except RuntimeError:  # ScheduleError: of another form
        return []


def results_per_element(sketch: Trace) -> int:
    """How many accumulators a sketch needs for each element of its tile: 1 but for those of this module."""
    for instruction in sketch.insts:
        if instruction.kind.name == "Split" and [str(size) for size in instruction.inputs[1:2]] == ["1"]:
            return int(instruction.inputs[-1])
    return 1


def _tile(schedule: Schedule, contraction: Contraction, vector_lanes: int) -> bool:
    assert contraction.epilogue is not None
    anchor = schedule.get_sblock(contraction.anchor, func_name="main")
    final = schedule.get_sblock(contraction.epilogue, func_name="main")
    gates = _gate_axis(schedule, contraction)
    axes = spatial_axes(schedule.get(final))
    loops = [loop for loop in schedule.get_loops(final) if extent_of(schedule, loop) > 1]
    if gates is None or len(loops) != len(axes) or not loops:
        return False
    *others, units = loops
    if fullest_vector(extent_of(schedule, units), vector_lanes) < LEAST_LANES:
        return False
    # The first axis tells the states apart: all of them are written where the gates are.
    states, rows = others[:1], others[1:]
    split = [
        schedule.split(
            row, schedule.sample_perfect_tile(row, n=SPATIAL_LEVELS, max_innermost_factor=MAX_ACCUMULATORS)
        )
        for row in rows
    ]
    factors = schedule.sample_perfect_tile(units, n=VECTOR_LEVELS, max_innermost_factor=vector_lanes)
    v0, v1, vi, lanes = schedule.split(units, factors)
    outer, middle, inner = ([levels[number] for levels in split] for number in range(SPATIAL_LEVELS))
    around = [*outer, v0, v1, *middle]
    schedule.reorder(*around, *inner, vi, lanes)
    schedule.reorder(*around, *states)
    schedule.parallel(schedule.fuse(*outer, v0))
    schedule.compute_at(anchor, around[-1], preserve_unit_loops=True)
    unroll_and_vectorize(schedule, [*states, *inner, vi], lanes)
    return _accumulate(schedule, contraction, gates, factors[-1])


def _accumulate(schedule: Schedule, contraction: Contraction, gates: int, lanes: object) -> bool:
    """Order what is left of the anchor's loops: the reduction outside, the tile inside and unrolled."""
    anchor = schedule.get_sblock(contraction.anchor, func_name="main")
    kinds = [int(axis.iter_type) for axis in schedule.get(anchor).iter_vars]
    loops = schedule.get_loops(anchor)[-len(kinds) :]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.CommReduce]
    *rows, units = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.DataPar]
    inner: list[LoopRV] = []
    for number, row in enumerate(rows):
        if number == gates:
            single, row = schedule.split(row, [1, extent_of(schedule, row)])
            inner.append(single)
        inner.append(row)
    steps = [
        schedule.split(
            loop,
            schedule.sample_perfect_tile(loop, n=REDUCTION_LEVELS, max_innermost_factor=MAX_UNROLLED_STEPS),
        )
        for loop in reduced
    ]
    vectors, vector = schedule.split(units, [None, lanes])
    inner.append(vectors)
    outer_steps, inner_steps = [pair[0] for pair in steps], [pair[1] for pair in steps]
    schedule.reorder(*outer_steps, *inner_steps, *inner, vector)
    unroll_and_vectorize(schedule, [*inner_steps, *inner], vector)
    start = schedule.decompose_reduction(anchor, outer_steps[0])
    *own, vector = schedule.get_loops(start)[-len(inner) - 1 :]
    unroll_and_vectorize(schedule, own, vector)
    return True


def _gate_axis(schedule: Schedule, contraction: Contraction) -> int | None:
    """The one spatial axis of the anchor, by its place, of which each step of what follows reads all."""
    anchor = schedule.get(schedule.get_sblock(contraction.anchor, func_name="main"))
    final = schedule.get(schedule.get_sblock(str(contraction.epilogue), func_name="main"))
    (written,) = anchor.writes
    read = [region for region in final.reads if region.source.same_as(written.source)]
    if len(read) != 1:
        return None
    whole = [
        own.min
        for own, used in zip(written.region, read[0].region, strict=True)
        if isinstance(used.extent, tvm.tirx.IntImm) and int(used.extent) > 1
    ]
    spatial = [axis.var for axis in anchor.iter_vars if int(axis.iter_type) == IterVar.DataPar]
    places = [number for number, var in enumerate(spatial[:-1]) for one in whole if var.same_as(one)]
    return places[0] if len(whole) == len(places) == 1 else None
