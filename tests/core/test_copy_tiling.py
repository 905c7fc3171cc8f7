"""Joined and interleaved tensors: the same numbers, in vectors, and a schedule only where there is one."""

from collections.abc import Callable

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
from tunewright.core.tvm_adapter.kernel import replay
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target, vector_lanes
from tunewright.core.types import TaskKey, Workload
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
    inputs, output = run_by_default(joined(parts, has_relu=has_relu))
    expected = np.concatenate(inputs[: len(parts)], axis=1)
    np.testing.assert_array_equal(output, np.maximum(expected, 0) if has_relu else expected)


def test_a_part_may_be_rearranged_on_its_way() -> None:
    """As in a U-Net, where DepthToSpace stands before the join: the part's own place says nothing."""
    x, y = te.placeholder((8, 32), name="x"), te.placeholder((4, 64), name="y")

    def element(row: tvm.tirx.Var, column: tvm.tirx.Var) -> tvm.tirx.Expr:
        moved = y[row // 2, row % 2 * 32 + (column - 32)]
        return tvm.tirx.if_then_else(column >= 32, moved, x[row, column])

    out = te.compute((8, 64), element, name="joined")
    workload = canonical_workload(
        te.create_prim_func([x, y, out], index_dtype_override="int64"), name="concatenate"
    )
    (sketch,) = copy_tiling_sketches(load_module(workload.mod_json), vector_lanes=16)
    assert [inst.kind.name for inst in sketch.insts].count("Vectorize") == 1
    inputs, output = run_by_default(workload)
    np.testing.assert_array_equal(output, np.concatenate([inputs[0], inputs[1].reshape(8, 32)], axis=1))


def run_by_default(workload: Workload) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments, and what the default schedule makes of them."""
    trace = default_trace(workload.mod_json, TARGET)
    check_trace(trace)
    arguments = make_inputs(workload.args, InputSet.RANDOM, seed=1)
    return arguments, kernels.output_of(replay(workload.mod_json, trace), TARGET, arguments)


def interleaved(shape: tuple[int, ...], axes: tuple[int, ...]) -> Workload:
    """A tensor whose axes are permuted, the last two merged: a channel shuffle, where those change places."""
    x = te.placeholder(shape, name="x")
    permuted = [shape[axis] for axis in axes]
    *outer, first, second = permuted

    def element(*index: tvm.tirx.Var) -> tvm.tirx.Expr:
        *rest, last = index
        place = [*rest, last // second, last % second]
        return x[tuple(place[axes.index(axis)] for axis in range(len(shape)))]

    out = te.compute((*outer, first * second), element, name="shuffled")
    return canonical_workload(te.create_prim_func([x, out], index_dtype_override="int64"), name="transpose")


def channels_last(channels: int) -> Workload:
    x = te.placeholder((channels, 6, 32), name="x")
    out = te.compute((6, 32, channels), lambda y, x_, c: x[c, y, x_], name="transposed")
    return canonical_workload(te.create_prim_func([x, out], index_dtype_override="int64"), name="transpose")


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (interleaved((5, 4, 32), (0, 2, 1)), lambda x: x.transpose(0, 2, 1).reshape(5, 128)),
        (interleaved((2, 3, 3, 20), (1, 0, 3, 2)), lambda x: x.transpose(1, 0, 3, 2).reshape(3, 2, 60)),
        (channels_last(3), lambda x: x.transpose(1, 2, 0)),
    ],
    ids=["four", "three", "channels last"],
)
def test_the_default_schedule_interleaves(
    workload: Workload, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    (sketch,) = copy_tiling_sketches(load_module(workload.mod_json), vector_lanes=16)
    kinds = [inst.kind.name for inst in sketch.insts]
    assert "Unroll" in kinds and "Parallel" in kinds
    inputs, output = run_by_default(workload)
    np.testing.assert_array_equal(output, expected(inputs[0]))


def test_there_is_nothing_to_search_among_copies() -> None:
    space = TaskSpace(joined((32, 64)).mod_json, TARGET, TaskKey("task"))
    drawn = [space.sample(seed) for seed in range(4)]
    assert len({applied.program_key for applied in drawn if applied is not None}) == 1


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
        interleaved((5, 12, 32), (0, 2, 1)),
        interleaved((5, 4, 32), (0, 1, 2)),
        interleaved((5, 4, 6), (0, 2, 1)),
        channels_last(12),
    ],
    ids=[
        *("narrow parts", "rows", "softmax", "product", "two outputs", "no parts"),
        *("many streams", "a view", "short streams", "many channels"),
    ],
)
def test_others_have_no_such_sketch(workload: Workload) -> None:
    assert copy_tiling_sketches(load_module(workload.mod_json), vector_lanes=16) == []
