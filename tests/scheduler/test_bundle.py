import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import dense_net, embedding_net, run_onnxruntime
from tests.scheduler.in_process import replay
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TensorSpec
from tunewright.scheduler.bundle import load
from tunewright.scheduler.cpu_features import missing_features, required_features
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.kernel_choice import Variant
from tunewright.scheduler.stitch import CompileOptions, compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

X = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def dense_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_net(tmp_path_factory.mktemp("dense") / "dense.onnx")


@pytest.fixture(scope="module")
def dense(dense_onnx: Path) -> Path:
    model = import_model(dense_onnx, target=host_target(num_threads=2))
    folder = dense_onnx.parent / "compiled"
    compile_model(model, folder, log=None, replay=replay, options=CompileOptions(Variant.DEFAULT))
    return folder


@pytest.fixture
def copy(dense: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense, tmp_path / "copy"))


def test_one_input_and_one_output_need_no_names(dense: Path, dense_onnx: Path) -> None:
    model = load(dense)
    expected = run_onnxruntime(dense_onnx, {"x": X})["y"]
    assert model.inputs == {"x": TensorSpec((4, 16), "float32")}
    np.testing.assert_allclose(np.asarray(model.run(X)), expected, rtol=1e-4, atol=1e-6)
    named = model.run({"x": X})
    np.testing.assert_allclose(named["y"], expected, rtol=1e-4, atol=1e-6)


def test_names_of_several_inputs_and_outputs_are_the_models_own(tmp_path: Path) -> None:
    path = embedding_net(tmp_path / "m.onnx")
    model = import_model(path, target=host_target(num_threads=1))
    options = CompileOptions(Variant.DEFAULT)
    compile_model(model, tmp_path / "out", log=None, replay=replay, options=options)
    inputs: dict[str, npt.NDArray[Any]] = {
        "in/scale": np.array([1.5], dtype=np.float32),
        "0.ids": np.arange(10).reshape(2, 5) - 3,
    }
    loaded = load(tmp_path / "out")
    outputs, expected = loaded.run(inputs), run_onnxruntime(path, inputs)
    assert list(outputs) == ["scaled/out", "total"]
    for name, array in outputs.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="the model has 2 inputs"):
        loaded.run(inputs["0.ids"])


def test_outputs_belong_to_the_caller(tmp_path: Path) -> None:
    """Whatever memory they are in, a view of an input or a weight included."""
    nodes = [
        helper.make_node("Relu", ["x"], ["activated"]),
        helper.make_node("Reshape", ["x", "shape"], ["input"]),
        helper.make_node("Reshape", ["activated", "shape"], ["view"]),
        helper.make_node("Identity", ["constant"], ["weight"]),
        helper.make_node("Add", ["activated", "constant"], ["sum"]),
    ]
    names = {"activated": [6], "input": [2, 3], "view": [2, 3], "weight": [6], "sum": [6]}
    constant = np.arange(6, dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "views",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()],
        [numpy_helper.from_array(np.array([2, 3]), "shape"), numpy_helper.from_array(constant, "constant")],
    )
    path = tmp_path / "views.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    imported = import_model(path, target=host_target(num_threads=1))
    compile_model(
        imported, tmp_path / "out", log=None, replay=replay, options=CompileOptions(Variant.DEFAULT)
    )
    model = load(tmp_path / "out")
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(6).astype(np.float32) for _ in range(3)]
    kept = []
    for x in inputs:
        outputs = model.run_named({"x": x})
        kept.append({name: array.copy() for name, array in outputs.items()})
        for name, array in outputs.items():
            array[...] = np.nan  # must not reach the next run, nor another output
            outputs[name] = np.zeros(0)
            assert not any(np.isnan(other).any() for other in outputs.values())
    held = [model.run_named({"x": x}) for x in inputs]  # nor may a later run reach them
    for x, first, second in zip(inputs, kept, held, strict=True):
        expected = run_onnxruntime(path, {"x": x})
        for name in names:
            np.testing.assert_array_equal(first[name], expected[name])
            np.testing.assert_array_equal(second[name], expected[name])


def test_wrong_inputs_are_named(dense: Path) -> None:
    model = load(dense)
    with pytest.raises(ConfigError, match=r"input 'x' is float64\[4, 16\], the model takes float32\[4, 16\]"):
        model.run(X.astype(np.float64))
    with pytest.raises(ConfigError, match=r"input 'x' is float32\[2, 16\]"):
        model.run(X[:2])
    with pytest.raises(ConfigError, match="the model has no input 'z'; its inputs are x"):
        model.run({"x": X, "z": X})
    with pytest.raises(ConfigError, match="the model needs the input 'x'"):
        model.run({})


def test_any_thread_may_call_and_gets_the_bundles_thread_count(dense: Path) -> None:
    import tvm

    model = load(dense)
    seen: list[int] = []

    def call() -> None:
        model.run(X)
        seen.append(tvm.runtime.num_threads())

    call()
    worker = threading.Thread(target=call)
    worker.start()
    worker.join()
    assert seen == [2, 2] or len(os.sched_getaffinity(0)) < 2


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("manifest.json", b"{", "cannot be read"),
        ("manifest.json", b'{"format": "tunewright-bundle/9"}', "has format 'tunewright-bundle/9'"),
        ("manifest.json", b'{"format": "tunewright-bundle/1"}', "is damaged .*KeyError"),
        ("lib.so", b"no library", "is damaged"),
        ("params.bin", b"no weights", "is damaged"),
    ],
)
def test_a_damaged_bundle_is_refused(file: str, content: bytes, expected: str, copy: Path) -> None:
    (copy / file).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{expected}.*compile the model again"):
        load(copy)


@pytest.mark.parametrize("file", ["manifest.json", "lib.so", "params.bin"])
def test_a_missing_file_is_named(file: str, copy: Path) -> None:
    (copy / file).unlink()
    with pytest.raises(ConfigError, match=f"has no {file}"):
        load(copy)


def test_code_for_a_cpu_that_this_one_is_not_is_never_loaded(copy: Path) -> None:
    path = copy / "manifest.json"
    fields = json.loads(path.read_text())
    fields["cpu_features"] = ["avx1024"]
    fields["target"]["mcpu"] = "futurelake"
    path.write_text(json.dumps(fields))
    with pytest.raises(EnvironmentProblem, match="compiled for futurelake; this CPU lacks avx1024"):
        load(copy)


def test_cpu_features_are_compared_by_the_kernels_names(tmp_path: Path) -> None:
    assert required_features(["avx512vnni", "avx2", "prefer-256-bit"]) == ("avx2", "avx512_vnni")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert missing_features(["avx2", "avx512_vnni"], cpuinfo) == ("avx512_vnni",)
    assert missing_features(["avx2"], tmp_path / "none") == ()
