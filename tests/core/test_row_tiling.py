"""Computations by rows: every point of their space computes the same numbers, in vectors."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm import relax
from tvm.s_tir.schedule import Instruction, Trace
from tvm.topi import nn

from tests.core import kernels
from tests.core.kernels import Kernel
from tests.core.relax_modules import module
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.dot_tiling import own_sketches
from tunewright.core.tvm_adapter.graph_softmax import softmax_in_lanes
from tunewright.core.tvm_adapter.row_tiling import default_decisions, row_tiling_sketches
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target, vector_lanes
from tunewright.core.types import Origin, TaskKey

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
LANES = vector_lanes(TARGET)


def layer_norm(rows: int, columns: int) -> Kernel:
    """Mean and variance are one reduction with two results."""
    x = tvm.te.placeholder((rows, columns), name="x")
    gamma, beta = (tvm.te.placeholder((columns,), name=name) for name in ("gamma", "beta"))

    def truth(arrays: kernels.Arrays) -> list[np.ndarray[Any, Any]]:
        x, gamma, beta = (array.astype(np.float64) for array in arrays)
        centred = x - x.mean(axis=1, keepdims=True)
        return [centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5) * gamma + beta]

    return Kernel(tvm.te.create_prim_func([x, gamma, beta, nn.layer_norm(x, gamma, beta, [1], 1e-5)]), truth)


def softmax_in_lanes_of(rows: int, columns: int) -> Kernel:
    """As models have it where no vector divides a row."""
    x = relax.Var("x", relax.TensorType((rows, columns), "float32"))
    mod = softmax_in_lanes(module([x], lambda builder: builder.emit(relax.op.nn.softmax(x))), TARGET)
    return Kernel(mod["softmax"].with_attr("global_symbol", "main"), kernels.softmax(rows, columns).truth)


def of_rows(*shape: int, axes: tuple[int, ...], keepdims: bool = False, scale: float = 1.0) -> Kernel:
    """A sum of products of the same elements of two tensors, one number for each row."""
    x, y = (tvm.te.placeholder(shape, name=name) for name in "xy")
    result = tvm.topi.sum(x * y, axis=axes, keepdims=keepdims)
    if scale != 1.0:
        result = result * tvm.tirx.const(scale, "float32")

    def truth(arrays: kernels.Arrays) -> list[np.ndarray[Any, Any]]:
        x, y = (array.astype(np.float64) for array in arrays)
        return [scale * (x * y).sum(axis=axes, keepdims=keepdims)]

    return Kernel(tvm.te.create_prim_func([x, y, result]), truth)


def largest(rows: int, columns: int) -> Kernel:
    x = tvm.te.placeholder((rows, columns), name="x")
    return Kernel(
        tvm.te.create_prim_func([x, tvm.topi.max(x, axis=1)]), lambda arrays: [arrays[0].max(axis=1)]
    )


KERNELS = [
    softmax_in_lanes_of(6, 197),
    *(kernels.softmax(24, 8 * LANES), kernels.softmax(6, 6 * LANES), kernels.softmax(5, 12)),
    *(kernels.root_mean_square_norm(24, 96), layer_norm(10, 4 * LANES), layer_norm(7, 24)),
    *(of_rows(6, 4 * LANES, axes=(1,)), of_rows(2, 5, 7, 12, axes=(2, 3), keepdims=True, scale=0.5)),
    *(of_rows(3, 4, 6 * LANES, axes=(2,), scale=0.25), largest(12, 96)),
]
IDS = ["odd", "softmax", "six vectors", "short", "rms", "norm", "short norm", "sum", "image", "mean", "max"]


def points(sketch: Trace) -> list[dict[Instruction, Any]]:
    """Every combination of its decisions."""
    holes = [instruction for instruction in sketch.insts if instruction in sketch.decisions]
    values = []
    for hole in holes:
        if hole.kind.name == "SamplePerfectTile":
            rows = math.prod(int(factor) for factor in sketch.decisions[hole])
            values.append([(rows // n, n) for n in range(1, rows + 1) if rows % n == 0])
        else:
            values.append(list(range(len(hole.attrs[0]))))
    return [dict(zip(holes, point, strict=True)) for point in itertools.product(*values)]


@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_every_point_computes_the_same_numbers(kernel: Kernel) -> None:
    mod = tvm.IRModule({"main": kernel.func})
    (sketch,) = row_tiling_sketches(mod, vector_lanes=LANES)
    shapes = [tuple(int(n) for n in param.shape) for param in kernel.func.params]
    rng = np.random.default_rng(2)
    arrays = [np.abs(rng.standard_normal(shape)).astype(np.float32) for shape in shapes]
    (expected,) = kernel.truth(arrays[:-1])
    all_points = points(sketch)
    assert len(all_points) > 1
    for point in all_points:
        scheduled = tvm.s_tir.Schedule(mod)
        Trace(sketch.insts, point).apply_to_schedule(scheduled, remove_postproc=True)
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        tvm.compile(scheduled.mod, target="llvm")["main"](*tensors)
        np.testing.assert_allclose(tensors[-1].numpy(), expected, rtol=2e-5, atol=1e-6, err_msg=str(point))


@pytest.mark.parametrize(
    ("rows", "num_threads", "expected"),
    [(1536, 4, (24, 64)), (128, 2, (8, 16)), (197, 2, (197, 1)), (6, 8, (1, 6)), (96, 1, (4, 24))],
)
def test_the_default_has_chunks_for_all_threads(
    rows: int, num_threads: int, expected: tuple[int, int]
) -> None:
    mod = tvm.IRModule({"main": kernels.softmax(rows, 6 * LANES).func})
    (sketch,) = row_tiling_sketches(mod, vector_lanes=LANES)
    decisions = default_decisions(sketch, num_threads=num_threads, size=rows * 6 * LANES)
    named = {instruction.kind.name: value for instruction, value in decisions.items()}
    assert named == {"SamplePerfectTile": expected, "SampleCategorical": 1}  # 1 or 2 vectors: 4 do not divide


def test_the_search_draws_from_this_space_alone() -> None:
    workload = canonical_workload(kernels.softmax(24, 8 * LANES).func, name="softmax")
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("task"))
    found = [space.sample(seed) for seed in range(40)]
    applied = [one for one in found if one is not None]
    assert len(applied) == 40
    assert 10 < len({one.program_key for one in applied}) <= len(points_of(workload.mod_json))
    assert all('"RFactor"' in one.candidate.trace_json for one in applied)
    again = space.apply(applied[0].candidate.trace_json, Origin.RANDOM)
    assert again.program_key == applied[0].program_key


def points_of(mod_json: str) -> list[dict[Instruction, Any]]:
    (sketch,) = row_tiling_sketches(load_module(mod_json), vector_lanes=LANES)
    return points(sketch)


@pytest.mark.parametrize("kernel", KERNELS[-4:], ids=IDS[-4:])
def test_sums_of_rows_are_searched_here(kernel: Kernel) -> None:
    """And not as contractions, where neighbouring rows would be lanes that read far apart."""
    workload = canonical_workload(kernel.func, name="sums")
    assert own_sketches(load_module(workload.mod_json), TARGET) == []
    applied = [TaskSpace(workload.mod_json, TARGET, TaskKey("task")).sample(seed) for seed in range(3)]
    assert all(one is not None and '"RFactor"' in one.candidate.trace_json for one in applied)
    default = default_trace(workload.mod_json, TARGET)
    check_trace(default)
    assert '"RFactor"' in default


def test_what_rows_share_is_a_contraction() -> None:
    x, y = (tvm.te.placeholder(shape, name=name) for name, shape in (("x", (48, 64)), ("y", (32, 64))))
    transposed = tvm.te.create_prim_func([x, y, nn.dense(x, y)])
    step = tvm.te.reduce_axis((0, 64), name="step")
    v = tvm.te.placeholder((64,), name="v")
    product = tvm.te.compute((48,), lambda i: tvm.te.sum(x[i, step] * v[step], axis=step))
    columns = tvm.te.create_prim_func([x, tvm.topi.sum(x, axis=0)])
    for func in (transposed, tvm.te.create_prim_func([x, v, product]), columns):
        workload = canonical_workload(func, name="contraction")
        assert own_sketches(load_module(workload.mod_json), TARGET)
