"""One row per candidate from its rows per store statement, and from its tile."""

import numpy as np

from tunewright.core.types import FloatArray
from tunewright.cost_model.tiles import N_TILE_COLUMNS
from tunewright.cost_model.types import N_FEATURES, FeatureBatch

# Part of a model's kind: a model reads rows that were pooled in this way and no other.
POOLING_VERSION = "max-heaviest-tile/1"
N_POOLED = 2 * N_FEATURES + N_TILE_COLUMNS

# The first 16 columns count arithmetic operations, as log2(count + 1).
_ARITHMETIC = slice(0, 16)


def pool_rows(batch: FeatureBatch) -> FloatArray:
    """Pool the stores of each candidate.

    The maximum tells what dominates each column, and the row of the store with the most arithmetic describes
    the loop nest that takes the time. The sum over stores beside them ranks no better and costs a third more;
    the last store's row is often a mere copy.

    Returns: float32 (n_candidates, 336): [max | heaviest store | tile].
    """
    if batch.n_candidates == 0:
        return np.empty((0, N_POOLED), dtype=np.float32)
    rows = batch.rows
    starts = np.searchsorted(batch.owner, np.arange(batch.n_candidates))
    work = rows[:, _ARITHMETIC].max(axis=1)
    # Rows sorted by candidate, the heaviest first; ties keep the order of the program.
    heaviest = np.lexsort((np.arange(len(rows)), -work, batch.owner))[starts]
    return np.concatenate([np.maximum.reduceat(rows, starts, axis=0), rows[heaviest], batch.tiles], axis=1)
