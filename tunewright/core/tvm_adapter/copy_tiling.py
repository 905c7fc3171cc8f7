"""Schedule of what joins tensors along their last axis: a loop of whole vectors for each part.

TVM decides for each element which tensor it comes from, and such a decision inside a vector makes its code
scalar. Where all parts begin at a multiple of some vector, the loop over the vectors can be split where the
decision changes, so that none is left in the loops.
"""

import math
from collections.abc import Iterator

import tvm
from tvm.s_tir.schedule import SBlockRV, Schedule, Trace

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.contraction import is_reduction
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


def copy_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch without choices where tensors are joined along the last axis of the output; else none."""
    schedule = inlined(new_schedule(mod, seed=1), lambda *_: True)
    (name, *others) = block_names(schedule)
    block = block_named(schedule, name)
    if others or is_reduction(schedule, block) or not is_branching(schedule, block):
        return []
    *rows, last = schedule.get_loops(block)
    starts = list(_starts(schedule, block))
    lanes = fullest_vector(math.gcd(extent_of(schedule, last), *starts), vector_lanes)
    if not rows or not starts or lanes < _LEAST_LANES:
        return []
    try:
        schedule.parallel(schedule.fuse(*rows) if len(rows) > 1 else rows[0])
        steps, vector = schedule.split(last, [None, lanes])
        schedule.vectorize(vector)
        schedule.annotate(steps, PEEL, 1)
    except RuntimeError:  # ScheduleError: a block of a form that this rule does not know
        return []
    return [schedule.trace.simplified(True)]


def _starts(schedule: Schedule, block: SBlockRV) -> Iterator[int]:
    """Where the parts of the last axis begin that do not begin at 0, as their reads tell."""
    last = schedule.get(block).iter_vars[-1].var
    for read in schedule.get(block).reads:
        index = read.region[-1].min if read.region else None
        if isinstance(index, tvm.tirx.Sub | tvm.tirx.Add) and index.a.same_as(last):
            if isinstance(index.b, tvm.tirx.IntImm):
                yield abs(int(index.b))
