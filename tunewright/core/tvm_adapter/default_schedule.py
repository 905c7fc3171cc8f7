"""Our default schedule: what runs where nothing was tuned.

Unscheduled TVM code is scalar and single-threaded, and TVM's own CPU rules (DLight) take convolutions for
reductions and are slower still. This one is modest and safe: injective producers inlined, spatial loops
outside and in parallel, reductions inside them, the innermost spatial loop vectorised. Every block is
scheduled on a copy, so that what does not apply to it leaves the rest untouched.
"""

from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule
from tvm.tirx import IterVar

from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.traces import block_names, extent_of, new_schedule, trace_to_json
from tunewright.core.types import TargetSpec

_MAX_VECTOR_LANES = 64
_LANE_MULTIPLE = 8
# Enough chunks for an even load on every thread, few enough that each is worth its dispatch.
_CHUNKS_PER_THREAD = 16


def default_trace(mod_json: str, target: TargetSpec) -> str:
    """The default schedule of a workload as a trace, to be replayed like any candidate's."""
    schedule = new_schedule(load_module(mod_json), seed=1)
    schedule = _inline_injective(schedule)
    for name in block_names(schedule):
        attempt = schedule.copy()
        try:
            _schedule_block(attempt, attempt.get_sblock(name, func_name="main"), target.num_threads)
        except RuntimeError:  # ScheduleError: the block has a form this rule does not know
            continue
        schedule = attempt
    return trace_to_json(schedule.trace)


def _inline_injective(schedule: Schedule) -> Schedule:
    """Inline every producer that TVM can inline and that holds no reduction or branch (padding)."""
    for name in block_names(schedule):
        attempt = schedule.copy()
        block = attempt.get_sblock(name, func_name="main")
        if "if_then_else" in str(attempt.get(block).body):
            continue
        try:
            attempt.compute_inline(block)
        except RuntimeError:
            continue
        schedule = attempt
    return schedule


def _schedule_block(schedule: Schedule, block: SBlockRV, num_threads: int) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    if len(loops) != len(kinds):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.DataPar]
    reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.CommReduce]
    if not spatial or len(spatial) + len(reduction) != len(loops):
        return
    outer, innermost, is_vector = _split_vector_loop(schedule, spatial)
    schedule.reorder(*outer, *reduction, innermost)
    chunks = _parallel_loop(schedule, outer, num_threads * _CHUNKS_PER_THREAD)
    if chunks is not None:
        schedule.parallel(chunks)
    if is_vector:
        schedule.vectorize(innermost)
    if reduction:
        schedule.decompose_reduction(block, reduction[0])


def _split_vector_loop(schedule: Schedule, spatial: list[LoopRV]) -> tuple[list[LoopRV], LoopRV, bool]:
    """Outer loops, the loop to place innermost, and whether to vectorise that one ourselves.

    A loop with no good divisor that is too long for one vector is left whole to LLVM, which handles its
    tail better than odd lane counts do (111 elements: 3.3 ms so, 24 ms as 3 x 37 lanes).
    """
    *outer, last = spatial
    extent = extent_of(schedule, last)
    lanes = [
        n for n in range(_LANE_MULTIPLE, _MAX_VECTOR_LANES + 1, _LANE_MULTIPLE) if extent and extent % n == 0
    ]
    if lanes:
        remainder, vector = schedule.split(last, factors=[None, lanes[-1]])
        return [*outer, remainder], vector, True
    return outer, last, 2 <= extent <= _MAX_VECTOR_LANES


def _parallel_loop(schedule: Schedule, outer: list[LoopRV], num_chunks: int) -> LoopRV | None:
    """Fuse leading loops until there are enough chunks; None where nothing can run in parallel."""
    fused: list[LoopRV] = []
    total = 1
    for loop in outer:
        fused.append(loop)
        total *= extent_of(schedule, loop)
        if total >= num_chunks:
            break
    if total < 2:
        return None
    return schedule.fuse(*fused) if len(fused) > 1 else fused[0]
