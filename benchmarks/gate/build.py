"""Compile the kernels of the project's own performance gate, with the Tunewright that Python finds.

    python benchmarks/gate/build.py DIR [NAME ...]

Each kernel is an ONNX model of one operator, or of few that are fused, made here and compiled for one thread
with the default schedules: what users get before they tune. `make gate` runs this for both sides, base with
the code of the revision; so only the command line of Tunewright is used, which changes least.
"""

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


def _model(
    nodes: list[onnx.NodeProto], shape: Shape, weights: Mapping[str, np.ndarray], **more_inputs: Shape
) -> onnx.ModelProto:
    """From "x" (and more inputs) to "y"."""
    inputs = {"x": shape, **more_inputs}
    graph = helper.make_graph(
        nodes,
        "kernel",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, one) for name, one in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _weight(*shape: int) -> np.ndarray:
    """The same on both sides."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _dense(rows: int, inner: int, columns: int, activation: str | None = None) -> onnx.ModelProto:
    weights = {"w": _weight(inner, columns), "bias": _weight(columns)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "bias"], ["q"])]
    return _model([*nodes, helper.make_node(activation or "Identity", ["q"], ["y"])], (rows, inner), weights)


def _batch_matmul(batch: int, rows: int, inner: int, columns: int) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "other"], ["y"])]
    return _model(nodes, (batch, rows, inner), {}, other=(batch, inner, columns))


def _conv(
    channels: int, size: int, filters: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> onnx.ModelProto:
    """With a bias and a ReLU behind it."""
    weights = {"w": _weight(filters, channels // groups, kernel, kernel), "bias": _weight(filters)}
    attrs = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": groups}
    nodes = [
        helper.make_node("Conv", ["x", "w", "bias"], ["c"], **attrs),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    return _model(nodes, (1, channels, size, size), weights)


def _depthwise(channels: int, size: int, kernel: int, stride: int = 1) -> onnx.ModelProto:
    return _conv(channels, size, channels, kernel, stride, groups=channels)


def _one(
    op: str, shape: Shape, weights: Mapping[str, np.ndarray] | None = None, **attrs: object
) -> onnx.ModelProto:
    """One operator; weights are its further inputs."""
    return _model([helper.make_node(op, ["x", *(weights or {})], ["y"], **attrs)], shape, weights or {})


def _gelu(rows: int, columns: int) -> onnx.ModelProto:
    """x / 2 * (1 + erf(x / sqrt 2))."""
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["y"]),
    ]
    return _model(nodes, (rows, columns), {name: np.array(value) for name, value in constants.items()})


def _quantised(op: str, shape: Shape, weight: np.ndarray, **attrs: object) -> onnx.ModelProto:
    """A product of unsigned and signed bytes, as quantisers write it: between steps to and from bytes."""
    weights = {
        "w": np.clip(np.rint(weight * 40), -127, 127).astype(np.int8),
        "x_scale": np.array(0.02, np.float32),
        "w_scale": np.array(0.025, np.float32),
        "y_scale": np.array(0.3, np.float32),
        "middle": np.array(128, np.uint8),
        "zero": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "middle"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "x_scale", "middle"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "zero"], ["wf"]),
        helper.make_node(op, ["xf", "wf"], ["p"], **attrs),
        helper.make_node("QuantizeLinear", ["p", "y_scale", "middle"], ["p8"]),
        helper.make_node("DequantizeLinear", ["p8", "y_scale", "middle"], ["y"]),
    ]
    return _model(nodes, shape, weights)


# Names are those of the entries of gate.toml.
KERNELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "dense-256x256x256": partial(_dense, 256, 256, 256),
    "dense-128x768x768-relu": partial(_dense, 128, 768, 768, "Relu"),
    "dense-1x1024x1000": partial(_dense, 1, 1024, 1000),
    "dense-17x333x65": partial(_dense, 17, 333, 65),
    "batch-matmul-12x128x64x128": partial(_batch_matmul, 12, 128, 64, 128),
    "conv-64x28-64-3x3": partial(_conv, 64, 28, 64, 3),
    "conv-128x14-128-3x3": partial(_conv, 128, 14, 128, 3),
    "conv-64x28-128-3x3s2": partial(_conv, 64, 28, 128, 3, 2),
    "conv-128x28-64-1x1": partial(_conv, 128, 28, 64, 1),
    "conv-3x112-32-7x7s2": partial(_conv, 3, 112, 32, 7, 2),
    "grouped-64x28-64-3x3-by8": partial(_conv, 64, 28, 64, 3, groups=8),
    "depthwise-96x56-3x3": partial(_depthwise, 96, 56, 3),
    "depthwise-144x28-5x5s2": partial(_depthwise, 144, 28, 5, 2),
    "dense-int8-128x512x512": partial(_quantised, "MatMul", (128, 512), _weight(512, 512)),
    "conv-int8-64x28-64-3x3": partial(
        _quantised, "Conv", (1, 64, 28, 28), _weight(64, 64, 3, 3), pads=[1] * 4
    ),
    "softmax-256x512": partial(_one, "Softmax", (256, 512), axis=-1),
    "layernorm-256x768": partial(
        _one, "LayerNormalization", (256, 768), {"scale": _weight(768), "bias": _weight(768)}
    ),
    "gelu-256x768": partial(_gelu, 256, 768),
    "maxpool-64x56-3x3s2": partial(
        _one, "MaxPool", (1, 64, 56, 56), kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]
    ),
    "mean-256x1024": partial(_one, "ReduceMean", (256, 1024), axes=[1], keepdims=0),
}


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(KERNELS)
    with tempfile.TemporaryDirectory() as scratch:
        # Only the default schedules: whoever runs this may have a log.
        os.environ |= {"XDG_DATA_HOME": scratch, "TUNEWRIGHT_LOG": ""}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as jobs:
            problems = list(filter(None, jobs.map(partial(_build, out, Path(scratch)), names)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _build(out: Path, scratch: Path, name: str) -> str:
    """Why it cannot be compiled, or nothing."""
    from tunewright.cli.app import main

    model = scratch / f"{name}.onnx"
    onnx.save(KERNELS[name](), model)
    command = ["compile", str(model), "-o", str(out / name), "--threads", "1", "--schedules", "default"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(command)
        except SystemExit as exc:
            return f"{name}: {said.getvalue().strip()}" if exc.code else ""
    return ""


if __name__ == "__main__":
    sys.exit(main())
