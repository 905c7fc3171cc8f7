"""The tasks: one-operator models, imported as a user's model is, so that all tuners get what a user tunes.

What crosses between processes is a file with the canonical module: every tuner schedules that very PrimFunc.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunewright.core.types import TargetSpec, TensorSpec, TuningTask, Workload
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition

# Only a CPU with 8-bit dot products has an int8 task worth tuning.
_VNNI_FLAGS = {"avx512_vnni", "avx_vnni", "asimddp"}
_INT8_TASK = "dense-int8"


def available_tasks() -> list[str]:
    """Names of the tasks that make sense on this machine."""
    return [*MODELS, *([_INT8_TASK] if _VNNI_FLAGS & _cpu_flags() else [])]


def make_task(name: str, target: TargetSpec) -> TuningTask:
    """Import the model of a task and take out the only one with arithmetic, no layout changes.

    The int8 product is written down directly.

    Raises:
        ValueError: the model has fallen apart into several tasks.
    """
    if name == _INT8_TASK:
        return TuningTask(_int8_dense(128, 768, 3072), target)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(MODELS[name](), path)
        imported = partition(import_model(path, target=target)).tasks
        tasks = [task for task in imported if task.workload.flop]
    if len(tasks) != 1:
        raise ValueError(f"{name} has {len(tasks)} tasks, expected 1: {[t.workload.name for t in tasks]}")
    return tasks[0]


def save_task(task: TuningTask, path: Path) -> None:
    path.write_text(json.dumps(asdict(task)), encoding="utf-8")


def load_task(path: Path) -> TuningTask:
    """Inverse of `save_task`."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    workload = fields["workload"]
    args = tuple(TensorSpec(tuple(arg["shape"]), arg["dtype"]) for arg in workload["args"])
    target = TargetSpec(**{**fields["target"], "mattr": tuple(fields["target"]["mattr"])})
    return TuningTask(Workload(**{**workload, "args": args}), target, fields["weight"])


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "task",
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _weight(*shape: int) -> np.ndarray:
    """Weights play no part in a task, but constants that are all equal might be folded."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _dense(rows: int, inner: int, columns: int) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return _model(nodes, {"x": (rows, inner)}, {"w": _weight(inner, columns)})


def _batch_matmul(batch: int, rows: int, columns: int, inner: int) -> onnx.ModelProto:
    inputs = {"a": (batch, rows, inner), "b": (batch, inner, columns)}
    return _model([helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, {})


def _int8_dense(rows: int, inner: int, columns: int) -> Workload:
    """uint8 x int8, accumulated in int32.

    Not from a model: the ONNX front end turns MatMulInteger into casts and a product of int32.
    """
    from tunewright.core.tvm_adapter.canonical import canonical_workload  # first: it hides torch from TVM

    from tvm import te  # isort: skip

    x = te.placeholder((rows, inner), "uint8")
    w = te.placeholder((inner, columns), "int8")
    k = te.reduce_axis((0, inner))
    y = te.compute(
        (rows, columns), lambda i, j: te.sum(x[i, k].astype("int32") * w[k, j].astype("int32"), axis=k)
    )
    func = te.create_prim_func([x, w, y]).with_attr("layout_free_buffers", [1])
    return canonical_workload(func, name=f"matmul_int8 {rows}x{inner} * {inner}x{columns}")


def _conv(
    channels: int, size: int, filters: int, kernel: int, stride: int, *, groups: int = 1, fused: bool = False
) -> onnx.ModelProto:
    """NCHW x OIHW, padded as ResNet and MobileNet do; `fused`: with a bias and a ReLU behind it."""
    weights = {"w": _weight(filters, channels // groups, kernel, kernel)}
    if fused:
        weights["bias"] = _weight(filters)
    conv = helper.make_node(
        "Conv",
        ["x", *weights],
        ["c" if fused else "y"],
        pads=[kernel // 2] * 4,
        strides=[stride] * 2,
        group=groups,
    )
    relu = [helper.make_node("Relu", ["c"], ["y"])] if fused else []
    return _model([conv, *relu], {"x": (1, channels, size, size)}, weights)


def _softmax(rows: int, columns: int) -> onnx.ModelProto:
    return _model([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], {"x": (rows, columns)}, {})


# The convolutions: ResNet-18's distinct ones at batch 1, in the network's order.
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "matmul-512": partial(_dense, 512, 512, 512),
    "dense-128x768x3072": partial(_dense, 128, 768, 3072),
    "batch-matmul-12x128x128x64": partial(_batch_matmul, 12, 128, 128, 64),
    "conv-3x224-64-7x7s2": partial(_conv, 3, 224, 64, 7, 2),
    "conv-64x56-64-3x3": partial(_conv, 64, 56, 64, 3, 1),
    "conv-64x56-128-3x3s2": partial(_conv, 64, 56, 128, 3, 2),
    "conv-64x56-128-1x1s2": partial(_conv, 64, 56, 128, 1, 2),
    "conv-128x28-128-3x3": partial(_conv, 128, 28, 128, 3, 1),
    "conv-128x28-256-3x3s2": partial(_conv, 128, 28, 256, 3, 2),
    "conv-128x28-256-1x1s2": partial(_conv, 128, 28, 256, 1, 2),
    "conv-256x14-256-3x3": partial(_conv, 256, 14, 256, 3, 1),
    "conv-256x14-512-3x3s2": partial(_conv, 256, 14, 512, 3, 2),
    "conv-256x14-512-1x1s2": partial(_conv, 256, 14, 512, 1, 2),
    "conv-512x7-512-3x3": partial(_conv, 512, 7, 512, 3, 1),
    "depthwise-384x14-3x3": partial(_conv, 384, 14, 384, 3, 1, groups=384),
    "conv-bias-relu-64x56-64-3x3": partial(_conv, 64, 56, 64, 3, 1, fused=True),
    "softmax-128x1024": partial(_softmax, 128, 1024),
}
