"""The names against features that TVM computes of a program whose loops are known."""

import numpy as np
import pytest

from tunewright.cost_model.feature_names import STORE_COLUMNS, column_family, pooled_column_name
from tunewright.cost_model.pooling import N_POOLED
from tunewright.cost_model.types import N_FEATURES


def test_every_column_has_a_name_of_its_own() -> None:
    names = [pooled_column_name(column) for column in range(N_POOLED)]
    assert len(set(names)) == N_POOLED
    assert names[0] == "largest: float multiply-adds"
    assert names[2 * N_FEATURES - 1] == "main loop nest: auto-unroll limit"
    assert names[-1] == "tile: loads per multiply-add"


@pytest.mark.tvm
@pytest.mark.slow
def test_tvm_agrees() -> None:
    from tunewright.core import tvm_adapter  # noqa: F401  # prepares the import of tvm
    import tvm  # isort: skip
    from tvm import te
    from tvm.s_tir import Schedule
    from tvm.s_tir import meta_schedule as ms

    a = te.placeholder((64, 96), dtype="float32", name="a")
    out = te.compute((64, 96), lambda i, j: a[i, j] * te.const(3.0, "float32"), name="out")
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([a, out])}))
    i, j = schedule.get_loops(schedule.get_sblock("out"))
    outer, inner = schedule.split(j, [None, 8])
    schedule.parallel(i)
    schedule.unroll(outer)
    schedule.vectorize(inner)
    context = ms.TuneContext(schedule.mod, target=tvm.target.Target({"kind": "llvm", "num-cores": 1}))
    extractor = ms.feature_extractor.PerStoreFeature()
    (rows,) = extractor.extract_from(context, [ms.MeasureCandidate(schedule, [])])
    (row,) = rows.numpy()
    value = dict(zip(STORE_COLUMNS, row, strict=True))
    expected = {
        "float multiplications": 64 * 96,
        "parallel iterations": 64,
        "unrolled iterations": 12,
        "innermost vectorised extent": 8,
        "buffer 1: bytes accessed": 4 * 64 * 96,
        "iterations": 64 * 96,
        "loops": 3,
    }
    found = {name: 2.0 ** value[name] - 1.0 for name in expected}
    assert found == pytest.approx(expected)
    assert value["vectorised position: mixed"] == value["buffer 1: is not reused"] == 1.0
    assert np.count_nonzero(row[STORE_COLUMNS.index("is GPU")]) == 0


def test_families_share_out_all_columns() -> None:
    found = {STORE_COLUMNS[column]: column_family(column) for column in range(N_FEATURES)}
    assert {column_family(column) for column in range(N_POOLED)} == {*found.values(), "tile"}
    expected = {
        "float multiply-adds": "arithmetic",
        "innermost vectorised extent": "vectors",
        "unrolled position: none": "unrolling",
        "auto-unroll limit": "unrolling",
        "parallel loops": "threads",
        "buffer 2: unique cache lines": "memory traffic",
        "buffer 5: cache lines per reuse": "reuse of data",
        "buffer 1: innermost stride": "kinds of access",
        "iterations inside the allocation": "allocations",
        "iterations": "loop nest",
    }
    assert {name: found[name] for name in expected} == expected
    # Both pools of a store column are of one family.
    assert all(column_family(column) == column_family(column + N_FEATURES) for column in range(N_FEATURES))
