"""What the columns of a pooled row mean, for people who look into a model.

The order is that of TVM's per-store features; values are log2(x + 1) but for the yes/no ones.
"""

from collections.abc import Iterator

from tunewright.cost_model.tiles import TILE_COLUMNS
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
_TILE = 2  # behind the two pools of store columns
_NUM_INTENSITIES = 10


def _store_columns() -> Iterator[tuple[str, str]]:
    """The family and the name of each column."""
    for dtype in ("float", "integer"):
        yield from (("arithmetic", f"{dtype} {operation}") for operation in _OPERATIONS)
    yield from (("arithmetic", name) for name in ("boolean operations", "selects"))
    for family, kind in (("vectors", "vectorised"), ("unrolling", "unrolled"), ("threads", "parallel")):
        yield from ((family, f"{kind} {what}") for what in ("loops", "iterations"))
        yield family, f"innermost {kind} extent"
        yield from ((family, f"{kind} position: {position}") for position in _POSITIONS)
    yield "GPU", "is GPU"
    yield from (("GPU", f"{axis} extent") for axis in _GPU)
    # Buffers come by falling number of cache lines accessed.
    for index in range(1, _NUM_BUFFERS + 1):
        yield from ((_buffer_family(what), f"buffer {index}: {what}") for what in _BUFFER)
    for index in range(1, _NUM_INTENSITIES + 1):
        share = 100 * index // _NUM_INTENSITIES
        yield "arithmetic intensity", f"arithmetic intensity at {share} % of the work"
    yield from (("allocations", name) for name in ("allocated bytes", "bytes allocated in all"))
    yield from (("allocations", f"iterations {place} the allocation") for place in ("around", "inside"))
    yield from (("loop nest", name) for name in ("iterations", "loops"))
    yield "unrolling", "auto-unroll limit"


def _buffer_family(what: str) -> str:
    if "reuse" in what:
        return "reuse of data"
    return "memory traffic" if "bytes" in what or "lines" in what else "kinds of access"


_FAMILY_AND_NAME = tuple(_store_columns())
STORE_COLUMNS = tuple(name for _, name in _FAMILY_AND_NAME)


def pooled_column_name(column: int) -> str:
    """What a column of `pool_rows` holds, 0 <= column < 336."""
    pool, store_column = divmod(column, N_FEATURES)
    if pool == _TILE:
        return f"tile: {TILE_COLUMNS[store_column]}"
    return f"{('largest', 'main loop nest')[pool]}: {STORE_COLUMNS[store_column]}"


def column_family(column: int) -> str:
    """What a column of `pool_rows` is about, such as "vectors": columns of a family go together."""
    pool, store_column = divmod(column, N_FEATURES)
    return "tile" if pool == _TILE else _FAMILY_AND_NAME[store_column][0]
