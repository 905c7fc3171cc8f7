"""Joined tensors: the same numbers, copied in vectors, and a schedule only where there is one to be had."""

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm import te

from tests.core import kernels
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.copy_tiling import copy_tiling_sketches
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.kernel import build_kernel, replay
from tunewright.core.tvm_adapter.target import host_target, vector_lanes
from tunewright.core.types import Workload
from tunewright.workers.inputs import InputSet, make_inputs

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)


def joined(parts: tuple[int, ...], *, axis: int = 1, has_relu: bool = False) -> Workload:
    """Matrices of 9 rows side by side, or of 32 columns one below the other; 64-bit indices, as in models."""
    shapes = [(9, part) if axis == 1 else (part, 32) for part in parts]
    inputs = [te.placeholder(shape, name=f"x{n}") for n, shape in enumerate(shapes)]
    starts = np.cumsum((0, *parts)).tolist()

    def element(*index: tvm.tirx.Var) -> tvm.tirx.Expr:
        def of(number: int) -> tvm.tirx.Expr:
            return inputs[number][tuple(i - starts[number] if a == axis else i for a, i in enumerate(index))]

        value = of(0)
        for number in range(1, len(parts)):
            value = tvm.tirx.if_then_else(index[axis] >= starts[number], of(number), value)
        return value

    out = te.compute((9, starts[-1]) if axis == 1 else (starts[-1], 32), element, name="joined")
    if has_relu:
        source = out
        out = te.compute(
            source.shape, lambda *i: te.max(source[i], tvm.tirx.const(0.0, "float32")), name="relu"
        )
    func = te.create_prim_func([*inputs, out], index_dtype_override="int64")
    return canonical_workload(func, name="concatenate")


@pytest.mark.parametrize(
    ("parts", "has_relu"),
    [((32, 64), False), ((48, 16, 32, 16), False), ((56, 24), True), ((12, 20), False), ((16, 16, 5), False)],
)
def test_the_default_schedule_joins_the_parts(parts: tuple[int, ...], has_relu: bool) -> None:
    workload = joined(parts, has_relu=has_relu)
    trace = default_trace(workload.mod_json, TARGET)
    check_trace(trace)
    inputs = make_inputs(workload.args, InputSet.RANDOM, seed=1)
    bound = build_kernel(replay(workload.mod_json, trace), TARGET).bind(inputs)
    bound.poison()
    bound.run()
    expected = np.concatenate(inputs[: len(parts)], axis=1)
    np.testing.assert_array_equal(bound.outputs()[0], np.maximum(expected, 0) if has_relu else expected)


def test_no_vector_decides_where_it_comes_from() -> None:
    workload = joined((48, 16, 32))
    (sketch,) = copy_tiling_sketches(load_module(workload.mod_json), vector_lanes=16)
    assert [inst.kind.name for inst in sketch.insts].count("Vectorize") == 1
    code = kernels.llvm_ir(replay(workload.mod_json, default_trace(workload.mod_json, TARGET)), TARGET)
    assert f"store <{vector_lanes(TARGET)} x float>" in code
    assert "store float" not in code


@pytest.mark.parametrize(
    "workload",
    [
        joined((3, 5)),
        joined((4, 8), axis=0),
        canonical_workload(kernels.softmax().func, name="softmax"),
        canonical_workload(kernels.matmul_relu().func, name="matmul"),
        canonical_workload(kernels.two_outputs().func, name="two"),
        canonical_workload(kernels.integer_scale().func, name="scale"),
    ],
    ids=["narrow parts", "rows", "softmax", "product", "two outputs", "no parts"],
)
def test_others_have_no_such_sketch(workload: Workload) -> None:
    assert copy_tiling_sketches(load_module(workload.mod_json), vector_lanes=16) == []
