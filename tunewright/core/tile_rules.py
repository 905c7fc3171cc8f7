"""Which tiles of registers are worth a trial: limits of the design space of our own, without TVM."""

import math
from collections.abc import Iterable, Sequence
from functools import cache

# Factors of a tile: of a reduction (steps, steps unrolled), of a spatial axis (chunks, tiles of a chunk, rows
# of a tile), of the vector axis (chunks, tiles, vectors, lanes).
REDUCTION_LEVELS, SPATIAL_LEVELS, VECTOR_LEVELS = 2, 3, 4
# Registers that hold operands at least; most vector units have no more than 32.
_LEAST_OTHER_REGISTERS = 2
MAX_ACCUMULATORS = 32 - _LEAST_OTHER_REGISTERS
MAX_UNROLLED_STEPS = 8
# What one thread is done with before the others have started: 1 to 3 us.
FEW_STEPS = 4096
# Multiply-adds of one unrolled body: more take seconds to compile and run no faster.
_MAX_BODY = 512


@cache
def fullest_vector(extent: int, vector_lanes: int) -> int:
    """Lanes of the fullest vector that divides an axis."""
    return max(lanes for lanes in range(1, vector_lanes + 1) if extent % lanes == 0)


def are_reasonable(
    tiles: Iterable[Sequence[int]], *, vector_lanes: int, num_registers: int, num_results: int = 1
) -> bool:
    """Whether tiles leave the accumulators in registers, the code short, and the vectors full.

    Args:
        tiles: the factors of a schedule's tiles, outermost first.
        num_registers: of one vector each.
        num_results: accumulators for each element of the tile.
    """
    accumulators, steps = num_results, 1
    for factors in tiles:
        if len(factors) == REDUCTION_LEVELS:
            steps *= factors[1]
            if factors[1] > MAX_UNROLLED_STEPS:
                return False
        else:
            accumulators *= factors[2]
        if len(factors) == VECTOR_LEVELS and factors[3] != fullest_vector(math.prod(factors), vector_lanes):
            return False
    return accumulators <= num_registers - _LEAST_OTHER_REGISTERS and accumulators * steps <= _MAX_BODY
