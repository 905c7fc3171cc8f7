"""The tile's numbers against those that are worked out by hand from the schedule's loops."""

import json
import math

import numpy as np
import pytest

from tests.search.nests import ssrsrs
from tests.workers.workloads import matmul_task
from tunewright.core.types import TargetSpec
from tunewright.cost_model.tiles import TILE_COLUMNS, tile_rows


def columns(trace_json: str) -> dict[str, float]:
    (row,) = tile_rows([trace_json])
    return dict(zip(TILE_COLUMNS, row.tolist(), strict=True))


def test_a_trace_without_a_tile_of_accumulators_has_zeros() -> None:
    of_tvm = ssrsrs([[4, 1, 4, 12], [4, 2, 2, 16]], [[32, 4]])
    rows = tile_rows(["[[],[]]", of_tvm, "no trace", '[[["SampleCategorical"]],[[0,"?"]]]'])
    assert rows.shape == (4, len(TILE_COLUMNS)) and rows.dtype == np.float32
    assert not rows.any()
    assert tile_rows([]).shape == (0, len(TILE_COLUMNS))


@pytest.mark.tvm
def test_the_numbers_of_a_products_tile() -> None:
    from tunewright.core.tvm_adapter.default_schedule import default_trace

    n = 96
    task = matmul_task(n)
    default = default_trace(task.workload.mod_json, TargetSpec("x86-64-v4", num_threads=1))
    instructions, decisions = json.loads(default)
    (rows, _), (vector, _), (depth, _) = decisions
    chunk_rows, tile_rows_, unrolled = 4, 6, 8
    tiles = [[rows, [4, 4, 6]], [vector, [3, 1, 2, 16]], [depth, [12, unrolled]]]
    trace = json.dumps([instructions, tiles], separators=(",", ":"), sort_keys=True)
    accumulators, vectors = tile_rows_ * 2, 2
    expected = {
        "accumulators": math.log2(accumulators),
        "vectors of a row": math.log2(vectors),
        "chunks of work": math.log2(4 * 3),
        "unrolled steps": math.log2(unrolled),
        "tiles of a chunk": math.log2(chunk_rows * 1),
        # What one column of tiles reads of the packed operand, and what a chunk reads of both.
        "bytes of a slab": math.log2(4 * n * vectors * 16),
        "bytes of a chunk": math.log2(4 * n * (chunk_rows * tile_rows_ + 1 * vectors * 16)),
        "loads per multiply-add": (tile_rows_ + vectors) / accumulators,
    }
    assert columns(trace) == pytest.approx(expected, rel=1e-6)
    assert columns(default) != pytest.approx(expected, rel=1e-3)
