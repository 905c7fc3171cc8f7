"""Group and instance norms, channel by channel: as ONNX Runtime computes them, and without transposes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tunewright.scheduler.onnx_norms import by_channels

RNG = np.random.default_rng(6)
SHAPES = [(1, 12, 5, 7), (2, 12, 9), (2, 12, 3, 4, 5)]


def weight(name: str, size: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.uniform(0.5, 2.0, size).astype(np.float32), name)


def model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: tuple[int, ...],
    *,
    opset: int,
    inputs: tuple[str, ...] = ("x",),
) -> onnx.ModelProto:
    shapes = {name: list(shape) if name == "x" else [shape[1]] for name in inputs}
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def group_norm(shape: tuple[int, ...], groups: int, *, opset: int) -> onnx.ModelProto:
    size = groups if opset < 21 else shape[1]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("GroupNormalization", ["r", "s", "b"], ["n"], num_groups=groups, epsilon=0.01),
        helper.make_node("GroupNormalization", ["n", "s", "b"], ["y"], num_groups=groups),
    ]
    return model(nodes, [weight("s", size), weight("b", size)], shape, opset=opset)


def exported_norm(shape: tuple[int, ...], groups: int, *, is_read_twice: bool = False) -> onnx.ModelProto:
    """As PyTorch writes it: an instance norm of groups, behind it the channels' own factor and summand."""
    column = (shape[1], *[1] * (len(shape) - 2))
    sizes = {"groups": (0, groups, -1), "whole": shape}
    weights = [numpy_helper.from_array(np.array(size, np.int64), name) for name, size in sizes.items()]
    for name, value in (("s", 1), ("b", 0)):
        weights.append(numpy_helper.from_array(np.full(groups, value, np.float32), name))
    affine = [
        numpy_helper.from_array(RNG.standard_normal(column).astype(np.float32), name) for name in ("w", "c")
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "groups"], ["g"]),
        helper.make_node("InstanceNormalization", ["g", "s", "b"], ["n"]),
        helper.make_node("Reshape", ["n", "whole"], ["back"]),
        helper.make_node("Mul", ["back", "w"], ["scaled"]),
        helper.make_node("Add", ["scaled", "c"], ["shifted"]),
        *([helper.make_node("Reshape", ["n", "whole"], ["again"])] if is_read_twice else []),
        helper.make_node("Add", ["shifted", "again" if is_read_twice else "x"], ["y"]),
    ]
    return model(nodes, [*weights, *affine], shape, opset=17)


def instance_norm(shape: tuple[int, ...], *, opset: int) -> onnx.ModelProto:
    nodes = [helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)]
    return model(nodes, [weight("s", shape[1]), weight("b", shape[1])], shape, opset=opset)


def run(of: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(of.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": x})
    return np.asarray(result)


def operators(of: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in of.graph.node}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "kind", ["group 18", "one group", "group 21", "single channels", "exported", "instance 11", "instance 17"]
)
def test_a_norm_by_channels_is_what_onnx_runtime_computes(shape: tuple[int, ...], kind: str) -> None:
    original = {
        "group 18": lambda: group_norm(shape, 3, opset=18),
        "one group": lambda: group_norm(shape, 1, opset=18),
        "group 21": lambda: group_norm(shape, 4, opset=21),
        "single channels": lambda: group_norm(shape, 12, opset=21),
        "exported": lambda: exported_norm(shape, 4),
        "instance 11": lambda: instance_norm(shape, opset=11),
        "instance 17": lambda: instance_norm(shape, opset=17),
    }[kind]()
    written = onnx.ModelProto.FromString(original.SerializeToString())
    by_channels(written)
    onnx.checker.check_model(written, full_check=True)
    assert not operators(written) & {"GroupNormalization", "InstanceNormalization"}
    x = (3 + RNG.standard_normal(shape)).astype(np.float32)  # far from zero: a variance must not cancel
    np.testing.assert_allclose(run(written, x), run(original, x), rtol=1e-4, atol=2e-5)


def test_groups_are_found_without_reshapes_of_the_image() -> None:
    written = exported_norm((1, 12, 5, 7), 4)
    by_channels(written)
    reshaped = {node.input[0] for node in written.graph.node if node.op_type == "Reshape"}
    assert not reshaped & {"x", "g", "n"}


def test_an_instance_norm_that_others_read_keeps_its_shape() -> None:
    original = exported_norm((1, 12, 5, 7), 4, is_read_twice=True)
    written = onnx.ModelProto.FromString(original.SerializeToString())
    by_channels(written)
    assert "g" in {output for node in written.graph.node for output in node.output}
    x = RNG.standard_normal((1, 12, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(run(written, x), run(original, x), rtol=1e-4, atol=1e-5)


def test_weights_that_are_inputs_stay() -> None:
    nodes = [helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])]
    written = model(nodes, [], (1, 12, 5, 7), opset=17, inputs=("x", "s", "b"))
    by_channels(written)
    assert operators(written) == {"InstanceNormalization"}


@pytest.mark.tvm
@pytest.mark.slow
def test_a_compiled_group_norm_stays_channels_last(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    from tests.scheduler.in_process import replay
    from tunewright.core.tvm_adapter.graph import call_sites
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.bundle import load
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.stitch import compile_model

    shape = (1, 3, 12, 12)
    kernels = [
        numpy_helper.from_array(RNG.standard_normal(of).astype(np.float32), name)
        for name, of in (("k0", (8, 3, 3, 3)), ("k1", (8, 8, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("GroupNormalization", ["c0", "s", "b"], ["n"], num_groups=2),
        helper.make_node("Sigmoid", ["n"], ["gate"]),
        helper.make_node("Mul", ["n", "gate"], ["r"]),
        helper.make_node("Conv", ["r", "k1"], ["y"], pads=[1, 1, 1, 1]),
    ]
    path = tmp_path / "m.onnx"
    original = model(nodes, [*kernels, weight("s", 8), weight("b", 8)], shape, opset=21)
    onnx.save(original, path)
    imported = import_model(path, target=host_target(2))
    moved = [site.label for site in call_sites(imported.graph) if "transpose" in site.label]
    assert len(moved) <= 2  # of the model's input and output
    compile_model(imported, tmp_path / "bundle", log=None, replay=replay)
    x = RNG.standard_normal(shape).astype(np.float32)
    result = load(tmp_path / "bundle").run_named({"x": x})["y"]
    np.testing.assert_allclose(result, run(original, x), rtol=1e-4, atol=1e-4)
