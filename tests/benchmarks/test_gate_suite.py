"""The project's own gate compares what its script builds, and that computes what ONNX Runtime does."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import run_onnxruntime
from tunewright.gate.suite import read_suite
from tunewright.scheduler.bundle import load

FOLDER = Path(__file__).parents[2] / "benchmarks/gate"


@pytest.fixture(scope="module")
def kernels() -> Mapping[str, Callable[[], onnx.ModelProto]]:
    # By its path: another module may have the name.
    spec = importlib.util.spec_from_file_location("gate_build", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Mapping[str, Callable[[], onnx.ModelProto]] = module.KERNELS
    return found


def inputs_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {one.name: [d.dim_value for d in one.type.tensor_type.shape.dim] for one in model.graph.input}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_suite_names_what_the_script_makes(kernels: Mapping[str, object]) -> None:
    suite = read_suite(FOLDER / "gate.toml")
    assert [entry.name for entry in suite.models] == list(kernels)
    assert all(entry.head.resolve().parent == FOLDER.parents[1] / "build/gate" for entry in suite.models)
    assert suite.build is not None and "build.py" in suite.build


@pytest.mark.slow
def test_models_run_and_their_outputs_are_not_constant(
    kernels: Mapping[str, Callable[[], onnx.ModelProto]], tmp_path: Path
) -> None:
    for make in kernels.values():
        onnx.save(make(), tmp_path / "kernel.onnx")
        (output,) = run_onnxruntime(tmp_path / "kernel.onnx", inputs_of(make())).values()
        assert np.isfinite(output).all() and len(np.unique(output)) > 20


@pytest.mark.tvm
@pytest.mark.slow
def test_the_script_compiles_with_default_schedules(
    kernels: Mapping[str, Callable[[], onnx.ModelProto]], tmp_path: Path
) -> None:
    name = "dense-17x333x65"
    command = [sys.executable, str(FOLDER / "build.py"), str(tmp_path), name]
    subprocess.run(command, check=True, timeout=300)
    compiled = load(tmp_path / name)
    assert {kernel.source for kernel in compiled.manifest.kernels} == {"default"}
    onnx.save(kernels[name](), tmp_path / "kernel.onnx")
    inputs = inputs_of(kernels[name]())
    (expected,) = run_onnxruntime(tmp_path / "kernel.onnx", inputs).values()
    (actual,) = compiled.run_named(inputs).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)
