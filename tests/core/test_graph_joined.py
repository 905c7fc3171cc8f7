"""Joined tensors whose parts are read in place: the results stay, and so does what somebody else needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.kernels import output_of
from tests.core.relax_modules import module, ops, run, variables
from tests.scheduler.in_process import replay as in_process_replay
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.dot_tiling import own_sketches
from tunewright.core.tvm_adapter.graph_joined import read_in_place
from tunewright.core.tvm_adapter.kernel import replay, unscheduled
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TuningTask
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model
from tunewright.workers.inputs import InputSet, make_inputs

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
Compute = Callable[[relax.BlockBuilder, list[relax.Var]], relax.Expr]

SIZE = 12
# Two images, weights of a product and of a 3 x 3 convolution for what is joined of them.
SHAPES = [(1, SIZE, SIZE, 8), (1, SIZE, SIZE, 24), (32, 16), (3, 3, 32, 16)]


def made(compute: Compute, shapes: list[tuple[int, ...]] = SHAPES) -> tvm.IRModule:
    xs = variables(*shapes)
    return module(xs, lambda builder: compute(builder, xs), num_input=2)


def convolution(image: relax.Expr, weight: relax.Expr, **attrs: Any) -> relax.Call:
    attrs = {"padding": (1, 1), "data_layout": "NHWC", "kernel_layout": "HWIO"} | attrs
    return relax.op.nn.conv2d(image, weight, **attrs)


def product(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    return relax.op.matmul(builder.emit(relax.op.concat([xs[0], xs[1]], axis=3)), xs[2])


def both_readers(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[1], xs[0]], axis=-1))
    first = builder.emit(relax.op.matmul(joined, xs[2]))
    return relax.op.add(first, builder.emit(convolution(joined, xs[3])))


def pooled(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[0], xs[1]], axis=3))
    pool = builder.emit(relax.op.nn.max_pool2d(joined, (3, 3), (2, 2), (1, 1), layout="NHWC"))
    return relax.op.matmul(pool, xs[2])


@pytest.mark.parametrize("compute", [product, both_readers, pooled])
def test_parts_are_read_in_place(compute: Compute) -> None:
    mod = made(compute)
    changed = read_in_place(mod, TARGET)
    assert "concat" not in ops(changed) and "matmul" not in ops(changed)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]
    np.testing.assert_allclose(run(changed, arrays), run(mod, arrays), rtol=1e-4, atol=1e-4)


def test_the_parts_come_in_their_order() -> None:
    shapes = [(1, SIZE, SIZE, 8), (1, SIZE, SIZE, 16), (32, 16)]

    def three(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
        return relax.op.matmul(builder.emit(relax.op.concat([xs[0], xs[1], xs[0]], axis=3)), xs[2])

    rng = np.random.default_rng(0)
    a, b, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    expected = np.concatenate([a, b, a], axis=3).astype(np.float64) @ weight
    changed = read_in_place(made(three, shapes), TARGET)
    assert ops(changed) == ["call_tir"]
    np.testing.assert_allclose(run(changed, [a, b, weight]), expected, rtol=1e-4, atol=1e-4)


def _also_activated(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[0], xs[1]], axis=3))
    first = builder.emit(relax.op.matmul(joined, xs[2]))
    second = builder.emit(relax.op.matmul(builder.emit(relax.op.nn.relu(joined)), xs[2]))
    return relax.op.add(first, second)


def _joined_below(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[0], xs[0]], axis=1))
    return relax.op.matmul(joined, builder.emit(relax.op.strided_slice(xs[2], [0], [0], [8])))


def _strided(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[0], xs[1]], axis=3))
    return convolution(joined, xs[3], strides=(2, 2))


def _times_itself(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    joined = builder.emit(relax.op.concat([xs[0], xs[1]], axis=3))
    return relax.op.matmul(joined, builder.emit(relax.op.permute_dims(joined, [0, 1, 3, 2])))


def _of_many(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    return relax.op.matmul(builder.emit(relax.op.concat([xs[0]] * 5, axis=3)), xs[2])


@pytest.mark.parametrize(
    ("compute", "shapes"),
    [
        (_also_activated, SHAPES),
        (_joined_below, SHAPES),
        (_strided, SHAPES),
        (_times_itself, SHAPES),
        (_of_many, [SHAPES[0], SHAPES[1], (40, 16)]),
        (product, [(1, SIZE, SIZE, 9), (1, SIZE, SIZE, 23), (32, 16)]),
        (product, [*SHAPES[:2], (32, 20)]),
        (product, [(1, 17, 17, 8), (1, 17, 17, 24), (32, 16)]),
    ],
    ids=[
        *("another reader", "rows joined", "no Winograd", "both operands", "too many parts"),
        *("no whole vectors", "columns to be padded", "rows to be padded"),
    ],
)
def test_what_needs_the_copy_keeps_it(compute: Compute, shapes: list[tuple[int, ...]]) -> None:
    mod = made(compute, shapes)
    tvm.ir.assert_structural_equal(read_in_place(mod, TARGET), mod)


def test_an_output_is_a_tensor() -> None:
    xs = variables(*SHAPES)
    builder = relax.BlockBuilder()
    with builder.function("main", xs, attrs={"num_input": 2}):
        with builder.dataflow():
            joined = builder.emit_output(relax.op.concat([xs[0], xs[1]], axis=3))
            out = builder.emit_output(relax.op.matmul(joined, xs[2]))
        builder.emit_func_output(relax.Tuple([joined, out]))
    mod = builder.get()
    tvm.ir.assert_structural_equal(read_in_place(mod, TARGET), mod)


def fire_net(path: Path) -> Path:
    """Two branches joined for a product, and again for a pool before a 3 x 3 convolution."""
    rng = np.random.default_rng(0)
    shapes = {"a": (16, 16, 1, 1), "b": (32, 16, 3, 3), "c": (16, 48, 1, 1), "d": (32, 48, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["left"]),
        helper.make_node("Conv", ["x", "b"], ["right"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["left"], ["left+"]),
        helper.make_node("Relu", ["right"], ["right+"]),
        helper.make_node("Concat", ["left+", "right+"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "c"], ["squeezed"]),
        helper.make_node("Relu", ["squeezed"], ["squeezed+"]),
        helper.make_node("Concat", ["squeezed+", "right+"], ["again"], axis=1),
        helper.make_node("MaxPool", ["again"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "d"], ["last"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fire",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16, 24, 24))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 32, 12, 12))],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 8, name)
            for name, shape in shapes.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_compiled_model_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    path = fire_net(tmp_path / "m.onnx")
    imported = import_model(path, target=TARGET)
    assert not [t for t in partition(imported).tasks if "concat" in t.workload.name]
    compile_model(imported, tmp_path / "out", log=None, replay=in_process_replay)
    x = np.random.default_rng(3).standard_normal((1, 16, 24, 24)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(
        load(tmp_path / "out").run_named({"x": x})["y"], expected, rtol=1e-4, atol=1e-4
    )


def joined_tasks(path: Path) -> list[TuningTask]:
    """Those that read two images."""
    tasks = partition(import_model(fire_net(path), target=TARGET)).tasks
    return [t for t in tasks if sum(len(arg.shape) == 4 and arg.shape[1] > 4 for arg in t.workload.args) == 3]


def test_their_schedules_are_right(tmp_path: Path) -> None:
    tasks = joined_tasks(tmp_path / "m.onnx")
    names = sorted(t.workload.name.split("_")[:2] for t in tasks)
    assert names == [["joined", "matmul"], ["joined", "winograd"]]
    for task in tasks:
        workload = task.workload
        assert own_sketches(load_module(workload.mod_json), TARGET)
        inputs = make_inputs(workload.args, InputSet.RANDOM, seed=1)
        expected = output_of(unscheduled(workload.mod_json), TARGET, inputs)
        space = TaskSpace(workload.mod_json, TARGET, task.key)
        drawn = [applied for seed in range(6) if (applied := space.sample(seed)) is not None]
        assert drawn
        for trace in (*(a.candidate.trace_json for a in drawn), default_trace(workload.mod_json, TARGET)):
            check_trace(trace)
            assert "pragma_loop_partition_hint" in trace
            output = output_of(replay(workload.mod_json, trace), TARGET, inputs)
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)
