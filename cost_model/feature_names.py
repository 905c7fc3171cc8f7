"""What the columns of a pooled row mean, for people who look into a model.

The order is that of TVM's per-store features; values are log2(x + 1) but for the yes/no ones.
"""

from collections.abc import Iterator

from tunewright.cost_model.types import N_FEATURES

_OPERATIONS = (
    "multiply-adds", "additions", "multiplications", "divisions", "comparisons", "math calls", "other calls",
)  # fmt: skip
_POSITIONS = (
    "none", "inner spatial", "middle spatial", "outer spatial",
    "inner reduction", "middle reduction", "outer reduction", "mixed",
)  # fmt: skip
_BUFFER = (
    "is read", "is written", "is read and written",
    "bytes accessed", "unique bytes", "cache lines accessed", "unique cache lines",
    "is reused in a loop", "is reused serially", "is not reused",
    "reuse distance in iterations", "reuse distance in bytes", "reuse count",
    "bytes per reuse", "unique bytes per reuse", "cache lines per reuse", "unique cache lines per reuse",
    "innermost stride",
)  # fmt: skip
_GPU = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z", "vthread")
_NUM_BUFFERS = 5
_NUM_INTENSITIES = 10


def _store_columns() -> Iterator[str]:
    for dtype in ("float", "integer"):
        yield from (f"{dtype} {operation}" for operation in _OPERATIONS)
    yield from ("boolean operations", "selects")
    for kind in ("vectorised", "unrolled", "parallel"):
        yield from (f"{kind} loops", f"{kind} iterations", f"innermost {kind} extent")
        yield from (f"{kind} position: {position}" for position in _POSITIONS)
    yield "is GPU"
    yield from (f"{axis} extent" for axis in _GPU)
    # Buffers come by falling number of cache lines accessed.
    for index in range(1, _NUM_BUFFERS + 1):
        yield from (f"buffer {index}: {what}" for what in _BUFFER)
    for index in range(1, _NUM_INTENSITIES + 1):
        yield f"arithmetic intensity at {100 * index // _NUM_INTENSITIES} % of the work"
    yield from ("allocated bytes", "bytes allocated in all", "iterations around the allocation")
    yield from ("iterations inside the allocation", "iterations", "loops", "auto-unroll limit")


STORE_COLUMNS = tuple(_store_columns())


def pooled_column_name(column: int) -> str:
    """What a column of `pool_rows` holds, 0 <= column < 328."""
    pool, store_column = divmod(column, N_FEATURES)
    return f"{('largest', 'main loop nest')[pool]}: {STORE_COLUMNS[store_column]}"
