"""Schedules of copies: tensors joined along their last axis, and such as are interleaved there.

TVM decides for each element of joined tensors which one it comes from, and such a decision inside a vector
makes its code scalar. Where all parts begin at a multiple of some vector, the loop over the vectors can be
split where the decision changes, so that none is left in the loops.

A channel shuffle, or an image whose channels go last, takes neighbours from few places far apart. LLVM makes
vectors of that by itself where the loop over the few is unrolled and the one around it reads contiguously.
"""

import itertools
import math

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import SBlockRV, Schedule, Trace
from tvm.sym import Analyzer

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.contraction import is_reduction, part_starts
from tunewright.core.tvm_adapter.traces import (
    PEEL,
    block_named,
    block_names,
    extent_of,
    inlined,
    is_branching,
    new_schedule,
)

_LEAST_LANES = 4
# LLVM interleaves no more streams than this.
_MOST_STREAMS = 8
# Of an axis: enough to tell how it is interleaved.
_PLACES_LOOKED_AT = 64


def copy_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch without choices where an output's last axis joins or interleaves tensors; else none."""
    schedule = inlined(new_schedule(mod, seed=1), lambda *_: True)
    (name, *others) = block_names(schedule)
    block = block_named(schedule, name)
    if others or is_reduction(schedule, block) or len(schedule.get_loops(block)) < 2:
        return []
    tile = _join if is_branching(schedule, block) else _interleave
    try:
        return [schedule.trace.simplified(True)] if tile(schedule, block, vector_lanes) else []
    except RuntimeError:  # ScheduleError: a block of a form that this rule does not know
        return []


def _join(schedule: Schedule, block: SBlockRV, vector_lanes: int) -> bool:
    *rows, last = schedule.get_loops(block)
    starts = part_starts(schedule.get(block))
    lanes = fullest_vector(math.gcd(extent_of(schedule, last), *starts), vector_lanes)
    if not starts or lanes < _LEAST_LANES:
        return False
    schedule.parallel(schedule.fuse(*rows) if len(rows) > 1 else rows[0])
    steps, vector = schedule.split(last, [None, lanes])
    schedule.vectorize(vector)
    schedule.annotate(steps, PEEL, 1)
    return True


def _interleave(schedule: Schedule, block: SBlockRV, vector_lanes: int) -> bool:
    *rows, last = schedule.get_loops(block)
    extent = extent_of(schedule, last)
    whole = schedule.get(block)
    if len(rows) > 1 and extent <= _MOST_STREAMS and _is_contiguous(_index_along(whole, -2), 1):
        schedule.parallel(schedule.fuse(*rows[:-1]) if len(rows) > 2 else rows[0])
        schedule.unroll(last)
        return 1 < extent and extent_of(schedule, rows[-1]) >= vector_lanes
    along = _index_along(whole, -1)
    for streams in range(2, _MOST_STREAMS + 1):
        if extent % streams == 0 and extent // streams >= vector_lanes and _is_contiguous(along, streams):
            schedule.parallel(schedule.fuse(*rows) if len(rows) > 1 else rows[0])
            _, stream = schedule.split(last, [None, streams])
            schedule.unroll(stream)
            return True
    return False


def _index_along(block: SBlock, axis: int) -> list[int]:
    """Where the last axis of the tensor that a block reads is read, by the block's index along `axis`.

    The tensor is that with the most axes, all other indices are 0. Empty where that does not say it.
    """
    read = max(block.reads, key=lambda read: len(read.region), default=None)
    if read is None or not read.region:
        return []
    places, moving = [], block.iter_vars[axis]
    for place in range(min(int(moving.dom.extent), _PLACES_LOOKED_AT)):
        analyzer = Analyzer()
        for one in block.iter_vars:
            is_moving = one.var.same_as(moving.var)
            analyzer.bind(one.var, tvm.tirx.const(place if is_moving else 0, one.var.ty.dtype))
        value = analyzer.simplify(read.region[-1].min)
        if not isinstance(value, tvm.tirx.IntImm):
            return []
        places.append(int(value))
    return places


def _is_contiguous(places: list[int], streams: int) -> bool:
    """Whether each of so many interleaved streams reads neighbours, and all of them together do not."""

    def follows(distance: int) -> bool:
        return all(b == a + 1 for a, b in zip(places, itertools.islice(places, distance, None), strict=False))

    return len(places) > streams and follows(streams) and (streams == 1 or not follows(1))
