import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from runtimes.zoo import ZOO, input_specs, model_files, set_batch

from tunewright.core.types import TensorSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from random_weights import light_model


def small_net() -> onnx.ModelProto:
    """A convolution, a reshape to (1, -1) as old exporters write it, and a product."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "shape": np.array([1, 16], np.int64),
        "dense": rng.standard_normal((16, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["features"]),
        helper.make_node("Reshape", ["features", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(output)


def test_a_larger_batch_computes_the_same_for_every_example() -> None:
    model = small_net()
    x = np.random.default_rng(1).standard_normal((8, 3, 4, 4)).astype(np.float32)
    singly = np.concatenate([run(model.SerializeToString(), x[i : i + 1]) for i in range(8)])
    set_batch(model, 8)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model.SerializeToString(), x), singly, rtol=1e-5, atol=1e-5)


def test_every_light_model_ships_with_onnx() -> None:
    assert all(light_model(model.light).exists() for model in ZOO.values() if model.light)


@pytest.mark.slow
def test_a_models_file_is_made_once_and_has_random_weights(tmp_path: Path) -> None:
    model = ZOO["light_squeezenet"]
    files = model_files(model, batch=2, cache=tmp_path)
    made_at = files.onnx.stat().st_mtime_ns
    assert model_files(model, batch=2, cache=tmp_path) == files
    assert files.recipe is None and files.onnx.stat().st_mtime_ns == made_at
    assert input_specs(files.onnx) == [("data_0", TensorSpec((2, 3, 224, 224), "float32"))]
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    first, second = run(files.onnx.read_bytes(), x)
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()
