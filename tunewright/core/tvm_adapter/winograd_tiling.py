"""Design space of Winograd convolutions: a row of tiles goes through all of its steps on one core.

Tiles and products of a row (some 100 KB) stay in the core's own cache; handed from kernel to kernel, they
would go from core to core. The products are tiled as in register tiling.

    for groups of filters, if there are few rows      f0
      for the rows of tiles, in parallel
        pad the pixels of the row; make tiles of them
        for the 16 elements of a tile                     i j
            for groups of columns and of tiles            v0 x0 v1 x1
                accumulators = 0
                for the channels                          k0
                    for a few of them, unrolled           k1
                        accumulators += ...               xi vi (unrolled) lanes (one vector)
        make pixels of the products, and what follows
"""

from collections.abc import Sequence

import tvm
from tvm.s_tir.schedule import LoopRV, SBlockRV, Schedule, Trace

from tunewright.core.tile_rules import (
    MAX_ACCUMULATORS,
    MAX_UNROLLED_STEPS,
    REDUCTION_LEVELS,
    SPATIAL_LEVELS,
    VECTOR_LEVELS,
    fullest_vector,
)
from tunewright.core.tvm_adapter.contraction import is_reduction
from tunewright.core.tvm_adapter.register_tiling import LEAST_LANES, MAX_PAD_LANES, unroll_and_vectorize
from tunewright.core.tvm_adapter.traces import (
    block_named,
    block_names,
    extent_of,
    inlined,
    is_branching,
    new_schedule,
)

_TILE, _STEP = 4, 2
_TILES_RANK, _IMAGE_RANK = 6, 4
# With fewer, threads have unequal shares, and read all weights for a few rows.
_MANY_ROWS_PER_THREAD = 8


def winograd_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int, num_threads: int) -> list[Trace]:
    """Sketches for a workload of `graph_winograd`, and what is fused to it; else none.

    With few rows there are two: the rows alone are shared out, or every thread has filters of its own. Then
    it reads its part of the weights only, and makes all tiles for itself.
    """
    schedule = new_schedule(mod, seed=1)
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, block_named(schedule, name))]
    if len(reductions) != 1 or names.index(reductions[0]) != 2 or len(names) < 4:
        return []
    *padded_and_tiles, products = names[:3]
    schedule = inlined(schedule, lambda s, block: str(s.get(block).name_hint) in names[3:-1])
    padded, tiles = (block_named(schedule, name) for name in padded_and_tiles)
    final = block_named(schedule, names[-1])
    ranks = [len(schedule.get_loops(block)) for block in (tiles, block_named(schedule, products), final)]
    is_ours = ranks == [_TILES_RANK, _TILES_RANK + 1, _IMAGE_RANK] and is_branching(schedule, padded)
    if not is_ours or len(block_names(schedule)) != 4:
        return []
    extents = [extent_of(schedule, loop) for loop in schedule.get_loops(tiles)]
    columns = extent_of(schedule, schedule.get_loops(final)[-1])
    if extents[:2] != [_TILE, _TILE] or fullest_vector(columns, vector_lanes) < LEAST_LANES:
        return []
    groups = [1]
    is_divisible = columns // fullest_vector(columns, vector_lanes) % num_threads == 0
    if num_threads > 1 and is_divisible and extents[2] * extents[3] < _MANY_ROWS_PER_THREAD * num_threads:
        groups.append(num_threads)
    sketches = []
    for num_groups in groups:
        attempt = schedule.copy()
        blocks = [block_named(attempt, name) for name in (*padded_and_tiles, products, names[-1])]
        try:
            _tile(attempt, blocks, num_groups, vector_lanes)
        except RuntimeError:  # ScheduleError: of another form
            continue
        sketches.append(attempt.trace.simplified(True))
    return sketches


def _tile(schedule: Schedule, blocks: Sequence[SBlockRV], num_groups: int, vector_lanes: int) -> None:
    padded, tiles, products, final = blocks
    images, rows, columns, filters = schedule.get_loops(final)
    rows, row = schedule.split(rows, [None, _STEP])
    columns, column = schedule.split(columns, [None, _STEP])
    vectors, vector = _split_vector(schedule, filters, vector_lanes)
    shared = [images, rows]
    if num_groups > 1:
        group, vectors = schedule.split(vectors, [num_groups, None])
        shared.insert(0, group)
    schedule.reorder(*shared, columns, vectors, row, column, vector)
    chunks = schedule.fuse(*shared)
    for block in (products, tiles, padded):
        schedule.compute_at(block, chunks, preserve_unit_loops=True)
    unroll_and_vectorize(schedule, [row, column], vector)
    *elements, image, tile_row, tile, channels = schedule.get_loops(tiles)[-_TILES_RANK:]
    groups, lanes = _split_vector(schedule, channels, vector_lanes)
    schedule.reorder(image, tile_row, tile, groups, *elements, lanes)
    unroll_and_vectorize(schedule, elements, lanes)
    last = schedule.get_loops(padded)[-1]
    _, lanes = _split_vector(schedule, last, MAX_PAD_LANES)
    schedule.vectorize(lanes)
    steps = _tile_products(schedule, products, vector_lanes)
    schedule.parallel(chunks)
    start = schedule.decompose_reduction(products, steps)
    *own, vector = schedule.get_loops(start)[-3:]
    unroll_and_vectorize(schedule, own, vector)


def _tile_products(schedule: Schedule, products: SBlockRV, vector_lanes: int) -> LoopRV:
    """The loop around the accumulators."""
    *elements, image, row, tile, filters, channels = schedule.get_loops(products)[-_TILES_RANK - 1 :]
    x0, x1, xi = schedule.split(
        tile, schedule.sample_perfect_tile(tile, n=SPATIAL_LEVELS, max_innermost_factor=MAX_ACCUMULATORS)
    )
    v0, v1, vi, lanes = schedule.split(
        filters, schedule.sample_perfect_tile(filters, n=VECTOR_LEVELS, max_innermost_factor=vector_lanes)
    )
    steps = schedule.sample_perfect_tile(
        channels, n=REDUCTION_LEVELS, max_innermost_factor=MAX_UNROLLED_STEPS
    )
    k0, k1 = schedule.split(channels, steps)
    schedule.reorder(*elements, image, row)
    schedule.reorder(v0, x0, v1, x1, k0, k1, xi, vi, lanes)
    unroll_and_vectorize(schedule, [k1, xi, vi], lanes)
    return k0


def _split_vector(schedule: Schedule, loop: LoopRV, most_lanes: int) -> list[LoopRV]:
    split: list[LoopRV] = schedule.split(loop, [None, fullest_vector(extent_of(schedule, loop), most_lanes)])
    return split
