"""Convolutions by minimal filtering compute what direct ones do, and only those that gain by it change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run, variables
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import canonical_workload
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.graph import call_sites
from tunewright.core.tvm_adapter.graph_winograd import use_winograd
from tunewright.core.tvm_adapter.kernel import build_kernel, replay, unscheduled
from tunewright.core.tvm_adapter.patch_tiling import patch_tiling_sketches
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.importer import import_model
from tunewright.workers.inputs import InputSet, make_inputs

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
CHANNELS, FILTERS = 96, 112


def convolution(
    data: tuple[int, ...] = (1, 8, 8, CHANNELS),
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
        ((1, 8, 8), (1, 1, 1, 1)),
        ((1, 7, 9), (1, 1, 1, 1)),  # half of the last tiles lies outside
        ((2, 10, 11), (0, 0, 0, 0)),
        ((3, 5, 8), (2, 0, 1, 1)),
    ],
)
def test_the_result_is_that_of_a_direct_convolution(
    shape: tuple[int, int, int], padding: tuple[int, int, int, int]
) -> None:
    mod = use_winograd(convolution((*shape, CHANNELS), padding=padding))
    assert "matmul" in ops(mod) and "nn.conv2d" not in ops(mod)
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
        convolution(strides=(2, 2)),
        convolution(dilation=(2, 2), padding=(2, 2)),
        convolution(kernel=(3, 3, CHANNELS // 2, FILTERS), groups=2),
        convolution(kernel=(5, 5, CHANNELS, FILTERS), padding=(2, 2)),
        convolution(kernel=(3, 3, CHANNELS, 64)),  # few filters
        convolution(data=(1, 6, 6, CHANNELS)),  # few tiles
        convolution(data=(1, 112, 112, CHANNELS)),  # transforms beyond the caches
        convolution((1, CHANNELS, 8, 8), (FILTERS, CHANNELS, 3, 3), layouts=("NCHW", "OIHW")),
    ],
    ids=[
        "strided",
        "dilated",
        "grouped",
        "large",
        "few filters",
        "few tiles",
        "large image",
        "channels first",
    ],
)
def test_others_stay(mod: tvm.IRModule) -> None:
    assert ops(use_winograd(mod)) == ["nn.conv2d"]


def two_convolutions(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((128, 128, 3, 3)).astype(np.float32) for _ in range(2)]
    nodes = []
    for number, name in enumerate(("x", "y")):
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], ["y" if number == 0 else "z"]))
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 128, 8, 8))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 128, 8, 8))],
        [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_an_activation_is_computed_with_its_pixels_and_not_again_for_each_tile(tmp_path: Path) -> None:
    sites = call_sites(import_model(two_convolutions(tmp_path / "m.onnx"), target=TARGET).graph)
    calls = {site.label: site.num_calls for site in sites if site.label != "transpose"}
    last = "reshape_winograd_output_relu_transpose"  # the model is channels first
    assert calls == {"winograd_input": 2, "matmul": 2, "reshape_winograd_output_relu": 1, last: 1}


def test_transforms_have_a_default_schedule_of_patches(tmp_path: Path) -> None:
    """What the elements of a patch share is unrolled side by side; results are those of the plain program."""
    sites = call_sites(import_model(two_convolutions(tmp_path / "m.onnx"), target=TARGET).graph)
    transforms = [site for site in sites if "winograd" in site.label and "transpose" not in site.label]
    assert len(transforms) == 2
    for site in transforms:
        assert len(patch_tiling_sketches(tvm.IRModule({"main": site.func}), vector_lanes=16)) == 1
        workload = canonical_workload(site.func, name=site.label)
        trace = default_trace(workload.mod_json, TARGET)
        check_trace(trace)
        scheduled = replay(workload.mod_json, trace)
        assert scheduled.script().count("T.unroll") == 2
        inputs = make_inputs(workload.args, InputSet.RANDOM, seed=1)
        outputs = []
        for program in (scheduled, unscheduled(workload.mod_json)):
            bound = build_kernel(program, TARGET).bind(inputs)
            bound.poison()
            bound.run()
            outputs.append(bound.outputs()[0])
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


def test_other_computations_are_no_patches() -> None:
    x = relax.Var("x", relax.TensorType((1, 8, 8, 32), "float32"))
    for compute in (
        relax.op.nn.relu,
        lambda e: relax.op.nn.softmax(e, 3),
        lambda e: relax.op.permute_dims(e),
    ):
        mod = relax.transform.LegalizeOps()(module([x], lambda b, c=compute: b.emit(c(x))))
        functions = [func for var, func in mod.functions.items() if var.name_hint != "main"]
        assert functions
        for func in functions:
            assert patch_tiling_sketches(tvm.IRModule({"main": func}), vector_lanes=16) == []
