"""Powers, sigmoids and logarithms: the same numbers, without calls of the C library."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run, variables
from tests.scheduler.in_process import replay as in_process_replay
from tunewright.core.tvm_adapter.graph_elementary import in_vectors, taken_apart
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
NUMBERS = np.geomspace(1e-6, 1e6, 997, dtype=np.float32)


def power(
    exponent: relax.Expr, shape: tuple[int, ...] = NUMBERS.shape, dtype: str = "float32"
) -> tvm.IRModule:
    x = relax.Var("x", relax.TensorType(shape, dtype))
    return module([x], lambda builder: builder.emit(relax.op.power(x, exponent)))


@pytest.mark.parametrize("exponent", [quarters / 4 for quarters in range(-16, 17) if quarters])
def test_the_numbers_are_those_of_the_power(exponent: float) -> None:
    mod = taken_apart(power(relax.const(exponent, "float32")), [], [])
    assert "power" not in ops(mod)
    expected = NUMBERS.astype(np.float64) ** exponent
    np.testing.assert_allclose(run(mod, [NUMBERS]), expected, rtol=5e-7)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.75, 1.5, 2.0, 3.0, -1.0, -0.5])
def test_signs_zeros_and_infinities(exponent: float) -> None:
    x = np.array([-2.0, -0.0, 0.0, np.inf, np.nan], np.float32)
    mod = taken_apart(power(relax.const(exponent, "float32"), x.shape), [], [])
    with np.errstate(all="ignore"):
        expected = np.power(x, np.float32(exponent))
    np.testing.assert_allclose(np.abs(run(mod, [x])), np.abs(expected), rtol=5e-7)


@pytest.mark.parametrize(
    "mod",
    [
        power(relax.const(0.3, "float32")),
        power(relax.const(5.0, "float32")),
        power(relax.const(0.0, "float32")),
        power(relax.const(np.float32([2.0, 3.0, 2.0])), (4, 3)),
        power(relax.const(np.full((1, 1), 2.0, np.float32)), (3,)),
        power(relax.const(2.0, "float16"), dtype="float16"),
    ],
    ids=["no quarter", "many products", "zero", "several", "of more axes", "half precision"],
)
def test_others_stay(mod: tvm.IRModule) -> None:
    assert ops(taken_apart(mod, [], [])) == ["power"]


def test_the_exponent_may_be_a_weight() -> None:
    x, exponent, unknown = *variables((9,)), *(relax.Var(n, relax.TensorType((), "float32")) for n in "eu")
    mod = module(
        [x, exponent, unknown],
        lambda builder: builder.emit(
            relax.op.power(builder.emit(relax.op.power(x, exponent)), unknown),
        ),
    )
    assert ops(taken_apart(mod, [np.float32(2.0)], ["e"])) == ["multiply", "power"]


def of(operator: Callable[[relax.Expr], relax.Expr], size: int, dtype: str = "float32") -> tvm.IRModule:
    x = relax.Var("x", relax.TensorType((size,), dtype))
    return module([x], lambda builder: builder.emit(operator(x)))


def test_the_numbers_are_those_of_the_sigmoid() -> None:
    x = np.linspace(-100, 100, 4001, dtype=np.float32)
    mod = in_vectors(taken_apart(of(relax.op.sigmoid, x.size), [], []))
    expected = 1.0 / (1.0 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(run(mod, [x]), expected, rtol=5e-6, atol=1e-37)
    special = np.array([np.nan, -np.inf, np.inf, 0.0], np.float32)
    mod = in_vectors(taken_apart(of(relax.op.sigmoid, 4), [], []))
    np.testing.assert_array_equal(run(mod, [special]), np.float32([np.nan, 0.0, 1.0, 0.5]))


def test_the_numbers_are_those_of_the_logarithm() -> None:
    near_one = np.linspace(0.5, 2.0, 2001, dtype=np.float32)
    subnormal = np.geomspace(1e-44, 1e-38, 101).astype(np.float32)
    x = np.concatenate([np.geomspace(1.2e-38, 3.4e38, 4001).astype(np.float32), near_one, subnormal])
    mod = in_vectors(of(relax.op.log, x.size))
    assert ops(mod) == ["call_tir"]
    np.testing.assert_allclose(run(mod, [x]), np.log(x.astype(np.float64)), rtol=1.2e-7)
    special = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, -1.0, 1.0], np.float32)
    expected = np.float32([np.nan, np.nan, np.inf, -np.inf, -np.inf, np.nan, 0.0])
    np.testing.assert_array_equal(run(in_vectors(of(relax.op.log, 7)), [special]), expected)


def test_half_precision_stays() -> None:
    assert ops(taken_apart(of(relax.op.sigmoid, 4, "float16"), [], [])) == ["sigmoid"]
    assert ops(in_vectors(of(relax.op.log, 4, "float16"))) == ["log"]


def test_a_model_with_all_of_them_between_images(tmp_path: Path) -> None:
    """Local response normalisation, a cube, SiLU and Mish; the images' channels are put last."""
    shape = (1, 24, 9, 9)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["image"], pads=[1, 1, 1, 1]),
        helper.make_node("LRN", ["image"], ["even"], size=5, alpha=0.1, beta=0.75, bias=2.0),
        helper.make_node("Pow", ["even", "three"], ["cube"]),
        helper.make_node("Sigmoid", ["cube"], ["gate"]),
        helper.make_node("Mul", ["cube", "gate"], ["silu"]),
        helper.make_node("Softplus", ["silu"], ["soft"]),
        helper.make_node("Tanh", ["soft"], ["bent"]),
        helper.make_node("Mul", ["silu", "bent"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((24, 24, 3, 3)).astype(np.float32), "three": np.float32(3.0)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = import_model(path, target=TARGET)
    functions = ("pow", "sigmoid", "tirx.log", "tirx.exp")
    assert not any(name in task.workload.mod_json for task in partition(model).tasks for name in functions)
    compile_model(model, tmp_path / "bundle", log=None, replay=in_process_replay)
    feed = {"x": rng.standard_normal(shape).astype(np.float32)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feed)
    result = load(tmp_path / "bundle").run_named(feed)["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
