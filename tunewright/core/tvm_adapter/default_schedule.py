"""Our default schedule: what runs where nothing was tuned.

Unscheduled TVM code is scalar and single-threaded, and TVM's own CPU rules (DLight) take convolutions for
reductions and are slower still. Contractions get the register tile that an analytic model takes for the
fastest, which on most of them is within a tenth of the best of dozens that were timed; computations by rows
are vectorised and done row by row, joined tensors are copied part by part. For everything else there is a
modest and safe schedule: injective producers inlined, spatial loops outside and in parallel, reductions
inside them, the innermost spatial loop vectorised.
"""

import math
from collections.abc import Sequence

import numpy as np
import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, Trace
from tvm.tirx import IterVar

from tunewright.core.tile_model import relative_speed
from tunewright.core.tile_rules import FEW_STEPS, REDUCTION_LEVELS
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.contraction import packs_weights
from tunewright.core.tvm_adapter.copy_tiling import copy_tiling_sketches
from tunewright.core.tvm_adapter.dot_tiling import fixed_lanes, own_sketches
from tunewright.core.tvm_adapter.gated_tiling import results_per_element
from tunewright.core.tvm_adapter.register_tiling import (
    Tiles,
    draw_tiles,
    own_tiles,
)
from tunewright.core.tvm_adapter.row_tiling import default_decisions, row_tiling_sketches
from tunewright.core.tvm_adapter.target import num_vector_registers, tvm_target, vector_lanes
from tunewright.core.tvm_adapter.traces import (
    block_names,
    extent_of,
    inlined,
    is_branching,
    new_schedule,
    trace_to_json,
)
from tunewright.core.types import TargetSpec

_MAX_VECTOR_LANES = 64
_LANE_MULTIPLE = 8
# Enough chunks for an even load on every thread, few enough that each is worth its dispatch.
_CHUNKS_PER_THREAD = 16
# Tiles that the model chooses from, at some 30 us each.
_NUM_DRAWS = 500


def default_trace(mod_json: str, target: TargetSpec) -> str:
    """The default schedule of a workload as a trace, to be replayed like any candidate's."""
    mod, lanes = load_module(mod_json), vector_lanes(target)
    tilings = own_sketches(mod, target)
    if tilings:
        sketch, tiles = _fastest(tilings, target, lanes)
        found = _realised(mod, sketch, tiles, target)
        if found is not None:
            return found
    for sketch in (
        *row_tiling_sketches(mod, vector_lanes=lanes),
        *copy_tiling_sketches(mod, vector_lanes=lanes),
    ):
        size = math.prod(int(extent) for extent in mod["main"].params[-1].shape)
        decisions = default_decisions(sketch, num_threads=target.num_threads, size=size)
        found = _realised(mod, sketch, decisions, target)
        if found is not None:
            return found
    return simple_trace(mod_json, target)


def _fastest(tilings: Sequence[Trace], target: TargetSpec, lanes: int) -> tuple[Trace, Tiles]:
    """Of random tiles those that should run fastest, always the same ones, and the sketch for them.

    The last sketch pads an input chunk by chunk, as long as it is in the cache. Where several chunks share
    their rows, each would pad them again: the one before it pads all at once.
    """
    rng = np.random.default_rng(0)
    sketch = tilings[-1]
    own = own_tiles(sketch)
    num_results = results_per_element(sketch)
    num_registers = num_vector_registers(target)
    drawn = [
        draw_tiles(own, rng, vector_lanes=lanes, num_registers=num_registers, num_results=num_results)
        for _ in range(_NUM_DRAWS)
    ]
    factors = [np.array([tiles[inst] for tiles in drawn], dtype=np.float64) for inst in drawn[0]]
    speeds = relative_speed(
        factors,
        num_threads=target.num_threads,
        num_registers=num_registers,
        lanes=fixed_lanes(sketch),
        num_results=num_results,
    )
    tiles = list(drawn[int(np.argmax(speeds))].values())
    columns = [tile for tile in tiles if len(tile) != REDUCTION_LEVELS][-1]
    if columns[0] > 1 and _pads_late(sketch):
        sketch = next((early for early in tilings[-2:-1] if not _pads_late(early)), sketch)
    return sketch, dict(zip(own_tiles(sketch), tiles, strict=True))


def _pads_late(sketch: Trace) -> bool:
    return any(inst.kind.name == "ComputeAt" for inst in sketch.insts)


def _realised(mod: tvm.IRModule, sketch: Trace, tiles: Tiles, target: TargetSpec) -> str | None:
    """The sketch with these tiles, its weights packed to fit; None where it does not apply."""
    context = ms.TuneContext(
        mod,
        target=tvm_target(target),
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=[], postprocs=[ms.postproc.RewriteLayout()], mutator_probs={}
        ),
        num_threads=1,
    )
    schedule = new_schedule(mod, seed=1)
    try:
        Trace(sketch.insts, tiles).apply_to_schedule(schedule, remove_postproc=True)
        schedule.enter_postproc()
        (rewrite_layout,) = context.space_generator.postprocs
        is_legal = packs_weights(schedule) or rewrite_layout.apply(schedule)
    except RuntimeError:  # ScheduleError
        return None
    return trace_to_json(schedule.trace) if is_legal else None


def simple_trace(mod_json: str, target: TargetSpec) -> str:
    """The modest schedule, whatever the workload.

    Every block is scheduled on a copy, so that what does not apply to it leaves the rest untouched.
    """
    schedule = inlined(new_schedule(load_module(mod_json), seed=1), lambda *block: not is_branching(*block))
    for name in block_names(schedule):
        attempt = schedule.copy()
        try:
            _schedule_block(attempt, attempt.get_sblock(name, func_name="main"), target.num_threads)
        except RuntimeError:  # ScheduleError: the block has a form this rule does not know
            continue
        schedule = attempt
    return trace_to_json(schedule.trace)


def _schedule_block(schedule: Schedule, block: SBlockRV, num_threads: int) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    if len(loops) != len(kinds):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.DataPar]
    reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.CommReduce]
    if not spatial or len(spatial) + len(reduction) != len(loops):
        return
    num_steps = math.prod(extent_of(schedule, loop) or math.inf for loop in loops)
    outer, innermost, is_vector = _split_vector_loop(schedule, spatial)
    schedule.reorder(*outer, *reduction, innermost)
    chunks = _parallel_loop(schedule, outer, num_threads * _CHUNKS_PER_THREAD)
    if chunks is not None and num_steps > FEW_STEPS:
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
