"""Steps of an LSTM become one kernel each, which computes what its operators do under every schedule."""

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run
from tunewright.core.tile_rules import are_reasonable
from tunewright.core.trace_rules import check_trace
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.gated_tiling import gated_tiling_sketches, results_per_element
from tunewright.core.tvm_adapter.graph_recurrent import fuse_steps
from tunewright.core.tvm_adapter.kernel import build_kernel, replay
from tunewright.core.tvm_adapter.register_tiling import own_tiles
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TaskKey, Workload

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

STEPS = 3
TARGET = host_target(2)
ONNX_ORDER = ("input", "output", "forget", "cell")


def lstm(batch: int, units: int, *, order: Sequence[str] = ONNX_ORDER, swaps: bool = False) -> tvm.IRModule:
    """All steps of an LSTM, gates in some order; `swaps`: the operands of what is commutative."""
    shapes = {"gates": (STEPS, batch, 4 * units), "weight": (units, 4 * units)}
    shapes |= {"hidden": (batch, units), "cell": (batch, units)}
    xs = {name: relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()}
    indices = [relax.Var(f"step{n}", relax.TensorType((1,), "int64")) for n in range(STEPS)]

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        def apply(name: str, *operands: relax.Expr) -> relax.Var:
            return builder.emit(getattr(relax.op, name)(*(operands[::-1] if swaps else operands)))

        hidden, cell = xs["hidden"], xs["cell"]
        for index in indices:
            own = builder.emit(relax.op.squeeze(builder.emit(relax.op.take(xs["gates"], index, axis=0)), [0]))
            product = builder.emit(relax.op.matmul(hidden, xs["weight"]))
            total = apply("add", product, own)
            gates = {}
            for number, name in enumerate(order):
                part = relax.op.strided_slice(total, [1], [number * units], [(number + 1) * units])
                activation = relax.op.tanh if name == "cell" else relax.op.sigmoid
                gates[name] = builder.emit(activation(builder.emit(part)))
            kept = apply("multiply", gates["forget"], cell)
            cell = apply("add", kept, apply("multiply", gates["input"], gates["cell"]))
            hidden = apply("multiply", gates["output"], builder.emit(relax.op.tanh(cell)))
        return builder.emit(relax.op.concat([hidden, cell], axis=1))

    return module([*xs.values(), *indices], compute, num_input=1)


def arguments(batch: int, units: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(STEPS, batch, 4 * units), (units, 4 * units), (batch, units), (batch, units)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return [*arrays, *(np.array([step], dtype=np.int64) for step in range(STEPS))]


def truth(gates: np.ndarray, state: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The next state in float64; the weight is (units, 4, units)."""
    hidden, cell = state.astype(np.float64)
    batch, units = hidden.shape
    total = np.einsum("bk,kgu->bgu", hidden, weight) + gates.astype(np.float64).reshape(batch, 4, units)
    entry, output, forget = (1 / (1 + np.exp(-total[:, gate])) for gate in range(3))
    cell = forget * cell + entry * np.tanh(total[:, 3])
    return np.stack([output * np.tanh(cell), cell])


def step_workload(batch: int, units: int) -> Workload:
    mod = fuse_steps(lstm(batch, units))
    names = [var.name_hint for var in mod.get_global_vars() if var.name_hint.startswith("lstm_step")]
    return canonical_workload(mod[names[0]], name="lstm_step")


@pytest.mark.parametrize("swaps", [False, True])
@pytest.mark.parametrize(("batch", "units"), [(1, 16), (3, 10)])
def test_each_step_is_one_kernel(batch: int, units: int, swaps: bool) -> None:
    mod = lstm(batch, units, swaps=swaps)
    fused = fuse_steps(mod)
    names = ops(fused)
    assert names.count("call_tir") == STEPS
    assert not {"matmul", "sigmoid", "tanh", "take"} & set(names)
    arrays = arguments(batch, units)
    np.testing.assert_allclose(run(fused, arrays), run(mod, arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "order", [("forget", "output", "input", "cell"), ("cell", "output", "forget", "input")]
)
def test_gates_in_another_order_are_no_lstm_of_ours(order: Sequence[str]) -> None:
    mod = lstm(1, 16, order=order)
    assert ops(fuse_steps(mod)) == ops(mod)


@pytest.mark.parametrize(("batch", "units"), [(1, 64), (6, 32), (3, 10), (2, 3)])
def test_schedules_of_a_step_are_right(batch: int, units: int) -> None:
    """With 3 units no vector is worth it, and other rules have to cope."""
    workload = step_workload(batch, units)
    gates, weight, *_ = arguments(batch, units)
    state = np.stack(arguments(batch, units, seed=1)[2:4])
    weight = weight.reshape(units, 4, units)
    inputs = [gates, np.array([1], dtype=np.int64), state, weight, np.zeros_like(state)]
    assert [arg.shape for arg in workload.args] == [array.shape for array in inputs]
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    drawn = [space.sample(seed) for seed in range(6)]
    traces = [applied.candidate.trace_json for applied in drawn if applied is not None]
    assert traces
    for trace in (*traces, default_trace(workload.mod_json, TARGET)):
        check_trace(trace)
        bound = build_kernel(replay(workload.mod_json, trace), TARGET).bind(inputs)
        bound.poison()
        bound.run()
        np.testing.assert_allclose(bound.outputs()[0], truth(gates[1], state, weight), rtol=1e-5, atol=1e-5)


def test_the_gates_of_a_tile_are_its_accumulators() -> None:
    mod = load_module(step_workload(2, 64).mod_json)
    (sketch,) = gated_tiling_sketches(mod, vector_lanes=16)
    assert results_per_element(sketch) == 4
    rows, vectors, _ = own_tiles(sketch).values()
    assert (len(rows), len(vectors)) == (3, 4)
    tiles = [[1, 1, 2], [1, 1, 4, 16], [64, 1]]
    assert not are_reasonable(tiles, vector_lanes=16, num_registers=32, num_results=4)  # 32 accumulators
    assert are_reasonable(tiles, vector_lanes=16, num_registers=32)


def test_the_work_of_a_step_is_counted_once() -> None:
    """What several expressions share is a `Let`, which TVM cannot count."""
    batch, units = 2, 64
    products = 2 * 4 * batch * units * units
    assert products < step_workload(batch, units).flop < 1.6 * products
