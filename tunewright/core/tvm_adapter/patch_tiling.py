"""Schedules of transforms between pixels and overlapping tiles of them, as Winograd's convolutions have.

What a few neighbouring elements of the output share is loaded once: they are unrolled side by side, channels
as lanes, and LLVM finds the common loads. A border is a padded copy of a few rows, so that no load has a
branch of its own.
"""

from collections.abc import Iterator
from typing import Any

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, Trace

from tunewright.core.tvm_adapter.contraction import fullest_vector, is_reduction
from tunewright.core.tvm_adapter.traces import block_names, extent_of, inlined, is_branching, new_schedule

_LEAST_LANES = 4
_MAX_PAD_LANES = 64
_TILE = 4
_TILES_RANK, _IMAGE_RANK = 6, 4


def patch_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch without choices for a transform to tiles (4, 4, images, rows, columns, channels), or from
    such tiles to pixels; else none."""
    schedule = inlined(new_schedule(mod, seed=1), lambda *block: not is_branching(*block))
    try:
        return [schedule.trace.simplified(True)] if _tile(schedule, vector_lanes) else []
    except RuntimeError:  # ScheduleError: of another form
        return []


def _tile(schedule: Schedule, vector_lanes: int) -> bool:
    *paddings, last = block_names(schedule)
    if any(is_reduction(schedule, _block(schedule, name)) for name in (*paddings, last)):
        return False
    final = _block(schedule, last)
    loops = schedule.get_loops(final)
    extents = [extent_of(schedule, loop) for loop in loops]
    lanes = fullest_vector(extents[-1], vector_lanes) if extents else 0
    if lanes < _LEAST_LANES:
        return False
    if len(loops) == _TILES_RANK and extents[:2] == [_TILE, _TILE] and len(paddings) <= 1:
        *inner, images, rows, columns, channels = loops
    elif len(loops) == _IMAGE_RANK and not paddings:
        steps = [_step(schedule.get(final), number) for number in (1, 2)]
        if not all(step > 1 and extent % step == 0 for step, extent in zip(steps, extents[1:3], strict=True)):
            return False
        images, rows, columns, channels = loops
        rows, row = schedule.split(rows, [None, steps[0]])
        columns, column = schedule.split(columns, [None, steps[1]])
        inner = [row, column]
    else:
        return False
    vectors, vector = schedule.split(channels, [None, lanes])
    schedule.reorder(images, rows, columns, vectors, *inner, vector)
    chunks = schedule.fuse(images, rows)
    schedule.parallel(chunks)
    for name in paddings:
        padding = _block(schedule, name)
        schedule.compute_at(padding, chunks, preserve_unit_loops=True)
        _vectorize(schedule, schedule.get_loops(padding)[-1])
    for loop in inner:
        schedule.unroll(loop)
    schedule.vectorize(vector)
    return True


def _vectorize(schedule: Schedule, loop: LoopRV) -> None:
    lanes = fullest_vector(extent_of(schedule, loop), _MAX_PAD_LANES)
    if lanes > 1:
        _, vector = schedule.split(loop, [None, lanes])
        schedule.vectorize(vector)


def _step(block: SBlock, number: int) -> int:
    """By what a block divides one of its axes, else 1: what lies in a step shares its operands."""
    axis = block.iter_vars[number].var
    indices = [extent.min for region in block.reads for extent in region.region]
    return max((size for index in indices for size in _divisors(index, axis)), default=1)


def _divisors(expression: Any, axis: Any) -> Iterator[int]:
    if isinstance(expression, tvm.tirx.FloorDiv | tvm.tirx.FloorMod) and expression.a.same_as(axis):
        yield int(expression.b)
    for name in ("a", "b"):
        if hasattr(expression, name):
            yield from _divisors(getattr(expression, name), axis)


def _block(schedule: Schedule, name: str) -> SBlockRV:
    return schedule.get_sblock(name, func_name="main")
