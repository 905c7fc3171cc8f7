"""Quantised and bfloat16 models: which kernels they become, and that they compute what ONNX Runtime does."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.models import ModelBuilder, dense_net, run_onnxruntime
from tests.scheduler.in_process import record, replay, sampled_trace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.tvm_adapter.x86_intrinsics import supported_intrinsics
from tunewright.core.types import TargetSpec, TuningTask
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import ImportedModel, import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model
from tunewright.tuning_logs import TuningLog

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

Array = npt.NDArray[Any]
TARGET = host_target(num_threads=2)
IMAGE = {"image": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
ROWS = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Mapping[str, Array]) -> None:
        rng = np.random.default_rng(1)
        self._batches: Iterator[dict[str, Array]] = iter(
            [
                {k: rng.standard_normal(v.shape).astype(np.float32) for k, v in inputs.items()}
                for _ in range(4)
            ]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def image_net(path: Path, *, seed: int = 0) -> Path:
    """Convolutions of three channels, of a border and of one pixel, a residual addition, pooling, dense."""
    b = ModelBuilder(seed=seed)

    def conv(x: str, name: str, channels: int, filters: int, kernel: int, **attrs: Any) -> str:
        weight = b.weight(f"{name}_w", filters, channels, kernel, kernel)
        return b.node("Conv", x, weight, b.weight(f"{name}_b", filters), name=name, **attrs)

    x = b.node("Relu", conv("image", "stem", 3, 16, 3, pads=[1] * 4, strides=[2, 2]), name="stem_relu")
    y = conv(x, "block", 16, 16, 3, pads=[1] * 4)
    y = b.node("Relu", b.node("Add", y, x, name="residual"), name="relu")
    y = b.node("MaxPool", y, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = conv(y, "pixel", 16, 24, 1)
    y = b.node("Flatten", b.node("GlobalAveragePool", y, name="mean"), name="flatten")
    y = b.node("Gemm", y, b.weight("fc_w", 10, 24), b.weight("fc_b", 10), name="fc", transB=1)
    return b.save(path, inputs={"image": (TensorProto.FLOAT, [1, 3, 12, 12])}, outputs={"scores": y})


def quantized(
    source: Path, inputs: Mapping[str, Array], activations: QuantType, *, per_channel: bool
) -> Path:
    path = source.with_stem(f"{source.stem}_quantized")
    quantize_static(
        source,
        path,
        Calibration(inputs),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    return path


def task_names(model: ImportedModel) -> list[str]:
    return [task.workload.name.split()[0] for task in partition(model).tasks]


def byte_products(model: ImportedModel) -> list[TuningTask]:
    """Tasks whose operands are unsigned and signed bytes."""
    return [
        task
        for task in partition(model).tasks
        if [arg.dtype for arg in task.workload.args[:2]] == ["uint8", "int8"]
    ]


def steps_off(folder: Path, path: Path, inputs: Mapping[str, Array]) -> Array:
    """How many steps of quantisation the outputs differ from ONNX Runtime's by."""
    (expected,) = run_onnxruntime(path, inputs).values()
    (actual,) = load(folder).run_named(dict(inputs)).values()
    assert np.ptp(expected) > 0.01  # else nothing was checked
    scales = [t for t in onnx.load(path).graph.initializer if t.name in _output_scales(path)]
    (step,) = (float(onnx.numpy_helper.to_array(tensor)) for tensor in scales)
    return np.abs(actual - expected) / step


def _output_scales(path: Path) -> set[str]:
    graph = onnx.load(path).graph
    made_by = {output: node for node in graph.node for output in node.output}
    node = made_by[graph.output[0].name]
    while node.op_type != "DequantizeLinear":
        node = made_by[node.input[0]]
    return {node.input[1]}


needs_vnni = pytest.mark.skipif(
    not any(dot.right == "int8" for dot in supported_intrinsics(TARGET)), reason="no instruction for bytes"
)


@needs_vnni
def test_quantised_convolutions_compute_what_onnxruntime_does(tmp_path: Path) -> None:
    """Tuned once, with any weights: values of weights, scales and zero points are no part of a task.

    Both accumulate exactly, so outputs are equal but where a float before a rounding lies between two steps.
    One of those may turn others by a step behind it: nine of ten outputs are equal, and none is off by two.
    """
    sources = [image_net(tmp_path / f"net{seed}.onnx", seed=seed) for seed in (1, 2)]
    models = [quantized(source, IMAGE, QuantType.QUInt8, per_channel=False) for source in sources]
    with TuningLog.open("sqlite://") as log:
        imported = import_model(models[0], target=TARGET)
        tasks = byte_products(imported)
        assert len(tasks) == 4 and any(task.workload.name.startswith("conv2d_requantize ") for task in tasks)
        for index, task in enumerate(tasks):
            record(log, task, sampled_trace(task, packs_weights=True), 1e-5, trial_index=index)
        model = import_model(models[1], target=TARGET)
        report = compile_model(model, tmp_path / "out", log=log, replay=replay)
    assert report.num_from_log == len(tasks)
    steps = steps_off(tmp_path / "out", models[1], IMAGE)
    assert steps.max() < 1.5 and np.mean(steps < 0.5) >= 0.9


@needs_vnni
def test_signed_activations_become_unsigned_where_they_are_quantised(tmp_path: Path) -> None:
    path = quantized(image_net(tmp_path / "m.onnx"), IMAGE, QuantType.QInt8, per_channel=True)
    model = import_model(path, target=TARGET)
    assert len(byte_products(model)) == 4
    compile_model(model, tmp_path / "out", log=None, replay=replay)
    steps = steps_off(tmp_path / "out", path, IMAGE)
    assert steps.max() < 1.5 and np.mean(steps < 0.5) >= 0.9


@needs_vnni
def test_a_quantised_dense_net_without_tuning(tmp_path: Path) -> None:
    path = quantized(dense_net(tmp_path / "m.onnx"), ROWS, QuantType.QUInt8, per_channel=True)
    model = import_model(path, target=TARGET)
    assert task_names(model) == ["matmul_requantize_dequantize", "matmul_requantize", "quantize"]
    compile_model(model, tmp_path / "out", log=None, replay=replay)
    steps = steps_off(tmp_path / "out", path, ROWS)
    assert steps.max() < 1.5 and np.mean(steps < 0.5) >= 0.9


@needs_vnni
def test_a_dynamically_quantised_net_multiplies_bytes(tmp_path: Path) -> None:
    """Scales and zero points of activations are computed at run time, in float32 by both."""
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(dense_net(tmp_path / "m.onnx"), path, weight_type=QuantType.QInt8)
    model = import_model(path, target=TARGET)
    assert len(byte_products(model)) == 2
    compile_model(model, tmp_path / "out", log=None, replay=replay)
    (actual,) = load(tmp_path / "out").run_named(ROWS).values()
    np.testing.assert_allclose(actual, run_onnxruntime(path, ROWS)["y"], rtol=0.02, atol=0.02)


def test_a_target_without_the_instruction_computes_in_float(tmp_path: Path) -> None:
    path = quantized(dense_net(tmp_path / "m.onnx"), ROWS, QuantType.QInt8, per_channel=False)
    assert not byte_products(import_model(path, target=TargetSpec("haswell", num_threads=2)))


@needs_vnni
def test_weights_that_are_not_symmetric_stay_float(tmp_path: Path) -> None:
    path = quantized(dense_net(tmp_path / "m.onnx"), ROWS, QuantType.QUInt8, per_channel=False)
    proto = onnx.load(path)
    (zero,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w1_zero_point")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), zero.name))
    onnx.save(proto, path)
    assert len(byte_products(import_model(path, target=TARGET))) == 1


def test_bfloat16_is_summed_in_float32(tmp_path: Path) -> None:
    """ONNX Runtime has no such kernels: NumPy is the truth. A result is rounded to 8 bits four times."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (32, 16, 3, 3), "b1": (32,), "w2": (512, 48)}
    weights = {name: (0.2 * rng.standard_normal(s)).astype(ml_dtypes.bfloat16) for name, s in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["y"]),
    ]
    tensors = [
        helper.make_tensor(name, TensorProto.BFLOAT16, w.shape, w.tobytes(), raw=True)
        for name, w in weights.items()
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.BFLOAT16, shape)
        for name, shape in (("x", [1, 16, 8, 8]), ("y", [1, 48]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    compile_model(import_model(path, target=TARGET), tmp_path / "out", log=None, replay=replay)
    x = rng.standard_normal((1, 16, 8, 8)).astype(ml_dtypes.bfloat16)
    actual = load(tmp_path / "out").run_named({"x": x})["y"].astype(np.float64)

    wide = {name: array.astype(np.float64) for name, array in (*weights.items(), ("x", x))}
    image = np.pad(wide["x"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    hidden = np.einsum("nchwyx,ocyx->nohw", windows, wide["w1"]) + wide["b1"][:, None, None]
    hidden = np.maximum(hidden, 0).reshape(1, -1)
    error = np.abs(actual - hidden @ wide["w2"]) / (hidden @ np.abs(wide["w2"]))
    assert error.max() < 2.0**-8
