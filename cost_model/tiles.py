"""What a candidate's tile of accumulators is: numbers that its trace tells and its statements hide.

TVM's features count what every statement of a lowered program does. How many accumulators stay in registers,
for how many steps they are unrolled and how the work is shared out is there only in the extents of many
loops; with these numbers beside them, points of a task that the model has not seen are ranked better
(docs/decisions.md).
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tunewright.core.loop_nest import LoopNest, read_nest
from tunewright.core.tile_rules import REDUCTION_LEVELS
from tunewright.core.types import FloatArray

# log2 but for the last one.
TILE_COLUMNS = (
    "accumulators",
    "vectors of a row",
    "chunks of work",
    "unrolled steps",
    "tiles of a chunk",
    "bytes of a slab",
    "bytes of a chunk",
    "loads per multiply-add",
)
N_TILE_COLUMNS = len(TILE_COLUMNS)
_BYTES = 4.0
_NO_TILE = (0.0,) * N_TILE_COLUMNS
# Between the instructions of a trace and its decisions, and nowhere behind.
_BOUNDARY = "],[["


def tile_rows(traces: Sequence[str]) -> FloatArray:
    """One row per trace, float32 (n, 8): `TILE_COLUMNS`; zeros where a trace has no tile of accumulators.

    Args:
        traces: canonical JSON.
    """
    rows = [_numbers(trace) for trace in traces]
    return np.array(rows, dtype=np.float32).reshape(len(rows), N_TILE_COLUMNS)


@lru_cache(maxsize=1 << 14)  # a session's trials are asked for again at each refit
def _numbers(trace_json: str) -> tuple[float, ...]:
    # Candidates of a task share their instructions, which are most of the text.
    boundary = trace_json.rfind(_BOUNDARY)
    if boundary < 0:
        return _NO_TILE
    try:
        values = dict(json.loads(trace_json[boundary + 2 : -1]))
        widths = tuple((at, len(value) if isinstance(value, list) else 1) for at, value in values.items())
        nest = _nest(trace_json[1 : boundary + 1], widths)
    except (ValueError, TypeError, IndexError, KeyError):
        return _NO_TILE
    if nest is None or not nest.is_unrolled:
        return _NO_TILE
    flat = [n for value in values.values() for n in (value if isinstance(value, list) else [value])]
    return _of_tiles([flat[columns] for columns in nest.tiles], nest)


@lru_cache(maxsize=1024)
def _nest(instructions_json: str, widths: tuple[tuple[int, int], ...]) -> LoopNest | None:
    """The nest of a sketch whose decisions, by instruction, are so many numbers."""
    instructions: list[Any] = json.loads(instructions_json)
    columns, start = {}, 0
    for index, width in widths:
        columns[index] = slice(start, start + width)
        start += width
    return read_nest(instructions, columns)


def _of_tiles(tiles: Sequence[Sequence[int]], nest: LoopNest) -> tuple[float, ...]:
    *rows, vector = [tile for tile in tiles if len(tile) != REDUCTION_LEVELS]
    reductions = [tile for tile in tiles if len(tile) == REDUCTION_LEVELS]
    lanes = nest.lanes or vector[3]
    vectors = vector[2] * nest.num_results
    accumulators = math.prod(row[2] for row in rows) * vectors
    depth = math.prod(math.prod(tile) for tile in reductions)
    chunk_rows = math.prod(row[1] * row[2] for row in rows)
    chunk_columns = vector[1] * vectors * lanes
    channels = math.prod(reductions[-1]) if reductions else 1
    counts = (
        accumulators,
        vectors,
        math.prod(tile[0] for tile in (*rows, vector)),
        math.prod(tile[1] for tile in reductions),
        math.prod(tile[1] for tile in (*rows, vector)),
        _BYTES * depth * vectors * lanes,
        _BYTES * (chunk_rows * channels + chunk_columns * depth),
    )
    return (*map(math.log2, counts), (accumulators / vectors + vectors) / accumulators)
