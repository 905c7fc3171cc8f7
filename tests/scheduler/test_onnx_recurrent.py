"""Unrolled recurrent layers against ONNX Runtime's own operators."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tunewright.scheduler.onnx_recurrent import unroll

STEPS, BATCH, INPUT, HIDDEN = 5, 2, 3, 4


def lstm(direction: str = "forward", **options: Any) -> onnx.ModelProto:
    return layer("LSTM", direction, **options)


def layer(
    op: str,
    direction: str = "forward",
    *,
    has_bias: bool = True,
    has_state: bool = False,
    steps: int = STEPS,
    **attributes: object,
) -> onnx.ModelProto:
    sides, gates = 2 if direction == "bidirectional" else 1, {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    states = ["h", "c"] if op == "LSTM" else ["h"]
    rng = np.random.default_rng(1)
    shapes = {"W": (sides, gates * HIDDEN, INPUT), "R": (sides, gates * HIDDEN, HIDDEN)}
    if has_bias:
        shapes["B"] = (sides, 2 * gates * HIDDEN)
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()
    ]
    state = (sides, BATCH, HIDDEN)
    names = ["X", "W", "R", "B" if has_bias else "", "", *(states if has_state else [])]
    node = helper.make_node(
        op,
        names,
        ["Y", *(f"Y{name}" for name in states)],
        name="cell",
        hidden_size=HIDDEN,
        direction=direction,
        **attributes,
    )
    inputs = {"X": (steps, BATCH, INPUT)} | (dict.fromkeys(states, state) if has_state else {})
    outputs = {"Y": (steps, sides, BATCH, HIDDEN)} | {f"Y{name}": state for name in states}
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    feed = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in session.get_inputs()}
    return session.run(None, feed)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("LSTM", {}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("RNN", {}),
        ("RNN", {"activations": ["Relu"]}),
    ],
    ids=["LSTM", "GRU", "GRU of PyTorch", "RNN", "RNN with ReLU"],
)
def test_an_unrolled_layer_computes_the_same(
    op: str, attributes: dict[str, Any], direction: str, has_bias: bool, has_state: bool
) -> None:
    if "activations" in attributes and direction == "bidirectional":
        attributes = {"activations": ["Relu", "Tanh"]}
    model = layer(op, direction, has_bias=has_bias, has_state=has_state, **attributes)
    expected = run(model)
    unroll(model)
    onnx.checker.check_model(model)
    assert op not in {node.op_type for node in model.graph.node}
    for actual, truth in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(actual, truth, rtol=1e-5, atol=1e-6)


def test_what_is_not_known_stays() -> None:
    clipped, old = lstm(clip=1.0), lstm()
    old.opset_import[0].version = 12
    free = lstm()
    free.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    for model in (clipped, old, free, layer("RNN", activations=["Softsign"]), layer("GRU", clip=1.0)):
        before = [node.op_type for node in model.graph.node]
        unroll(model)
        assert [node.op_type for node in model.graph.node] == before


@pytest.mark.tvm
@pytest.mark.slow
def test_the_importer_makes_one_task_of_all_steps(tmp_path: Path) -> None:
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.partition import partition

    path = tmp_path / "lstm.onnx"
    onnx.save(lstm(), path)
    tasks = partition(import_model(path, target=host_target(1))).tasks
    steps = {task.workload.name: task.weight for task in tasks if "lstm_step" in task.workload.name}
    assert list(steps.values()) == [STEPS - 1]  # the first state is zero


@pytest.mark.tvm
@pytest.mark.slow
@pytest.mark.parametrize("resets_products", [0, 1])
def test_the_steps_of_a_gru_share_their_weights(tmp_path: Path, resets_products: int) -> None:
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.importer import import_model

    numbers = []
    for steps in (STEPS, 2 * STEPS):
        path = tmp_path / f"gru{steps}.onnx"
        onnx.save(layer("GRU", steps=steps, linear_before_reset=resets_products), path)
        params = import_model(path, target=host_target(1)).params
        numbers.append(len([param for param in params if param.size >= HIDDEN]))
    assert numbers[0] == numbers[1]
