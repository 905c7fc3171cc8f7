"""Unrolled LSTMs against ONNX Runtime's own operator."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tunewright.scheduler.onnx_recurrent import unroll

STEPS, BATCH, INPUT, HIDDEN = 5, 2, 3, 4


def lstm(
    direction: str = "forward", *, has_bias: bool = True, has_state: bool = False, **attributes: object
) -> onnx.ModelProto:
    sides = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(1)
    shapes = {"W": (sides, 4 * HIDDEN, INPUT), "R": (sides, 4 * HIDDEN, HIDDEN)}
    if has_bias:
        shapes["B"] = (sides, 8 * HIDDEN)
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()
    ]
    state = (sides, BATCH, HIDDEN)
    names = ["X", "W", "R", "B" if has_bias else "", "", *(["h", "c"] if has_state else [])]
    node = helper.make_node(
        "LSTM", names, ["Y", "Yh", "Yc"], name="cell", hidden_size=HIDDEN, direction=direction, **attributes
    )
    inputs = {"X": (STEPS, BATCH, INPUT)} | ({"h": state, "c": state} if has_state else {})
    outputs = {"Y": (STEPS, sides, BATCH, HIDDEN), "Yh": state, "Yc": state}
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
def test_an_unrolled_lstm_computes_the_same(direction: str, has_bias: bool, has_state: bool) -> None:
    model = lstm(direction, has_bias=has_bias, has_state=has_state)
    expected = run(model)
    unroll(model)
    onnx.checker.check_model(model)
    assert "LSTM" not in {node.op_type for node in model.graph.node}
    for actual, truth in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(actual, truth, rtol=1e-5, atol=1e-6)


def test_what_is_not_known_stays() -> None:
    clipped, old = lstm(clip=1.0), lstm()
    old.opset_import[0].version = 12
    free = lstm()
    free.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    for model in (clipped, old, free):
        unroll(model)
        assert [node.op_type for node in model.graph.node] == ["LSTM"]


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
