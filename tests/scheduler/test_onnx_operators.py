"""Models of one operator: imported, compiled untuned, and compared with ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
from onnx import helper, numpy_helper

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.scheduler.in_process import replay
from tunewright.core.errors import ModelImportError
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

RNG = np.random.default_rng(3)
OPSET, IR_VERSION = 23, 11  # the first with Attention
ROWS, IMAGE, TOKENS = (5, 33), (1, 12, 9, 11), (2, 7, 24)
WINDOW: Mapping[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def sizes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# Operator, inputs, weights behind them, attributes.
Case = tuple[str, Sequence[np.ndarray], Sequence[np.ndarray], Mapping[str, Any]]
GROUPS: dict[str, list[Case]] = {
    "of several": [
        *((op, [numbers(*ROWS), numbers(*ROWS)], [], {}) for op in ("Max", "Min", "Mean", "Sum", "Greater")),
        ("Max", [numbers(*IMAGE), numbers(12, 1, 1), numbers(11)], [], {}),
        ("Where", [numbers(*ROWS) > 0, numbers(*ROWS), numbers(*ROWS)], [], {}),
        ("Pow", [np.abs(numbers(*ROWS)) + 0.1, numbers(33)], [], {}),
        ("Pow", [numbers(*ROWS)], [np.array(3, np.int64)], {}),
        ("Clip", [numbers(*ROWS), np.float32(-0.5), np.float32(0.5)], [], {}),
        ("Add", [np.float32(2.0), np.float32(0.5)], [], {}),
    ],
    "of one": [
        *(
            (op, [np.abs(numbers(*ROWS)) + 0.1], [], {})
            for op in ("Log", "Sigmoid", "Softplus", "Mish", "Erf")
        ),
        ("Hardmax", [numbers(*ROWS)], [], {}),
        ("Softmax", [numbers(*TOKENS)], [], {"axis": 1}),
        ("LogSoftmax", [numbers(*TOKENS)], [], {"axis": 1}),
        ("LogSoftmax", [numbers(*TOKENS)], [], {"axis": 2}),
        ("CumSum", [numbers(*ROWS)], [np.array(1, np.int64)], {}),
    ],
    "reduced": [
        *((op, [numbers(*TOKENS)], [], {"axis": axis}) for op in ("ArgMax", "ArgMin") for axis in (0, 1, 2)),
        ("ArgMax", [numbers(*IMAGE)], [], {"axis": 1, "keepdims": 0}),
        ("ReduceL2", [numbers(*TOKENS)], [sizes(1)], {}),
        ("ReduceLogSumExp", [numbers(*TOKENS)], [sizes(2)], {}),
        ("ReduceMean", [numbers(*IMAGE)], [sizes(2, 3)], {}),
        ("LayerNormalization", [numbers(*TOKENS)], [numbers(24), numbers(24)], {}),
    ],
    "images": [
        ("Conv", [numbers(*IMAGE)], [numbers(16, 12, 3, 3)], {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        (
            "ConvTranspose",
            [numbers(*IMAGE)],
            [numbers(12, 6, 4, 4)],
            {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        ),
        ("InstanceNormalization", [numbers(*IMAGE)], [numbers(12), numbers(12)], {}),
        ("LRN", [numbers(*IMAGE)], [], {"size": 3}),
        ("MaxPool", [numbers(*IMAGE)], [], WINDOW),
        ("AveragePool", [numbers(*IMAGE)], [], WINDOW),
        ("Resize", [numbers(*IMAGE)], [numbers(0), np.float32([1, 1, 2, 2])], {"mode": "nearest"}),
        ("Resize", [numbers(*IMAGE)], [numbers(0), np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    ],
    "transposed convolutions": [
        ("ConvTranspose", [numbers(*IMAGE)], [numbers(12, 6, kernel, kernel), numbers(6)], attributes)
        for kernel, attributes in (
            (4, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
            (3, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
            (3, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),  # the phases are longer than the output
            (3, {"strides": [2, 2], "pads": [0, 1, 0, 0], "output_padding": [0, 1]}),
            (2, {"strides": [2, 2]}),
            (2, {"strides": [3, 3]}),  # some outputs meet no input
            (5, {"strides": [3, 3], "pads": [2, 0, 1, 3]}),
            (3, {}),
            (3, {"pads": [3, 3, 3, 3]}),  # crops the image
            (3, {"strides": [2, 1]}),
            (3, {"dilations": [2, 2]}),
        )
    ],
    "products": [
        ("Conv", [numbers(1, 12, 40)], [numbers(8, 12, 3), numbers(8)], {"pads": [1, 1]}),
        ("Conv", [numbers(1, 4, 5, 6, 7)], [numbers(8, 4, 3, 3, 3)], {}),
        ("Einsum", [numbers(*TOKENS), numbers(*TOKENS)], [], {"equation": "bqd, bkd -> bqk"}),
        ("Einsum", [numbers(2, 3, 5, 6), numbers(2, 6, 3, 4)], [], {"equation": "bhqk,bkhd->bqhd"}),
        ("Einsum", [numbers(2, 5, 6)], [numbers(6, 3, 4)], {"equation": "bld,dhe->bhle"}),
        ("Einsum", [numbers(2, 5, 3, 4)], [numbers(3, 4, 7)], {"equation": "blhe,hed->bld"}),
        ("Einsum", [numbers(5), numbers(6)], [], {"equation": "i,j->ji"}),
        ("Einsum", [numbers(5, 6), numbers(5, 6)], [], {"equation": "ij,ij->"}),
        ("Einsum", [numbers(5, 6), numbers(5, 6)], [], {"equation": "ij,ij->i"}),
        ("Einsum", [numbers(5, 6), numbers(6)], [], {"equation": "ij,j"}),  # the result is implied
        ("Einsum", [numbers(5, 6), numbers(6, 7)], [], {"equation": "ij,jk->k"}),  # a sum of one operand
        ("Einsum", [numbers(5, 5)], [], {"equation": "ii->i"}),
        ("Gemm", [numbers(*ROWS)], [numbers(7, 33), numbers(7)], {"transB": 1, "alpha": 0.5}),
    ],
    "composed": [
        ("Attention", [numbers(2, 3, 7, 8) for _ in range(3)], [], {}),
        ("Attention", [numbers(2, 3, 7, 8) for _ in range(3)], [], {"is_causal": 1}),
        ("Attention", [numbers(2, 3, 7, 8) for _ in range(3)], [numbers(7, 7)], {}),
        ("Celu", [numbers(*ROWS)], [], {"alpha": 0.7}),
        ("GroupNormalization", [numbers(*IMAGE)], [numbers(12), numbers(12)], {"num_groups": 3}),
        ("RMSNormalization", [numbers(*TOKENS)], [numbers(24)], {}),
    ],
    "moved": [
        ("Expand", [numbers(1, 7, 24)], [sizes(2, 7, 24)], {}),
        ("Expand", [numbers(7, 1)], [sizes(3, 1, 4)], {}),
        ("Pad", [numbers(*IMAGE)], [sizes(0, 0, 2, 1, 0, 0, 1, 2)], {"mode": "reflect"}),
        ("Tile", [numbers(*TOKENS)], [sizes(2, 1, 3)], {}),
        ("ScatterElements", [numbers(5, 6)], [sizes(1, 3, 0).reshape(1, 3), numbers(1, 3)], {}),
        ("Gather", [numbers(30, 8)], [sizes(3, 29, 0, 3)], {}),
        ("DepthToSpace", [numbers(*IMAGE)], [], {"blocksize": 2}),
    ],
}


def save(
    nodes: Sequence[onnx.NodeProto],
    feed: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    folder: Path,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in feed.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("group", GROUPS)
def test_operators_compute_what_onnx_runtime_computes(group: str, tmp_path: Path) -> None:
    """Each by itself, in one model: it is linked once."""
    nodes, feed, stored = [], {}, {}
    for number, (op, inputs, weights, attributes) in enumerate(GROUPS[group]):
        own = {f"{op}{number}_x{n}": np.asarray(value) for n, value in enumerate(inputs)}
        kept = {f"{op}{number}_w{n}": value for n, value in enumerate(weights)}
        nodes.append(helper.make_node(op, [*own, *kept], [f"{op}{number}"], **attributes))
        feed |= own
        stored |= kept
    path = save(nodes, feed, stored, [node.output[0] for node in nodes], tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = dict(zip((one.name for one in session.get_outputs()), session.run(None, feed), strict=True))
    compile_model(import_model(path, target=host_target(1)), tmp_path / "b", log=None, replay=replay)
    found = load(tmp_path / "b").run_named(feed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [
        ("IsInf", [numbers(3)], {"detect_negative": 0}, "TVM ignores its attribute detect_negative"),
        (
            "ConvTranspose",
            [numbers(1, 2, 4, 4), numbers(2, 3, 3, 3)],
            {"output_shape": [7, 7]},
            "output_shape",
        ),
        (
            "BatchNormalization",
            [numbers(2, 3, 4, 4), *[np.abs(numbers(3)) + 1 for _ in range(4)]],
            {"training_mode": 1},
            "TVM ignores its attribute training_mode",
        ),
        ("Dropout", [numbers(2, 8), np.array(0.5, np.float32), np.array(True)], {}, "results are random"),
        ("LayerNormalization", [numbers(2, 8), numbers(8)], {}, "computes only its first output"),
        (
            "Resize",
            [numbers(1, 2, 8, 8)],
            {"mode": "linear", "antialias": 1},
            "ignores its attribute antialias",
        ),
        ("Resize", [numbers(1, 2, 5, 5)], {"mode": "linear"}, "its output's size over its input's"),
    ],
)
def test_what_tvm_would_compute_wrongly_is_refused(
    op: str, inputs: Sequence[np.ndarray], attributes: Mapping[str, Any], expected: str, tmp_path: Path
) -> None:
    feed = {f"x{n}": value for n, value in enumerate(inputs)}
    stored = {"scales": np.float32([1, 1, 0.5, 0.5])} if op == "Resize" else {}
    outputs = ["y", "mean"] if op == "LayerNormalization" else ["y"]
    names = [*feed, "", *stored] if stored else [*feed]
    path = save([helper.make_node(op, names, outputs, **attributes)], feed, stored, outputs, tmp_path)
    with pytest.raises(
        ModelImportError, match=f"operator {op} .* is not supported as it is used.*{expected}"
    ):
        import_model(path, target=host_target(1))
