"""Softmax in lanes: the same numbers, from kernels in vectors, and only for rows that gain by it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core import kernels
from tests.core.relax_modules import module, ops, run
from tests.scheduler.in_process import replay as in_process_replay
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.graph_softmax import softmax_in_lanes
from tunewright.core.tvm_adapter.kernel import replay
from tunewright.core.tvm_adapter.row_tiling import row_tiling_sketches
from tunewright.core.tvm_adapter.target import host_target, vector_lanes
from tunewright.core.types import TargetSpec
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
AVX512 = TargetSpec("x86-64-v4", 1)


def softmax(shape: tuple[int, ...], axis: int = -1, dtype: str = "float32") -> tvm.IRModule:
    x = relax.Var("x", relax.TensorType(shape, dtype))
    return module([x], lambda builder: builder.emit(relax.op.nn.softmax(x, axis=axis)))


def truth(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def hard_rows(rows: int, columns: int) -> np.ndarray:
    """The largest number first, last or everywhere; far from zero on both sides; most of a row masked."""
    x = 5 * np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    x[0, -1], x[1, 0] = 40.0, 40.0
    x[2], x[3], x[4] = 3.0, x[3] - 5000.0, x[4] + 5000.0
    x[5, 1:] = -np.inf
    return x


@pytest.mark.parametrize("columns", [3, 64, 120, 121, 127, 197, 257, 1024])
def test_the_numbers_are_those_of_softmax(columns: int) -> None:
    x = hard_rows(9, columns)
    mod = softmax_in_lanes(softmax(x.shape), TARGET)
    assert ops(mod) == ["call_tir"]
    result = run(mod, [x])
    np.testing.assert_allclose(result, truth(x), rtol=2e-5, atol=1e-30)  # 40 is known to 4e-6
    np.testing.assert_allclose(result.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("columns", [64, 197])
def test_a_number_that_is_none_makes_its_row_nan(columns: int) -> None:
    x = hard_rows(6, columns)
    x[2, 1] = np.nan
    result = run(softmax_in_lanes(softmax(x.shape), TARGET), [x])
    assert np.isnan(result[2]).all() and not np.isnan(np.delete(result, 2, axis=0)).any()


def test_powers_are_known_to_two_units_in_the_last_place() -> None:
    """Over the whole range: the largest number of each row is 0, whose power is exactly 1."""
    x = np.zeros((1000, 96), np.float32)
    x[:, 1:] = -np.random.default_rng(5).uniform(0, 80, (1000, 95)).astype(np.float32)
    result = run(softmax_in_lanes(softmax(x.shape), TARGET), [x]).astype(np.float64)
    np.testing.assert_allclose(result / result[:, :1], np.exp(x.astype(np.float64)), rtol=4e-7)


def log_softmax(shape: tuple[int, ...], axis: int = -1, dtype: str = "float32") -> tvm.IRModule:
    x = relax.Var("x", relax.TensorType(shape, dtype))
    return module([x], lambda builder: builder.emit(relax.op.nn.log_softmax(x, axis=axis)))


@pytest.mark.parametrize("columns", [3, 64, 120, 127, 1024])
def test_the_numbers_are_those_of_log_softmax(columns: int) -> None:
    x = hard_rows(9, columns)
    mod = softmax_in_lanes(log_softmax(x.shape), TARGET)
    assert ops(mod) == ["call_tir"]
    shifted = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(run(mod, [x]), expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("columns", [127, 1024])
def test_a_log_softmax_runs_in_vectors(columns: int) -> None:
    mod = tvm.IRModule({"main": softmax_in_lanes(log_softmax((29, columns)), TARGET)["log_softmax"]})
    (sketch,) = row_tiling_sketches(mod, vector_lanes=vector_lanes(TARGET))
    scheduled = tvm.s_tir.Schedule(mod)
    sketch.apply_to_schedule(scheduled, remove_postproc=True)
    assert f"store <{vector_lanes(TARGET)} x float>" in kernels.llvm_ir(scheduled.mod, TARGET)


def test_the_numbers_of_a_row_are_computed_once_in_it() -> None:
    kernel = kernels.root_mean_square_norm()
    mod = tvm.IRModule({"main": kernel.func})
    (sketch,) = row_tiling_sketches(mod, vector_lanes=vector_lanes(TARGET))
    scheduled = tvm.s_tir.Schedule(mod)
    sketch.apply_to_schedule(scheduled, remove_postproc=True)
    code = kernels.llvm_ir(scheduled.mod, TARGET)
    assert "@llvm.sqrt.f32" in code and f"@llvm.sqrt.v{vector_lanes(TARGET)}f32" not in code
    arrays = [
        np.abs(array) for array in np.random.default_rng(4).standard_normal((2, 24, 96)).astype("float32")
    ]
    output = np.empty((24, 96), np.float32)
    tensors = [tvm.runtime.tensor(array) for array in (*arrays, output)]
    tvm.compile(scheduled.mod, target="llvm")["main"](*tensors)
    np.testing.assert_allclose(tensors[-1].numpy(), kernel.truth(arrays)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("mod", "target"),
    [
        (softmax((197, 4), axis=0), AVX512),
        (softmax((4, 197), dtype="float16"), AVX512),
        (softmax((197,)), AVX512),
        (log_softmax((197, 4), axis=0), AVX512),
        (log_softmax((4, 64), dtype="float16"), AVX512),
    ],
    ids=[
        *("another axis", "half precision", "a single row"),
        *("logarithm, another axis", "logarithm, half precision"),
    ],
)
def test_others_stay(mod: tvm.IRModule, target: TargetSpec) -> None:
    assert ops(softmax_in_lanes(mod, target))[0] in ("nn.softmax", "nn.log_softmax")


def attention(path: Path, shape: tuple[int, ...]) -> Path:
    """Scores, scaled and masked, and what their softmax weighs."""
    nodes = [
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "values"], ["y"]),
    ]
    values = (*shape[:-2], shape[-1], 24)
    inputs = {"scores": shape, "mask": shape[-2:], "values": values}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*shape[:-1], 24))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("columns", [127, 197])
def test_a_model_with_attention_runs_as_in_onnx_runtime(tmp_path: Path, columns: int) -> None:
    path = attention(tmp_path / "m.onnx", (2, 3, 29, columns))
    model = import_model(path, target=TARGET)
    (task,) = [t for t in partition(model).tasks if "softmax" in t.workload.name]
    mod = load_module(task.workload.mod_json)
    assert len(row_tiling_sketches(mod, vector_lanes=vector_lanes(TARGET))) == 1
    trace = default_trace(task.workload.mod_json, TARGET)
    check_trace(trace)
    code = kernels.llvm_ir(replay(task.workload.mod_json, trace), TARGET)
    assert f"fmul <{vector_lanes(TARGET)} x float>" in code and "fdiv <" not in code
    assert f"store <{vector_lanes(TARGET)} x" in code
    compile_model(model, tmp_path / "bundle", log=None, replay=in_process_replay)
    rng = np.random.default_rng(1)
    feed = {name: rng.standard_normal(spec.shape).astype(np.float32) for name, spec in model.inputs}
    feed["mask"] = np.where(rng.random(feed["mask"].shape) < 0.3, -1e9, 0.0).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feed)
    result = load(tmp_path / "bundle").run_named(feed)["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
