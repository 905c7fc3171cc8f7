"""Design space of Winograd convolutions: some rows of tiles go through all of their steps on one core.

Tiles and products (some 100 KB a row) stay in the core's own cache; handed from kernel to kernel, they would
go from core to core. The products are tiled as in register tiling.

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

A row of a small image has a few tiles only, and all of the weights are read for it. So there are two other
forms. One has several rows in place of one: of their tiles one element at a time is made, and multiplied. In
the other all cores make tiles, then each multiplies some of the 16 elements, of all tiles, then all make
pixels: a weight is read by one core only, and shares are equal, but tiles and products go from core to core.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
from tunewright.core.tvm_adapter.contraction import is_reduction, part_starts
from tunewright.core.tvm_adapter.register_tiling import LEAST_LANES, MAX_PAD_LANES, unroll_and_vectorize
from tunewright.core.tvm_adapter.traces import (
    PEEL,
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
_MANY_ROWS_PER_THREAD, _FEW_ROWS_PER_THREAD = 8, 4
# Of several rows at once, so many tiles make up for reading the weights. Each group of filters makes all
# tiles again, so it has some vectors.
_ENOUGH_TILES = 49
_LEAST_VECTORS_PER_GROUP = 4
_LEAST_BALANCE = 0.8
# A core's own cache: products of several rows fit, and weights of a group that are read again for each row.
# If this much of the weights is read for each tile of a row, several rows at once are faster (16 shapes, four
# threads).
_CACHE_BYTES = 1 << 20
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What a core does at a time: some rows of tiles, for one of several groups of filters."""

    num_groups: int
    num_rows: int


def winograd_tiling_sketches(mod: tvm.IRModule, *, vector_lanes: int, num_threads: int) -> list[Trace]:
    """Sketches for a workload of `graph_winograd`, and what is fused to it; else none.

    With few rows there are up to four. The elements are shared out; or the rows alone; or every thread has
    filters of its own, so that it reads its part of the weights only, and makes all tiles for itself; or a
    thread does several rows at once, and reads that part once for all of them. The last should be the
    fastest.
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
    filters = extent_of(schedule, schedule.get_loops(final)[-1])
    lanes = fullest_vector(filters, vector_lanes)
    if extents[:2] != [_TILE, _TILE] or lanes < LEAST_LANES:
        return []
    images, rows, per_row, channels = extents[2:]
    chunks = _chunks((images, rows, per_row), channels, filters, lanes, num_threads)
    forms: list[Callable[..., None]] = [partial(_tile, chunk=chunk) for chunk in chunks]
    if num_threads > 1 and images * rows < _FEW_ROWS_PER_THREAD * num_threads:
        forms.insert(0, _tile_by_elements)
    sketches = []
    for form in forms:
        attempt = schedule.copy()
        blocks = [block_named(attempt, name) for name in (*padded_and_tiles, products, names[-1])]
        try:
            form(attempt, blocks, vector_lanes)
        except RuntimeError:  # ScheduleError: of another form
            continue
        sketches.append(attempt.trace.simplified(True))
    return sketches


def _chunks(
    tiles: tuple[int, int, int], channels: int, filters: int, lanes: int, num_threads: int
) -> list[_Chunk]:
    """Ways to share out the tiles (images, rows, tiles of a row), last the one that should be fastest."""
    images, rows, per_row = tiles
    weight_bytes = _TILE * _TILE * channels * filters * _FLOAT_BYTES
    chunks = [best := _Chunk(1, 1)]
    rows_per_thread = images * rows / num_threads
    if num_threads > 1 and filters // lanes % num_threads == 0 and rows_per_thread < _MANY_ROWS_PER_THREAD:
        chunks.append(grouped := _Chunk(num_threads, 1))
        if rows_per_thread < _FEW_ROWS_PER_THREAD and weight_bytes <= _CACHE_BYTES * num_threads:
            best = grouped
    several = _several_rows(tiles, filters, lanes, num_threads)
    if several is not None:
        chunks.append(several)
        if weight_bytes > _CACHE_BYTES * per_row:
            best = several
    return [*(chunk for chunk in chunks if chunk != best), best]


def _several_rows(tiles: tuple[int, int, int], filters: int, lanes: int, num_threads: int) -> _Chunk | None:
    """Rows of enough tiles; as few groups of filters as leave no thread idle, and products in the cache."""
    images, rows, per_row = tiles
    if rows == 1 or per_row >= _ENOUGH_TILES:
        return None
    divisors = [n for n in range(2, rows + 1) if rows % n == 0]
    num_rows = next((n for n in divisors if n * per_row >= _ENOUGH_TILES), rows)
    vectors = filters // lanes
    for num_groups in range(1, vectors // _LEAST_VECTORS_PER_GROUP + 1):
        num_chunks = num_groups * images * rows // num_rows
        num_bytes = _TILE * _TILE * num_rows * per_row * filters // num_groups * _FLOAT_BYTES
        balance = num_chunks / (num_threads * -(-num_chunks // num_threads))
        if vectors % num_groups == 0 and balance >= _LEAST_BALANCE and num_bytes <= _CACHE_BYTES:
            return _Chunk(num_groups, num_rows)
    return None


def _tile(schedule: Schedule, blocks: Sequence[SBlockRV], vector_lanes: int, *, chunk: _Chunk) -> None:
    """All steps of some rows on one core."""
    padded, tiles, products, final = blocks
    (images, rows, columns, vectors), (row, column, vector) = _split_pixels(schedule, final, vector_lanes)
    own_rows: list[LoopRV] = []
    if chunk.num_rows > 1:
        rows, *own_rows = schedule.split(rows, [None, chunk.num_rows])
    shared = [images, rows]
    if chunk.num_groups > 1:
        group, vectors = schedule.split(vectors, [chunk.num_groups, None])
        shared.insert(0, group)
    schedule.reorder(*shared, *own_rows, columns, vectors, row, column, vector)
    chunks = schedule.fuse(*shared)
    schedule.compute_at(products, chunks, preserve_unit_loops=True)
    # Of several rows, one element of all tiles at a time.
    around_tiles = schedule.get_loops(products)[-_TILES_RANK + 1] if own_rows else chunks
    schedule.compute_at(tiles, around_tiles, preserve_unit_loops=True)
    schedule.compute_at(padded, chunks, preserve_unit_loops=True)
    unroll_and_vectorize(schedule, [row, column], vector)
    *elements, image, tile_row, tile, channels = schedule.get_loops(tiles)[-_TILES_RANK:]
    groups, lanes = _split_vector(schedule, channels, vector_lanes)
    if own_rows:
        elements = []
    else:
        schedule.reorder(image, tile_row, tile, groups, *elements, lanes)
    unroll_and_vectorize(schedule, elements, lanes)
    _vectorize_pad(schedule, padded)
    *outer, tile, filters, channels = schedule.get_loops(products)[-_TILES_RANK - 1 :]
    if own_rows:
        tile = schedule.fuse(outer.pop(), tile)
    *_, steps = _tile_products(schedule, outer, [tile, filters, channels], vector_lanes)
    schedule.parallel(chunks)
    _start_products(schedule, products, steps)


def _tile_by_elements(schedule: Schedule, blocks: Sequence[SBlockRV], vector_lanes: int) -> None:
    """All cores do one step after the other; tiles and products are shared out in different ways."""
    padded, tiles, products, final = blocks
    (images, rows, columns, vectors), (row, column, vector) = _split_pixels(schedule, final, vector_lanes)
    schedule.reorder(images, rows, columns, vectors, row, column, vector)
    schedule.parallel(schedule.fuse(images, rows, columns))
    unroll_and_vectorize(schedule, [row, column], vector)
    *elements, image, tile_row, tile, channels = schedule.get_loops(tiles)
    vectors, lanes = _split_vector(schedule, channels, vector_lanes)
    schedule.reorder(image, tile_row, vectors, tile, *elements, lanes)
    chunks = schedule.fuse(image, tile_row, vectors)
    schedule.compute_at(padded, chunks, preserve_unit_loops=True)
    schedule.parallel(chunks)
    unroll_and_vectorize(schedule, elements, lanes)
    _vectorize_pad(schedule, padded)
    first, second, *places, filters, channels = schedule.get_loops(products)
    inner = [schedule.fuse(*places), filters, channels]
    *groups, steps = _tile_products(schedule, [first, second], inner, vector_lanes)
    schedule.parallel(schedule.fuse(first, second, *groups))
    _start_products(schedule, products, steps)


def _split_pixels(
    schedule: Schedule, final: SBlockRV, vector_lanes: int
) -> tuple[list[LoopRV], list[LoopRV]]:
    """The loops around the pixels that one tile makes, and those over these pixels."""
    images, rows, columns, filters = schedule.get_loops(final)
    rows, row = schedule.split(rows, [None, _STEP])
    columns, column = schedule.split(columns, [None, _STEP])
    vectors, vector = _split_vector(schedule, filters, vector_lanes)
    return [images, rows, columns, vectors], [row, column, vector]


def _vectorize_pad(schedule: Schedule, padded: SBlockRV) -> None:
    """Channels are vectors, each of them of one part of what is joined."""
    last = schedule.get_loops(padded)[-1]
    starts = part_starts(schedule.get(padded))
    steps, lanes = schedule.split(
        last, [None, fullest_vector(math.gcd(extent_of(schedule, last), *starts), MAX_PAD_LANES)]
    )
    schedule.vectorize(lanes)
    if starts:
        schedule.annotate(steps, PEEL, 1)


def _start_products(schedule: Schedule, products: SBlockRV, steps: LoopRV) -> None:
    """Accumulators begin at 0, before the loop over the steps of the reduction."""
    start = schedule.decompose_reduction(products, steps)
    *own, vector = schedule.get_loops(start)[-3:]
    unroll_and_vectorize(schedule, own, vector)


def _tile_products(
    schedule: Schedule, outer: Sequence[LoopRV], inner: Sequence[LoopRV], vector_lanes: int
) -> tuple[LoopRV, LoopRV, LoopRV]:
    """Tiles of registers for the loops `inner` (tiles, filters, channels) inside of `outer`.

    Returns:
        The loops over groups of filters and of tiles, and that around the accumulators.
    """
    tile, filters, channels = inner
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
    schedule.reorder(*outer)
    schedule.reorder(v0, x0, v1, x1, k0, k1, xi, vi, lanes)
    unroll_and_vectorize(schedule, [k1, xi, vi], lanes)
    return v0, x0, k0


def _split_vector(schedule: Schedule, loop: LoopRV, most_lanes: int) -> list[LoopRV]:
    split: list[LoopRV] = schedule.split(loop, [None, fullest_vector(extent_of(schedule, loop), most_lanes)])
    return split
