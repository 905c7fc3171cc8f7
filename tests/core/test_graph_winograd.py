"""Convolutions by minimal filtering compute what direct ones do, and only those that gain by it change."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core import kernels
from tests.core.relax_modules import module, ops, run, variables
from tests.scheduler.in_process import replay as in_process_replay
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.graph_winograd import use_winograd
from tunewright.core.tvm_adapter.kernel import replay, unscheduled
from tunewright.core.tvm_adapter.register_tiling import own_tiles
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.tvm_adapter.winograd_tiling import winograd_tiling_sketches
from tunewright.core.types import TuningTask
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model
from tunewright.workers.inputs import InputSet, make_inputs

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
CHANNELS, FILTERS = 16, 24


def convolution(
    data: tuple[int, ...] = (1, 12, 12, CHANNELS),
    kernel: tuple[int, ...] = (3, 3, CHANNELS, FILTERS),
    *,
    layouts: tuple[str, str] = ("NHWC", "HWIO"),
    **attrs: Any,
) -> tvm.IRModule:
    x, weight = variables(data, kernel)
    attrs = {"padding": (1, 1), "data_layout": layouts[0], "kernel_layout": layouts[1]} | attrs
    return module([x, weight], lambda b: b.emit(relax.op.nn.conv2d(x, weight, **attrs)), num_input=1)


def truth(image: np.ndarray, weight: np.ndarray, padding: tuple[int, int, int, int]) -> np.ndarray:
    top, left, bottom, right = padding
    padded = np.pad(image.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    rows, columns = padded.shape[1] - 2, padded.shape[2] - 2
    taps = [(y, x) for y in range(3) for x in range(3)]
    return sum(padded[:, y : y + rows, x : x + columns] @ weight[y, x].astype(np.float64) for y, x in taps)


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((1, 12, 12), (1, 1, 1, 1)),
        ((1, 13, 15), (1, 1, 1, 1)),  # half of the last tiles lies outside
        ((2, 14, 15), (0, 0, 0, 0)),
        ((3, 9, 16), (2, 0, 1, 1)),
    ],
)
def test_the_result_is_that_of_a_direct_convolution(
    shape: tuple[int, int, int], padding: tuple[int, int, int, int]
) -> None:
    mod = use_winograd(convolution((*shape, CHANNELS), padding=padding))
    assert ops(mod) == ["call_tir", "call_tir"]  # the weights' transform, and the kernel
    rng = np.random.default_rng(0)
    image = rng.standard_normal((*shape, CHANNELS)).astype(np.float32)
    weight = rng.standard_normal((3, 3, CHANNELS, FILTERS)).astype(np.float32)
    expected = truth(image, weight, padding)
    np.testing.assert_allclose(
        run(mod, [image, weight]), expected, rtol=1e-4, atol=1e-5 * abs(expected).max()
    )


@pytest.mark.parametrize(
    "mod",
    [
        convolution(data=(1, 24, 24, CHANNELS), strides=(2, 2)),
        convolution(dilation=(2, 2), padding=(2, 2)),
        convolution(data=(1, 12, 12, 2 * CHANNELS), groups=2),
        convolution(kernel=(5, 5, CHANNELS, FILTERS), padding=(2, 2)),
        convolution(kernel=(3, 3, CHANNELS, 8)),
        convolution(kernel=(3, 3, CHANNELS, 20)),  # no whole vectors
        convolution((1, 12, 12, 8), (3, 3, 8, FILTERS)),
        convolution(data=(1, 10, 12, CHANNELS)),
        convolution(data=(8, 12, 10, CHANNELS)),
        convolution((1, CHANNELS, 12, 12), (FILTERS, CHANNELS, 3, 3), layouts=("NCHW", "OIHW")),
    ],
    ids=[
        *("strided", "dilated", "grouped", "large", "few filters", "odd filters", "few channels"),
        *("few tiles", "narrow images", "channels first"),
    ],
)
def test_others_stay(mod: tvm.IRModule) -> None:
    assert ops(use_winograd(mod)) == ["nn.conv2d"]


def residual_net(path: Path, *, size: int, channels: int = CHANNELS) -> Path:
    """Two convolutions with bias, the second with a residual."""
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.standard_normal((channels, channels, 3, 3)) / 12 for n in range(2)}
    weights |= {f"b{n}": rng.standard_normal(channels) for n in range(2)}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "x"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    shape = (1, channels, size, size)
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tasks_of(path: Path) -> dict[str, TuningTask]:
    tasks = partition(import_model(path, target=TARGET)).tasks
    return {t.workload.name.partition(" ")[0]: t for t in tasks if "winograd" in t.workload.name}


def test_what_follows_is_fused(tmp_path: Path) -> None:
    tasks = tasks_of(residual_net(tmp_path / "m.onnx", size=12))
    assert set(tasks) == {"winograd_conv2d_add_relu", "winograd_conv2d_add_add_relu"}


@pytest.mark.parametrize(
    ("size", "channels", "num_sketches"),
    [
        (12, 16, 2),  # the filters are one vector: rows or elements
        (13, 16, 2),
        (12, 32, 3),  # each thread has a vector
        (15, 32, 2),  # too many rows for sharing out elements
        (13, 128, 4),  # several rows at once, for each half of the filters
        (28, 64, 3),  # half of the rows at once, for all filters
    ],
)
def test_schedules_are_right(tmp_path: Path, size: int, channels: int, num_sketches: int) -> None:
    path = residual_net(tmp_path / "m.onnx", size=size, channels=channels)
    task = tasks_of(path)["winograd_conv2d_add_add_relu"]
    workload = task.workload
    mod = load_module(workload.mod_json)
    sketches = winograd_tiling_sketches(mod, vector_lanes=16, num_threads=2)
    assert len(sketches) == num_sketches
    for sketch in sketches:
        assert [len(tile) for tile in own_tiles(sketch).values()] == [3, 4, 2]  # tiles, filters, channels
    alone = winograd_tiling_sketches(mod, vector_lanes=16, num_threads=1)
    assert len(alone) == (2 if channels >= 64 else 1)  # nobody to share filters or elements with
    inputs = make_inputs(workload.args, InputSet.RANDOM, seed=1)
    expected = kernels.output_of(unscheduled(workload.mod_json), TARGET, inputs)
    space = TaskSpace(workload.mod_json, TARGET, task.key)
    drawn = [applied for seed in range(4 * num_sketches) if (applied := space.sample(seed)) is not None]
    assert len({applied.program_key for applied in drawn}) > 1
    assert len({steps_of(applied.candidate.trace_json) for applied in drawn}) == num_sketches
    for trace in (*(a.candidate.trace_json for a in drawn), default_trace(workload.mod_json, TARGET)):
        check_trace(trace)
        scheduled = replay(workload.mod_json, trace)
        assert "T.parallel" in scheduled.script() and "T.unroll" in scheduled.script()
        output = kernels.output_of(scheduled, TARGET, inputs)
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "channels", "num_tiles", "num_others"),
    [(12, 512, 36, 3), (28, 64, 14, 2)],
    ids=["more weights than a cache holds: all rows", "few weights: a row"],
)
def test_the_default_does_as_many_rows_at_once_as_the_weights_ask_for(
    tmp_path: Path, size: int, channels: int, num_tiles: int, num_others: int
) -> None:
    path = residual_net(tmp_path / "m.onnx", size=size, channels=channels)
    mod = load_module(tasks_of(path)["winograd_conv2d_add_relu"].workload.mod_json)
    *others, default = winograd_tiling_sketches(mod, vector_lanes=16, num_threads=2)
    tiles, _, _ = own_tiles(default).values()
    assert len(others) == num_others and math.prod(tiles) == num_tiles


def steps_of(trace_json: str) -> tuple[str, ...]:
    """The kinds of a trace's instructions, which tell one sketch from another here."""
    return tuple(instruction[0] for instruction in json.loads(trace_json)[0])


def test_a_compiled_model_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    path = residual_net(tmp_path / "m.onnx", size=13)
    compile_model(import_model(path, target=TARGET), tmp_path / "out", log=None, replay=in_process_replay)
    x = np.random.default_rng(3).standard_normal((1, CHANNELS, 13, 13)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(
        load(tmp_path / "out").run_named({"x": x})["y"], expected, rtol=1e-4, atol=1e-4
    )


def test_other_computations_have_no_such_sketch() -> None:
    for kernel in (kernels.matmul_relu(), kernels.conv2d_channels_last(), kernels.conv2d_bias()):
        workload = canonical_workload(kernel.func, name="other")
        assert winograd_tiling_sketches(load_module(workload.mod_json), vector_lanes=16, num_threads=2) == []
