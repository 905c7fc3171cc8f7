"""Design space of row-wise computations: softmax, layer norm, and what else reduces the last axes.

Every row is done with before the next one, so that it stays in the first cache between the passes over it. A
reduction runs in as many partial sums as a vector has lanes, which are reduced at the row's end: LLVM may not
reorder floating-point sums by itself, and computes them one by one; and in several vectors of them, as an
addition has to wait some four cycles for the one before. Where lanes divide the row the schedule makes them
(`rfactor`), elsewhere the computation has them (`graph_softmax`).

    for the chunks of rows, in parallel
        for the rows of a chunk
            for each reduction, after what it reads
                vectors of partial sums = 0
                for the steps of a row
                    partial sums += ...             vectors (unrolled) lanes (one vector)
                all vectors to one, its lanes to one number
            the outputs                             steps lanes

The outputs are rows again, or one number for each: a sum or a maximum, or what is made of it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import Instruction, LoopRV, SBlockRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.tile_rules import FEW_STEPS, fullest_vector
from tunewright.core.tvm_adapter.contraction import LEAST_LANES, is_reduction, num_elements, reads_along
from tunewright.core.tvm_adapter.traces import (
    PEEL,
    block_named,
    block_names,
    extent_of,
    inlined,
    new_schedule,
)

# Of partial sums: eight keep two adders of four cycles busy.
_VECTORS_OF_SUMS = (1, 2, 4, 8)
_DEFAULT_VECTORS = 4
_MOST_ROWS = 64
# Of the default schedule: enough for an even load, few enough that each is worth its start.
_CHUNKS_PER_THREAD = 4
# The loops around all blocks: chunks, and the rows of one.
_NUM_AROUND = 2


def row_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int) -> list[Trace]:
    """One sketch where all reductions are of the last axes of equal rows; else none.

    It samples how many rows are a chunk of work, and in how many vectors sums are made.
    """
    schedule = inlined(new_schedule(mod, seed=1), _is_read_once)
    try:
        return [schedule.trace.simplified(True)] if _tile(schedule, vector_lanes) else []
    except RuntimeError:  # ScheduleError: not row by row
        return []


def default_decisions(sketch: Trace, *, num_threads: int, size: int) -> dict[Instruction, Any]:
    """Of a sketch of this module, when nothing was measured: chunks for all threads, sums in four vectors.

    Args:
        size: elements of the output; a few thousand are one chunk, which starts no threads.
    """
    decisions: dict[Instruction, Any] = {}
    for instruction, sampled in sketch.decisions.items():
        if instruction.kind.name == "SamplePerfectTile":
            num_rows = math.prod(int(factor) for factor in sampled)
            least_chunks = 1 if size <= FEW_STEPS else num_threads * _CHUNKS_PER_THREAD
            decisions[instruction] = _chunked(num_rows, least_chunks)
        else:
            choices = [int(choice) for choice in instruction.attrs[0]]
            decisions[instruction] = sum(choice <= _DEFAULT_VECTORS for choice in choices) - 1
    return decisions


def _chunked(num_rows: int, least_chunks: int) -> tuple[int, int]:
    """The longest chunks of which there are enough; single rows where there are too few."""
    rows = max(
        (n for n in range(1, _MOST_ROWS + 1) if num_rows % n == 0 and num_rows // n >= least_chunks),
        default=1,
    )
    return num_rows // rows, rows


def _is_read_once(schedule: Schedule, block: SBlockRV) -> bool:
    """What several blocks read would be computed several times, and so would one number of each row be."""
    consumers = schedule.get_consumers(block)
    if is_reduction(schedule, block) or len(consumers) != 1:
        return False
    return num_elements(schedule.get(block)) >= num_elements(schedule.get(consumers[0]))


def _tile(schedule: Schedule, vector_lanes: int) -> bool:
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, block_named(schedule, name))]
    if not reductions:
        return False
    output = block_named(schedule, names[-1])
    num_rows, writes_rows = _loops_over_rows(schedule, output, block_named(schedule, reductions[-1]))
    found = _reductions(schedule, reductions, num_rows, vector_lanes) if num_rows else None
    if found is None:
        return False
    is_ragged = bool(found.in_lanes)
    last = schedule.get_loops(output)[num_rows] if writes_rows else None
    if last is not None and not is_ragged and not _lanes(extent_of(schedule, last), vector_lanes):
        return False
    sums = _partial_sums(schedule, found.by_schedule)
    few = {name: _few_sums(schedule, block_named(schedule, name), LEAST_LANES) for name in found.of_lanes}
    rows = schedule.get_loops(output)[:num_rows]
    row = schedule.fuse(*rows) if len(rows) > 1 else rows[0]
    chunk, row = schedule.split(
        row, schedule.sample_perfect_tile(row, n=_NUM_AROUND, max_innermost_factor=_MOST_ROWS)
    )
    schedule.parallel(chunk)
    if last is not None:
        _vectorize(schedule, last, vector_lanes, is_ragged=is_ragged)
    for name in reversed(names):
        block = block_named(schedule, name)
        if name != names[-1]:
            schedule.compute_at(block, row, preserve_unit_loops=True)
        if name in sums:
            sums[name].compute_at(schedule, row)
        elif name in few:
            _compute_few_at(schedule, few[name], row)
        elif name in found.in_lanes:
            *_, lane, steps = schedule.get_loops(block)
            schedule.annotate(steps, PEEL, 1)
            _sum_in_lanes(schedule, block, [steps], lane)
        elif name != names[-1]:
            _vectorize(schedule, schedule.get_loops(block)[-1], vector_lanes, is_ragged=is_ragged)
    return True


def _loops_over_rows(schedule: Schedule, output: SBlockRV, reduction: SBlockRV) -> tuple[int, bool]:
    """How many of the output's loops are over rows, 0 for none, and whether there is one along a row, too."""
    num_loops = len(schedule.get_loops(output))
    block = schedule.get(output)
    if is_reduction(schedule, output):
        return num_loops - _num_reduced(block), False
    if num_elements(block) == num_elements(schedule.get(reduction)):
        return num_loops, False
    return max(0, num_loops - 1), True


def _num_reduced(block: SBlock) -> int:
    return sum(int(axis.iter_type) == IterVar.CommReduce for axis in block.iter_vars)


def _num_spatial(block: SBlock) -> int:
    return len(block.iter_vars) - _num_reduced(block)


@dataclass(frozen=True, slots=True)
class _Reductions:
    """`by_schedule`: those of rows that the schedule cuts into so many lanes; `in_lanes`: those that the
    computation has cut, one result for each lane, and `of_lanes` those of such results."""

    by_schedule: Mapping[str, int]
    in_lanes: Collection[str]
    of_lanes: Collection[str]


def _reductions(
    schedule: Schedule, names: Sequence[str], num_rows: int, vector_lanes: int
) -> _Reductions | None:
    """None where one is not of the last axis, or in no vectors."""
    by_schedule: dict[str, int] = {}
    in_lanes, of_lanes = set(), set()
    for name in names:
        block = block_named(schedule, name)
        if not _is_along_rows(schedule.get(block)):
            return None
        num_reduced = _num_reduced(schedule.get(block))
        loops = schedule.get_loops(block)
        own_rows, reduced = loops[:-num_reduced], loops[-1]
        if num_reduced > 1:
            reduced = schedule.fuse(*loops[-num_reduced:])
        lanes = _lanes(extent_of(schedule, reduced), vector_lanes)
        if len(own_rows) == num_rows + 1 and extent_of(schedule, own_rows[-1]) == vector_lanes:
            in_lanes.add(name)
        elif in_lanes.intersection(_producers(schedule, block)):
            of_lanes.add(name)
        elif lanes is None:
            return None
        else:
            by_schedule[name] = lanes
    return _Reductions(by_schedule, in_lanes, of_lanes)


@dataclass(frozen=True, slots=True)
class _PartialSums:
    """What a reduction has become: sums in several vectors, of these in one, of its lanes in a few."""

    vectors: SBlockRV
    vector: SBlockRV
    few: SBlockRV

    def compute_at(self, schedule: Schedule, row: LoopRV) -> None:
        _compute_few_at(schedule, self.few, row)
        schedule.compute_at(self.vector, row, preserve_unit_loops=True)
        several, group, lane, *_ = schedule.get_loops(self.vector)[_NUM_AROUND:]
        schedule.unroll(several)
        _sum_in_lanes(schedule, self.vector, [several], schedule.fuse(group, lane))
        schedule.compute_at(self.vectors, row, preserve_unit_loops=True)
        several, group, lane, *_, steps = schedule.get_loops(self.vectors)[_NUM_AROUND:]
        schedule.unroll(several)
        _sum_in_lanes(schedule, self.vectors, [steps, several], schedule.fuse(group, lane))


def _is_along_rows(block: SBlock) -> bool:
    """Whether a reduction's steps read one element of a row after the other."""
    *_, last = block.iter_vars
    num_reduced = _num_reduced(block)
    reduced = [axis.var for axis in block.iter_vars[-num_reduced:]]
    if int(last.iter_type) != IterVar.CommReduce:
        return False
    if num_reduced > 1:
        return any(
            len(read.region) >= num_reduced
            and all(
                var.same_as(part.min) for var, part in zip(reduced, read.region[-num_reduced:], strict=True)
            )
            for read in block.reads
        )
    return reads_along(block, last)


def _partial_sums(schedule: Schedule, lanes: Mapping[str, int]) -> dict[str, _PartialSums]:
    """Cut reductions of the last axis into sums in vectors of so many lanes; how many is sampled for all."""
    reduced = {name: schedule.get_loops(block_named(schedule, name))[-1] for name in lanes}
    num_steps = math.gcd(*(extent_of(schedule, loop) // lanes[name] for name, loop in reduced.items()))
    choices = [number for number in _VECTORS_OF_SUMS if num_steps % number == 0]
    if not lanes:
        return {}
    num_vectors = schedule.sample_categorical(choices, [1.0 / len(choices)] * len(choices))
    sums = {}
    for name, num_lanes in lanes.items():
        block = block_named(schedule, name)
        place = _num_spatial(schedule.get(block))
        few_lanes = fullest_vector(num_lanes, LEAST_LANES)
        few = _few_sums(schedule, block, few_lanes)
        *_, groups, _ = schedule.get_loops(few)
        _, group = schedule.split(groups, [None, num_lanes // few_lanes])
        vector = schedule.rfactor(group, place)
        *_, steps, _, _ = schedule.get_loops(vector)
        _, several = schedule.split(steps, [None, num_vectors])
        sums[name] = _PartialSums(schedule.rfactor(several, place), vector, few)
    return sums


def _few_sums(schedule: Schedule, block: SBlockRV, lanes: int) -> SBlockRV:
    """A sum for each of so many lanes, of which the block is left to make one."""
    _, lane = schedule.split(schedule.get_loops(block)[-1], [None, lanes])
    return schedule.rfactor(lane, _num_spatial(schedule.get(block)))


def _compute_few_at(schedule: Schedule, few: SBlockRV, row: LoopRV) -> None:
    schedule.compute_at(few, row, preserve_unit_loops=True)
    groups, lane, *_ = schedule.get_loops(few)[_NUM_AROUND:]
    schedule.unroll(groups)
    _sum_in_lanes(schedule, few, [groups], lane)


def _producers(schedule: Schedule, block: SBlockRV) -> set[str]:
    return {str(schedule.get(producer).name_hint) for producer in schedule.get_producers(block)}


def _sum_in_lanes(schedule: Schedule, block: SBlockRV, around: Sequence[LoopRV], lane: LoopRV) -> None:
    """`around`: loops around the vector, the first one that of the sum."""
    schedule.reorder(*around, lane)
    schedule.vectorize(lane)
    start = schedule.decompose_reduction(block, around[0])
    schedule.vectorize(schedule.get_loops(start)[-1])


def _vectorize(schedule: Schedule, loop: LoopRV, vector_lanes: int, *, is_ragged: bool) -> None:
    """In vectors that divide a loop; a ragged one in whole vectors, and what is left behind the last.

    One number of each row stays as it is.
    """
    extent = extent_of(schedule, loop)
    lanes = vector_lanes if is_ragged else _lanes(extent, vector_lanes)
    if lanes is None or extent == 1:
        return
    steps, vector = schedule.split(loop, [None, lanes])
    schedule.vectorize(vector)
    if is_ragged:
        schedule.annotate(steps, PEEL, 1)


def _lanes(extent: int, vector_lanes: int) -> int | None:
    """The fullest vector that divides an axis; None where it would hold next to nothing."""
    lanes = fullest_vector(extent, vector_lanes)
    return lanes if lanes >= LEAST_LANES else None
