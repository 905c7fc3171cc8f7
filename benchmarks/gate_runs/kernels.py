"""Twenty kernels whose work can be made larger by an exact share: their outermost extent is 20, 21 or 22.

The schedule is the default one of the smallest, with the outermost extent moved whole into the outermost
loop: default schedules of neighbouring extents may differ by more than what is injected.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunewright.core.types import Candidate, Origin, TargetSpec, TuningTask
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.kernel_choice import default_candidate
from tunewright.scheduler.partition import partition

# Outermost extents by the share of work that they add.
EXTENTS = {0.0: 20, 0.05: 21, 0.1: 22}


def make_kernels(name: str, target: TargetSpec) -> dict[float, tuple[TuningTask, Candidate]]:
    """The kernel by its additional work, all with the same schedule but for the outermost extent."""
    tasks = {effect: _make_task(name, target, effect) for effect in EXTENTS}
    trace = default_candidate(tasks[0.0]).trace_json
    return {
        effect: (task, Candidate(task.key, _with_extent(trace, EXTENTS[effect]), Origin.SEED))
        for effect, task in tasks.items()
    }


def _with_extent(trace_json: str, extent: int) -> str:
    """The trace with every tile of the outermost extent, no other one's is 20, in one piece."""
    instructions, decisions = json.loads(trace_json)
    for decision in decisions:
        value = decision[1]
        if isinstance(value, list) and math.prod(value) == EXTENTS[0.0]:
            decision[1] = [extent] + [1] * (len(value) - 1)
    return json.dumps([instructions, decisions])


def _make_task(name: str, target: TargetSpec, effect: float) -> TuningTask:
    """Imported as a user's model is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.onnx"
        onnx.save(KERNELS[name](EXTENTS[effect]), path)
        tasks = partition(import_model(path, target=target)).tasks
    # Layout changes around a convolution are tasks too.
    return max(tasks, key=lambda task: task.workload.flop)


def _model(
    node: onnx.NodeProto, inputs: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [node],
        "kernel",
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), key)
            for key, shape in weights.items()
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _batch_matmul(rows: int, inner: int, columns: int, extent: int) -> onnx.ModelProto:
    inputs = {"a": (extent, rows, inner), "b": (extent, inner, columns)}
    return _model(helper.make_node("MatMul", ["a", "b"], ["y"]), inputs, {})


def _conv(channels: int, size: int, filters: int, kernel: int, groups: int, extent: int) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4, group=groups)
    weights = {"w": (filters, channels // groups, kernel, kernel)}
    return _model(node, {"x": (extent, channels, size, size)}, weights)


def _softmax(rows: int, columns: int, extent: int) -> onnx.ModelProto:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    return _model(node, {"x": (extent, rows, columns)}, {})


def _max_pool(channels: int, size: int, extent: int) -> onnx.ModelProto:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2])
    return _model(node, {"x": (extent, channels, size, size)}, {})


def _sigmoid(rows: int, columns: int, extent: int) -> onnx.ModelProto:
    return _model(helper.make_node("Sigmoid", ["x"], ["y"]), {"x": (extent, rows, columns)}, {})


KERNELS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "batch-matmul-64x64x64": partial(_batch_matmul, 64, 64, 64),
    "batch-matmul-128x64x128": partial(_batch_matmul, 128, 64, 128),
    "batch-matmul-32x256x64": partial(_batch_matmul, 32, 256, 64),
    "batch-matmul-96x32x96": partial(_batch_matmul, 96, 32, 96),
    "batch-matmul-16x512x32": partial(_batch_matmul, 16, 512, 32),
    "batch-matmul-128x128x64": partial(_batch_matmul, 128, 128, 64),
    "conv-16x14-32-3x3": partial(_conv, 16, 14, 32, 3, 1),
    "conv-32x14-32-3x3": partial(_conv, 32, 14, 32, 3, 1),
    "conv-64x7-64-3x3": partial(_conv, 64, 7, 64, 3, 1),
    "conv-3x32-16-3x3": partial(_conv, 3, 32, 16, 3, 1),
    "conv-32x14-64-1x1": partial(_conv, 32, 14, 64, 1, 1),
    "conv-64x14-64-1x1": partial(_conv, 64, 14, 64, 1, 1),
    "conv-128x7-128-1x1": partial(_conv, 128, 7, 128, 1, 1),
    "depthwise-64x14-3x3": partial(_conv, 64, 14, 64, 3, 64),
    "depthwise-32x28-3x3": partial(_conv, 32, 28, 32, 3, 32),
    "depthwise-96x14-5x5": partial(_conv, 96, 14, 96, 5, 96),
    "softmax-64x128": partial(_softmax, 64, 128),
    "softmax-16x1024": partial(_softmax, 16, 1024),
    "max-pool-32x28": partial(_max_pool, 32, 28),
    "sigmoid-64x128": partial(_sigmoid, 64, 128),
}
