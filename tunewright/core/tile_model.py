"""How fast a tile of accumulators should run, from its numbers alone: no TVM, no measurement.

The terms are those of the analytic models of matrix products (Low et al., "Analytical Modeling Is Enough for
High-Performance BLIS", TOMS 2016): multiply-adds, loads and latency of a step of the reduction, where the
vectors come from, and what every chunk of work has to read. It ranks the tilings of one task; its unit means
nothing. The numbers are round ones of current CPUs with two vector units.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

REDUCTION_LEVELS = 2

_MULTIPLY_ADDS_PER_CYCLE = 2.0
_LOADS_PER_CYCLE = 2.0
_LATENCY_CYCLES = 4.0
# A vector that has to come from the second cache costs this much more than one in the first.
_L2_CYCLES_PER_VECTOR = 0.8
_L1_BYTES = 32 << 10
_BYTES_PER_CYCLE = 12.0  # from beyond a core's own caches
_MAX_ACCUMULATORS = 28.0
_MANY_BRANCHES = 128.0  # depthwise convolutions, timed: twice as slow with these
_LOOP_CYCLES = 1.0  # for the loop around the unrolled steps
_BYTES = 4.0


def relative_speed(factors: Sequence[Numbers], *, num_threads: int, lanes: int | None = None) -> Numbers:
    """log2 of how fast tilings of one task run (n,), up to a constant; higher is better.

    Args:
        factors: for each tile of a register-tiling sketch, in its order, the factors (n, levels): three
            levels of a spatial axis (chunks, tiles of a chunk, rows of a tile), four of the vector axis
            (chunks, tiles, vectors, lanes), two of a reduction (steps, steps unrolled).
        lanes: where an instruction fixes them; the last spatial axis is then that of vectors.
    """
    *rows, vector = [tile for tile in factors if tile.shape[1] != REDUCTION_LEVELS]
    if lanes is not None:
        vector = np.column_stack([vector, np.full(len(vector), float(lanes))])
    reductions = [tile for tile in factors if tile.shape[1] == REDUCTION_LEVELS]
    ones = np.ones(len(vector))
    vectors, filled = vector[:, 2], vector[:, 3]
    accumulators = _product((tile[:, 2] for tile in rows), ones) * vectors
    steps = _product((tile[:, 1] for tile in reductions), ones)
    depth = math.prod(float(np.prod(tile[0])) for tile in reductions)
    cycles = np.maximum.reduce(
        [
            accumulators / _MULTIPLY_ADDS_PER_CYCLE,
            _load_cycles(rows, vectors, reductions, slab_bytes=depth * vectors * filled * _BYTES),
            _LATENCY_CYCLES * ones,
        ]
    )
    cycles = (cycles + _LOOP_CYCLES / steps) * np.maximum(1.0, accumulators / _MAX_ACCUMULATORS)
    chunks = _product((tile[:, 0] for tile in (*rows, vector)), ones)
    chunk_rows = _product((tile[:, 1] * tile[:, 2] for tile in rows), ones)
    chunk_columns = vector[:, 1] * vectors * filled
    # Lanes that stay empty cost as much as full ones.
    chunk_steps = depth * chunk_rows * chunk_columns / (accumulators * filled)
    chunk_bytes = _BYTES * (chunk_rows * np.prod(reductions[-1][0]) + chunk_columns * depth)
    chunk_cycles = chunk_steps * cycles + chunk_bytes / _BYTES_PER_CYCLE
    return np.asarray(-np.log2(np.ceil(chunks / num_threads) * chunk_cycles), dtype=np.float64)


def _load_cycles(
    rows: Sequence[Numbers], vectors: Numbers, reductions: Sequence[Numbers], *, slab_bytes: Numbers
) -> Numbers:
    """Cycles that the loads of one step take: a number for each row, and a vector for each of the tile's.

    Without a reduction over channels (a depthwise convolution, pooling) a row is as many vectors as the tile
    has, and the border is a branch before each of them: the longer the code, the worse.
    """
    loads = _product((tile[:, 2] for tile in rows), np.ones(len(vectors)))
    if len(reductions) == 1 or (len(reductions) > 2 and np.prod(reductions[-1][0]) > 1):
        far_vectors = np.where(slab_bytes > _L1_BYTES, vectors * _L2_CYCLES_PER_VECTOR, 0.0)
        return np.asarray((loads + vectors) / _LOADS_PER_CYCLE + far_vectors, dtype=np.float64)
    loads = loads * vectors
    branches = _product((tile[:, 1] for tile in reductions), loads)
    return np.asarray(
        (loads + vectors) / _LOADS_PER_CYCLE * (1 + branches / _MANY_BRANCHES), dtype=np.float64
    )


def _product(arrays: Iterable[Numbers], ones: Numbers) -> Numbers:
    result = ones
    for array in arrays:
        result = result * array
    return result
