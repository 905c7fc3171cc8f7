"""Design space of row-wise computations: softmax, layer norm, and what else reduces the last axis.

Every row is done with before the next one, so that it stays in the first cache between the passes over it. A
reduction runs in as many partial sums as a vector has lanes (`rfactor`), which are reduced at the row's end:
LLVM may not reorder floating-point sums by itself, and computes them one by one.
"""

import tvm
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.contraction import is_reduction
from tunewright.core.tvm_adapter.traces import block_named, block_names, extent_of, inlined, new_schedule

_LEAST_LANES = 4


def row_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch without choices where all reductions are of the last axis of equal rows; else none."""
    schedule = inlined(new_schedule(mod, seed=1), _is_read_once)
    try:
        return [schedule.trace.simplified(True)] if _tile(schedule, vector_lanes) else []
    except RuntimeError:  # ScheduleError: not row by row
        return []


def _is_read_once(schedule: Schedule, block: SBlockRV) -> bool:
    """What several blocks read would be computed several times."""
    return not is_reduction(schedule, block) and len(schedule.get_consumers(block)) == 1


def _tile(schedule: Schedule, vector_lanes: int) -> bool:
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, block_named(schedule, name))]
    output = block_named(schedule, names[-1])
    loops = schedule.get_loops(output)
    if not loops:
        return False
    *rows, last = loops
    lanes = _lanes(extent_of(schedule, last), vector_lanes)
    if not reductions or names[-1] in reductions or not rows or lanes is None:
        return False
    partial: dict[str, SBlockRV] = {}
    for name in reductions:
        block = block_named(schedule, name)
        if [int(axis.iter_type) for axis in schedule.get(block).iter_vars][-1] != IterVar.CommReduce:
            return False
        *_, reduced = schedule.get_loops(block)
        own_lanes = _lanes(extent_of(schedule, reduced), vector_lanes)
        if own_lanes is None:
            return False
        _, lane = schedule.split(reduced, [None, own_lanes])
        partial[name] = schedule.rfactor(lane, len(schedule.get(block).iter_vars) - 1)
    row = schedule.fuse(*rows) if len(rows) > 1 else rows[0]
    schedule.parallel(row)
    for name in reversed(names[:-1]):
        block = block_named(schedule, name)
        schedule.compute_at(block, row, preserve_unit_loops=True)
        if name in partial:
            _partial_sums(schedule, partial[name], row)
        else:
            _vectorize(schedule, schedule.get_loops(block)[-1], vector_lanes)
    _vectorize(schedule, last, vector_lanes)
    return True


def _partial_sums(schedule: Schedule, block: SBlockRV, row: LoopRV) -> None:
    schedule.compute_at(block, row, preserve_unit_loops=True)
    _, lane, *units, steps = schedule.get_loops(block)
    schedule.reorder(*units, steps, lane)
    schedule.vectorize(lane)
    start = schedule.decompose_reduction(block, steps)
    schedule.vectorize(schedule.get_loops(start)[-1])


def _vectorize(schedule: Schedule, loop: LoopRV, vector_lanes: int) -> None:
    lanes = _lanes(extent_of(schedule, loop), vector_lanes)
    if lanes is not None:
        _, vector = schedule.split(loop, [None, lanes])
        schedule.vectorize(vector)


def _lanes(extent: int, vector_lanes: int) -> int | None:
    """The fullest vector that divides an axis; None where it would hold next to nothing."""
    lanes = fullest_vector(extent, vector_lanes)
    return lanes if lanes >= _LEAST_LANES else None
