"""Design space of row-wise computations: softmax, layer norm, and what else reduces the last axis.

Every row is done with before the next one, so that it stays in the first cache between the passes over it. A
reduction runs in as many partial sums as a vector has lanes, which are reduced at the row's end: LLVM may not
reorder floating-point sums by itself, and computes them one by one. Where lanes divide the row the schedule
makes them (`rfactor`), elsewhere the computation has them (`graph_softmax`).
"""

import tvm
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.contraction import is_reduction, num_elements
from tunewright.core.tvm_adapter.traces import (
    PEEL,
    block_named,
    block_names,
    extent_of,
    inlined,
    new_schedule,
)

_LEAST_LANES = 4


def row_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch without choices where all reductions are of the last axis of equal rows; else none."""
    schedule = inlined(new_schedule(mod, seed=1), _is_read_once)
    try:
        return [schedule.trace.simplified(True)] if _tile(schedule, vector_lanes) else []
    except RuntimeError:  # ScheduleError: not row by row
        return []


def _is_read_once(schedule: Schedule, block: SBlockRV) -> bool:
    """What several blocks read would be computed several times, and so would one number of each row be."""
    consumers = schedule.get_consumers(block)
    if is_reduction(schedule, block) or len(consumers) != 1:
        return False
    return num_elements(schedule.get(block)) >= num_elements(schedule.get(consumers[0]))


def _tile(schedule: Schedule, vector_lanes: int) -> bool:
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, block_named(schedule, name))]
    output = block_named(schedule, names[-1])
    loops = schedule.get_loops(output)
    if not loops:
        return False
    *rows, last = loops
    if not reductions or names[-1] in reductions or not rows:
        return False
    partial: dict[str, SBlockRV] = {}
    in_lanes: set[str] = set()
    for name in reductions:
        block = block_named(schedule, name)
        if [int(axis.iter_type) for axis in schedule.get(block).iter_vars][-1] != IterVar.CommReduce:
            return False
        *own_rows, reduced = schedule.get_loops(block)
        if len(own_rows) == len(rows) + 1 and extent_of(schedule, own_rows[-1]) == vector_lanes:
            in_lanes.add(name)
        elif not in_lanes.intersection(_producers(schedule, block)):
            own_lanes = _lanes(extent_of(schedule, reduced), vector_lanes)
            if own_lanes is None:
                return False
            _, lane = schedule.split(reduced, [None, own_lanes])
            partial[name] = schedule.rfactor(lane, len(schedule.get(block).iter_vars) - 1)
    if not in_lanes and _lanes(extent_of(schedule, last), vector_lanes) is None:
        return False
    row = schedule.fuse(*rows) if len(rows) > 1 else rows[0]
    schedule.parallel(row)
    for name in reversed(names[:-1]):
        block = block_named(schedule, name)
        schedule.compute_at(block, row, preserve_unit_loops=True)
        if name in partial:
            _partial_sums(schedule, partial[name], row)
        elif name in in_lanes:
            *_, lane, steps = schedule.get_loops(block)
            schedule.annotate(steps, PEEL, 1)
            _sum_in_lanes(schedule, block, lane, steps)
        elif name not in reductions:
            _vectorize(schedule, schedule.get_loops(block)[-1], vector_lanes, is_ragged=bool(in_lanes))
    _vectorize(schedule, last, vector_lanes, is_ragged=bool(in_lanes))
    return True


def _producers(schedule: Schedule, block: SBlockRV) -> set[str]:
    return {str(schedule.get(producer).name_hint) for producer in schedule.get_producers(block)}


def _partial_sums(schedule: Schedule, block: SBlockRV, row: LoopRV) -> None:
    schedule.compute_at(block, row, preserve_unit_loops=True)
    _, lane, *_, steps = schedule.get_loops(block)
    _sum_in_lanes(schedule, block, lane, steps)


def _sum_in_lanes(schedule: Schedule, block: SBlockRV, lane: LoopRV, steps: LoopRV) -> None:
    schedule.reorder(steps, lane)
    schedule.vectorize(lane)
    start = schedule.decompose_reduction(block, steps)
    schedule.vectorize(schedule.get_loops(start)[-1])


def _vectorize(schedule: Schedule, loop: LoopRV, vector_lanes: int, *, is_ragged: bool) -> None:
    """In vectors that divide a loop; a ragged one in whole vectors, and what is left behind the last."""
    lanes = vector_lanes if is_ragged else _lanes(extent_of(schedule, loop), vector_lanes)
    if lanes is None:
        return
    steps, vector = schedule.split(loop, [None, lanes])
    schedule.vectorize(vector)
    if is_ragged:
        schedule.annotate(steps, PEEL, 1)


def _lanes(extent: int, vector_lanes: int) -> int | None:
    """The fullest vector that divides an axis; None where it would hold next to nothing."""
    lanes = fullest_vector(extent, vector_lanes)
    return lanes if lanes >= _LEAST_LANES else None
