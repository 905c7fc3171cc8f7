"""What scales the channels of an image is computed by itself; what belongs to a row stays with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.scheduler.in_process import replay
from tunewright.core.tvm_adapter.graph import call_sites
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

IMAGE = (1, 24, 80, 80)


def model(path: Path, nodes: list[NodeProto], shape: tuple[int, ...], **weights: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def squeeze_and_excite(path: Path, *, size: int = IMAGE[-1], batch: int = 1) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["image"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Conv", ["means", "v"], ["scale"]),
        helper.make_node("Sigmoid", ["scale"], ["gate"]),
        helper.make_node("Mul", ["image", "gate"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((24, 24, 3, 3)) / 10, "v": rng.standard_normal((24, 24, 1, 1))}
    stored = {name: value.astype(np.float32) for name, value in weights.items()}
    return model(path, nodes, (batch, IMAGE[1], size, size), **stored)


def instance_norm(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["image"], pads=[1, 1, 1, 1]),
        helper.make_node("InstanceNormalization", ["image", "g", "b"], ["even"]),
        helper.make_node("Relu", ["even"], ["y"]),
    ]
    weight = np.random.default_rng(0).standard_normal((24, 24, 3, 3)).astype(np.float32)
    ones = np.ones(24, np.float32)
    return model(path, nodes, IMAGE, w=weight, g=2 * ones, b=ones)


def test_a_small_image_is_scaled_at_once(tmp_path: Path) -> None:
    found = labels(squeeze_and_excite(tmp_path / "m.onnx", size=20))
    assert any("sigmoid_multiply" in label for label in found) and "multiply" not in found


def labels(path: Path) -> list[str]:
    return [site.label for site in call_sites(import_model(path, target=host_target(2)).graph)]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_gate_is_computed_once_and_not_for_every_pixel(tmp_path: Path, batch: int) -> None:
    found = labels(squeeze_and_excite(tmp_path / "m.onnx", batch=batch))
    assert "multiply" in found  # alone: with all pixels to share out
    assert not any("sigmoid_multiply" in label for label in found)


def test_means_and_deviations_stand_apart_from_what_they_even_out(tmp_path: Path) -> None:
    found = labels(instance_norm(tmp_path / "m.onnx"))
    (scaling,) = [label for label in found if "relu" in label]
    assert "multiply_add" in scaling
    assert not any(word in scaling for word in ("sum", "mean", "sqrt"))


def test_the_number_of_a_row_stays_with_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        helper.make_node("Sqrt", ["mean"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["y"]),
    ]
    path = model(tmp_path / "m.onnx", nodes, (1, 128, 256), axes=np.array([-1]))
    assert labels(path) == ["mean_tir_sqrt_divide"]


@pytest.mark.parametrize("make", [squeeze_and_excite, instance_norm])
def test_the_numbers_are_those_of_onnx_runtime(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "m.onnx")
    compile_model(import_model(path, target=host_target(2)), tmp_path / "b", log=None, replay=replay)
    feed = {"x": np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feed)
    np.testing.assert_allclose(load(tmp_path / "b").run_named(feed)["y"], expected, rtol=1e-4, atol=1e-4)
