"""How fast a tile of accumulators should run, from its numbers alone: no TVM, no measurement.

The terms are those of the analytic models of matrix products (Low et al., "Analytical Modeling Is Enough for
High-Performance BLIS", TOMS 2016): multiply-adds, loads and latency of a step of the reduction, where the
vectors come from, and what every chunk of work has to read. It ranks the tilings of one task; its unit means
nothing. The numbers are round ones of current CPUs with two vector units; `benchmarks/tile_model.py` says how
well they rank the trials of a log.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tunewright.core.tile_rules import REDUCTION_LEVELS

Numbers = npt.NDArray[np.float64]

_MULTIPLY_ADDS_PER_CYCLE = 2.0
_LOADS_PER_CYCLE = 2.0
_LATENCY_CYCLES = 4.0
# A vector from the second cache, or from beyond it, costs so much more than one from the first.
_L2_CYCLES_PER_VECTOR = 0.8
_L3_CYCLES_PER_VECTOR = 2.0
_L1_BYTES = 32 << 10
_L2_BYTES = 1 << 20
_BYTES_PER_CYCLE = 12.0  # from beyond a core's own caches
# Registers for other things than accumulators. Of a product's, a quarter: LLVM's scheduler loads operands too
# early, and spills where they have only a few. Of whole spaces timed (two Winograd convolutions, a 1x1), the
# model's favourite took 1.07, 1.27 and 1.04 times the fastest; with 4 of 32 it was 1.68, 1.50 and 1.16.
_OPERAND_SHARE = 0.25
_OTHER_REGISTERS = 4.0
_LOOP_CYCLES = 1.0  # for the loop around the unrolled steps
# LLVM keeps what several taps of a window read in registers, those that the accumulators and two more leave.
# Fit to 38 timed tilings of convolutions with 12 to 28 accumulators; the worst took 2.3 times as long.
_REGISTERS_IN_WINDOWS = 2.0
_READS_PER_REGISTER = 5.0
_SLOWER_PER_SPILL = 0.0045
# Without channels to reduce over: the loop around the unrolled taps, the border's branch before each vector
# that they read, and vectors that do not stay in registers.
_WINDOW_LOOP_CYCLES = 8.0
_BRANCH_CYCLES = 1.0
_SLOWER_PER_LIVE_VECTOR = 0.01
_BYTES = 4.0
# To start other threads and to wait for them: 0.85 us for two, 1.0 us for four on a Zen 5, call after call.
_LAUNCH_CYCLES = 4e3


def relative_speed(
    factors: Sequence[Numbers],
    *,
    num_threads: int,
    num_registers: int,
    lanes: int | None = None,
    num_results: int = 1,
) -> Numbers:
    """log2 of how fast tilings of one task run (n,), up to a constant; higher is better.

    Args:
        factors: for each tile of a register-tiling sketch, in its order, the factors (n, levels): three
            levels of a spatial axis (chunks, tiles of a chunk, rows of a tile), four of the vector axis
            (chunks, tiles, vectors, lanes), two of a reduction (steps, steps unrolled).
        num_registers: of one vector each.
        lanes: where an instruction fixes them; the last spatial axis is then that of vectors.
        num_results: accumulators for each element of the tile: as many vectors are read for it.
    """
    *rows, vector = [tile for tile in factors if tile.shape[1] != REDUCTION_LEVELS]
    if lanes is not None:
        vector = np.column_stack([vector, np.full(len(vector), float(lanes))])
    reductions = [tile for tile in factors if tile.shape[1] == REDUCTION_LEVELS]
    ones = np.ones(len(vector))
    vectors, filled = vector[:, 2] * num_results, vector[:, 3]
    accumulators = _product((tile[:, 2] for tile in rows), ones) * vectors
    depth = math.prod(float(np.prod(tile[0])) for tile in reductions)
    num_free = num_registers - _REGISTERS_IN_WINDOWS
    max_accumulators = num_registers - _OTHER_REGISTERS
    if len(reductions) == 1 or (len(reductions) > 2 and np.prod(reductions[-1][0]) > 1):
        slab_bytes = depth * vectors * filled * _BYTES
        cycles = _channel_step_cycles(rows, vectors, accumulators, reductions, slab_bytes, num_free)
        if lanes is None:  # else an instruction reads its operands itself
            max_accumulators = (1 - _OPERAND_SHARE) * num_registers
    else:
        cycles = _window_step_cycles(rows, vectors, accumulators, reductions, num_free)
    cycles = cycles * np.maximum(1.0, accumulators / max_accumulators)
    chunks = _product((tile[:, 0] for tile in (*rows, vector)), ones)
    chunk_rows = _product((tile[:, 1] * tile[:, 2] for tile in rows), ones)
    chunk_columns = vector[:, 1] * vectors * filled
    # Lanes that stay empty cost as much as full ones.
    chunk_steps = depth * chunk_rows * chunk_columns / (accumulators * filled)
    chunk_bytes = _BYTES * (chunk_rows * np.prod(reductions[-1][0]) + chunk_columns * depth)
    chunk_cycles = chunk_steps * cycles + chunk_bytes / _BYTES_PER_CYCLE
    launch_cycles = np.where(chunks > 1, _LAUNCH_CYCLES, 0.0) if num_threads > 1 else 0.0
    all_cycles = np.ceil(chunks / num_threads) * chunk_cycles + launch_cycles
    return np.asarray(-np.log2(all_cycles), dtype=np.float64)


def _channel_step_cycles(
    rows: Sequence[Numbers],
    vectors: Numbers,
    accumulators: Numbers,
    reductions: Sequence[Numbers],
    slab_bytes: Numbers,
    num_free: float,
) -> Numbers:
    """Cycles of a step of a product or convolution: every row reads a number, all of them the same vectors.

    Args:
        slab_bytes: what a column of tiles reads of the operand with the vectors, again for each of them.
        num_free: registers for accumulators and what is read.
    """
    loads = accumulators / vectors
    far = np.select(
        [slab_bytes > _L2_BYTES, slab_bytes > _L1_BYTES], [_L3_CYCLES_PER_VECTOR, _L2_CYCLES_PER_VECTOR]
    )
    cycles = np.maximum.reduce(
        [
            accumulators / _MULTIPLY_ADDS_PER_CYCLE,
            (loads + vectors) / _LOADS_PER_CYCLE + far * vectors,
            np.full(len(vectors), _LATENCY_CYCLES),
        ]
    )
    *window, channels = reductions
    taps = _product((tile[:, 1] for tile in window), np.ones(len(vectors)))
    reads = loads * taps * channels[:, 1]
    spills = np.maximum(0.0, reads - _READS_PER_REGISTER * np.maximum(0.0, num_free - accumulators))
    cycles = cycles + _LOOP_CYCLES / (taps * channels[:, 1])
    return np.asarray(cycles * np.where(taps > 1, 1 + _SLOWER_PER_SPILL * spills, 1.0))


def _window_step_cycles(
    rows: Sequence[Numbers],
    vectors: Numbers,
    accumulators: Numbers,
    reductions: Sequence[Numbers],
    num_free: float,
) -> Numbers:
    """Cycles of a step of a depthwise convolution or of pooling: every row reads vectors of its own.

    Unrolled taps share them with those of neighbouring rows, where the axis they move along is the rows'.
    """
    ones = np.ones(len(vectors))
    window = [tile for tile in reductions if np.prod(tile[0]) > 1]
    taps = _product((tile[:, 1] for tile in reductions), ones)
    if len(window) == 2 and len(rows) >= 2:
        pairs = zip(rows[-2:], window, strict=True)
        read = _product((row[:, 2] + tap[:, 1] - 1 for row, tap in pairs), vectors)
        read = read * _product((row[:, 2] for row in rows[:-2]), ones)
    else:
        read = accumulators * taps
    weights = vectors if len(reductions) > 2 else 0.0 * ones
    cycles = np.maximum.reduce(
        [
            accumulators / _MULTIPLY_ADDS_PER_CYCLE,
            (read / taps + weights) / _LOADS_PER_CYCLE,
            _LATENCY_CYCLES * ones,
        ]
    )
    cycles = cycles + (_WINDOW_LOOP_CYCLES + _BRANCH_CYCLES * read) / taps
    # Pooling needs no second operand, and takes the vectors straight from memory.
    live = np.where((taps > 1) & (weights > 0), accumulators + read, 0.0)
    return np.asarray(cycles * (1 + _SLOWER_PER_LIVE_VECTOR * np.maximum(0.0, live - num_free)))


def _product(arrays: Iterable[Numbers], ones: Numbers) -> Numbers:
    result = ones
    for array in arrays:
        result = result * array
    return result
