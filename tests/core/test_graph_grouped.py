"""Grouped convolutions of single pixels are products with an axis of groups, and so is what follows them."""

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
from tests.core.relax_modules import module, ops, run, variables
from tests.scheduler.in_process import replay as in_process_replay
from tunewright.core.tvm_adapter.graph_grouped import groups_apart
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

Shape = tuple[int, ...]

GROUPS, DEPTH, COLUMNS = 4, 3, 5
IMAGE: Shape = (2, 6, 7, GROUPS * DEPTH)
WEIGHT: Shape = (1, 1, DEPTH, GROUPS * COLUMNS)
FILTERED: Shape = (*IMAGE[:3], GROUPS * COLUMNS)
BIAS: Shape = (1, 1, 1, GROUPS * COLUMNS)
PRODUCT = ["reshape", "call_tir", "call_tir"]  # the weights, a view of the image, the products


def convolved(image: relax.Expr, weight: relax.Expr, **attrs: Any) -> relax.Expr:
    attrs = {"groups": GROUPS, "data_layout": "NHWC", "kernel_layout": "HWIO"} | attrs
    return relax.op.nn.conv2d(image, weight, **attrs)


def made(compute: Callable[..., relax.Expr], *shapes: Shape) -> tvm.IRModule:
    """`compute` of (what emits, the parameters) gives the output."""
    inputs = variables(*shapes)
    return module(inputs, lambda builder: builder.emit(compute(builder.emit, *inputs)), num_input=1)


def truth(image: np.ndarray, weight: np.ndarray, num_groups: int = GROUPS) -> np.ndarray:
    """In float64, group by group."""
    images = np.split(image.astype(np.float64), num_groups, axis=3)
    weights = np.split(weight[0, 0].astype(np.float64), num_groups, axis=1)
    return np.concatenate([a @ b for a, b in zip(images, weights, strict=True)], axis=3)


def arrays(*shapes: Shape) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_computes(mod: tvm.IRModule, inputs: list[np.ndarray], expected: np.ndarray) -> None:
    np.testing.assert_allclose(run(mod, inputs), expected, rtol=1e-5, atol=1e-5)


def test_an_output_of_the_model() -> None:
    mod = groups_apart(made(lambda emit, x, w: convolved(x, w), IMAGE, WEIGHT))
    assert ops(mod) == [*PRODUCT, "call_tir"]
    image, weight = arrays(IMAGE, WEIGHT)
    assert_computes(mod, [image, weight], truth(image, weight))


def test_what_follows_keeps_the_groups_apart_until_somebody_reads_it() -> None:
    def block(emit: Any, x: Any, weight: Any, bias: Any, other: Any, gate: Any) -> Any:
        biased = emit(relax.op.add(emit(convolved(x, weight)), bias))
        joined = emit(relax.op.add(biased, other))
        scaled = emit(relax.op.multiply(emit(relax.op.nn.relu(joined)), relax.const(0.5, "float32")))
        return relax.op.mean(emit(relax.op.multiply(gate, scaled)), [1, 2])

    gate_shape = (*IMAGE[:3], 1)
    shapes = (IMAGE, WEIGHT, BIAS, FILTERED, gate_shape)
    mod = groups_apart(made(block, *shapes))
    names = ops(mod)
    assert names[-2:] == ["call_tir", "mean"]  # joined by a view, for the mean
    assert names.count("call_tir") == 5  # views of three images and of the result, and the products
    inputs = arrays(*shapes)
    image, weight, bias, other, gate = inputs
    filtered = truth(image, weight) + bias + other
    assert_computes(mod, inputs, (gate * 0.5 * np.maximum(filtered, 0.0)).mean(axis=(1, 2)))


def test_two_readers_of_one_convolution() -> None:
    def both(emit: Any, x: Any, weight: Any) -> Any:
        filtered = emit(convolved(x, weight))
        sums = emit(relax.op.sum(filtered, [3], keepdims=True))
        maxima = emit(relax.op.max(filtered, [3], keepdims=True))
        return relax.op.add(emit(relax.op.nn.relu(filtered)), emit(relax.op.subtract(sums, maxima)))

    mod = groups_apart(made(both, IMAGE, WEIGHT))
    assert ops(mod).count("sum") == 1
    image, weight = arrays(IMAGE, WEIGHT)
    filtered = truth(image, weight)
    sums, maxima = filtered.sum(axis=3, keepdims=True), filtered.max(axis=3, keepdims=True)
    assert_computes(mod, [image, weight], np.maximum(filtered, 0.0) + sums - maxima)


def test_branches_of_other_groups_are_added_joined() -> None:
    def branches(emit: Any, x: Any, first: Any, second: Any) -> Any:
        return relax.op.add(emit(convolved(x, first)), emit(convolved(x, second, groups=2)))

    second_shape = (1, 1, 2 * DEPTH, GROUPS * COLUMNS)
    mod = groups_apart(made(branches, IMAGE, WEIGHT, second_shape))
    assert ops(mod)[-1] == "add"
    image, first, second = arrays(IMAGE, WEIGHT, second_shape)
    assert_computes(mod, [image, first, second], truth(image, first) + truth(image, second, 2))


def test_one_behind_the_other_needs_no_view_between_them() -> None:
    def chain(emit: Any, x: Any, first: Any, second: Any) -> Any:
        return convolved(emit(relax.op.nn.relu(emit(convolved(x, first)))), second)

    second_shape = (1, 1, COLUMNS, GROUPS * 2)
    mod = groups_apart(made(chain, IMAGE, WEIGHT, second_shape))
    assert ops(mod).count("call_tir") == 4  # products, and views of the first image and the last
    image, first, second = arrays(IMAGE, WEIGHT, second_shape)
    assert_computes(mod, [image, first, second], truth(np.maximum(truth(image, first), 0.0), second))


@pytest.mark.parametrize(
    "mod",
    [
        made(lambda emit, x, w: convolved(x, w, groups=1), IMAGE, (1, 1, IMAGE[3], 8)),
        made(lambda emit, x, w: convolved(x, w, groups=12), IMAGE, (1, 1, 1, 24)),  # depthwise
        made(lambda emit, x, w: convolved(x, w, strides=(2, 2)), IMAGE, WEIGHT),
        made(lambda emit, x, w: convolved(x, w, padding=(1, 1)), IMAGE, WEIGHT),
        made(lambda emit, x, w: convolved(x, w), IMAGE, (3, 3, *WEIGHT[2:])),
        made(
            lambda emit, x, w: convolved(x, w, data_layout="NCHW", kernel_layout="OIHW"),
            (1, IMAGE[3], 6, 7),
            (WEIGHT[3], DEPTH, 1, 1),
        ),
        made(lambda emit, x, w: convolved(x, w, out_dtype="float64"), IMAGE, WEIGHT),
    ],
    ids=["one-group", "depthwise", "stride", "padding", "window", "channels-first", "type"],
)
def test_other_convolutions_stay(mod: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(groups_apart(mod), mod)


def test_a_shuffled_block_of_a_model(tmp_path: Path) -> None:
    """Its views are no tasks, and it computes what ONNX Runtime computes."""
    rng = np.random.default_rng(1)
    channels = 4 * 10

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(0.3 * rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], group=4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Reshape", ["r0", "split"], ["s0"]),
        helper.make_node("Transpose", ["s0"], ["t0"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t0", "joined"], ["j0"]),
        helper.make_node("Conv", ["j0", "w1", "b1"], ["d0"], group=channels, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d0", "w2", "b2"], ["c1"], group=4),
        helper.make_node("Add", ["c1", "x"], ["a0"]),
        helper.make_node("Relu", ["a0"], ["y"]),
    ]
    weights = [
        weight("w0", channels, channels // 4, 1, 1),
        weight("b0", channels),
        numpy_helper.from_array(np.array([1, 4, channels // 4, 9, 11]), "split"),
        numpy_helper.from_array(np.array([1, channels, 9, 11]), "joined"),
        weight("w1", channels, 1, 3, 3),
        weight("b1", channels),
        weight("w2", channels, channels // 4, 1, 1),
        weight("b2", channels),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, 9, 11))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, channels, 9, 11))
    graph = helper.make_graph(nodes, "block", [image], [output], weights)
    path = tmp_path / "block.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = import_model(path, target=host_target(2))
    names = [task.workload.name.split()[0] for task in partition(model).tasks]
    assert sum(name.startswith("grouped_conv2d_add") for name in names) == 2
    assert not any(name.startswith(("view", "reshape")) for name in names)
    compile_model(model, tmp_path / "out", log=None, replay=in_process_replay)
    x = rng.standard_normal((1, channels, 9, 11)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    computed = load(tmp_path / "out").run_named({"x": x})["y"]
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-4)
