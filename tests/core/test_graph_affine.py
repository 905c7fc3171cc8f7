"""Chains of operations by weights: one factor and one summand, and the same numbers."""

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("tvm")

import hypothesis.strategies as st
import tvm
from hypothesis import given, settings
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run
from tunewright.core.tvm_adapter.graph_affine import scaled_once

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

CHANNELS, SHAPE = 6, (2, 6, 5, 4)
NUMPY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


def image_and_weights(count: int, shape: Sequence[int] = (CHANNELS, 1, 1)) -> list[relax.Var]:
    weights = [relax.Var(f"w{n}", relax.TensorType(shape, "float32")) for n in range(count)]
    return [relax.Var("x", relax.TensorType(SHAPE, "float32")), *weights]


def arrays_for(variables: Sequence[relax.Var]) -> list[np.ndarray]:
    """Factors that are not near zero, of either sign."""
    rng = np.random.default_rng(len(variables))
    shapes = [tuple(int(n) for n in variable.ty.shape.values) for variable in variables]
    return [
        (rng.choice([-1, 1], shape) * rng.uniform(0.5, 2.0, shape)).astype(np.float32) for shape in shapes
    ]


def chained(steps: Sequence[str]) -> tuple[tvm.IRModule, list[relax.Var]]:
    variables = image_and_weights(len(steps))

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        value = variables[0]
        for step, weight in zip(steps, variables[1:], strict=True):
            value = builder.emit(getattr(relax.op, step)(value, weight))
        return builder.emit(relax.op.nn.relu(value))

    return module(variables, compute), variables


def on_images(mod: tvm.IRModule) -> list[str]:
    """The operators whose results are as large as the image."""
    bindings = [binding for block in mod["main"].body.blocks for binding in block.bindings]
    return [
        binding.value.op.name.removeprefix("relax.")
        for binding in bindings
        if isinstance(binding.value, relax.Call) and int(binding.value.ty.ndim) == len(SHAPE)
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(NUMPY)), min_size=1, max_size=6))
def test_any_chain_becomes_at_most_a_factor_and_a_summand(steps: list[str]) -> None:
    mod, variables = chained(steps)
    scaled = scaled_once(mod, [weight.name for weight in variables[1:]])
    large = on_images(scaled)
    assert len(large) <= 3 and len(large) <= len(steps) + 1
    arrays = arrays_for(variables)
    expected = arrays[0].astype(np.float64)
    magnitude = np.abs(expected)
    for step, weight in zip(steps, arrays[1:], strict=True):
        expected = NUMPY[step](expected, weight)
        magnitude = np.abs(magnitude * weight) if step == "multiply" else magnitude
        magnitude = np.abs(magnitude / weight) if step == "divide" else magnitude + np.abs(weight)
    error = np.abs(run(scaled, arrays) - np.maximum(expected, 0))
    assert (error <= 1e-6 * magnitude + 1e-6).all()


def test_a_batch_norm_and_its_scale_are_a_factor_and_a_summand() -> None:
    variables = [
        relax.Var("x", relax.TensorType(SHAPE, "float32")),
        *(
            relax.Var(name, relax.TensorType((CHANNELS,), "float32"))
            for name in ("g", "b", "mean", "variance")
        ),
    ]

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        normed = builder.emit(relax.op.nn.batch_norm(*variables, axis=1))
        return builder.emit(relax.op.multiply(builder.emit(normed[0]), relax.const(2.0, "float32")))

    mod = relax.transform.DecomposeOpsForInference()(module(variables, compute))
    mod = relax.transform.CanonicalizeBindings()(mod)
    scaled = scaled_once(mod, ["g", "b", "mean", "variance"])
    x, g, b, mean, variance = arrays = [np.abs(array) for array in arrays_for(variables)]
    column = (slice(None), None, None)
    root = np.sqrt(variance.astype(np.float64)[column] + 1e-5)
    expected = 2 * ((x - mean[column]) / root * g[column] + b[column])
    np.testing.assert_allclose(run(scaled, arrays), expected, rtol=1e-5, atol=1e-6)
    shapes = [
        binding.value.op.name
        for block in scaled["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and [int(n) for n in binding.var.ty.shape.values] == list(SHAPE)
    ]
    assert shapes == ["relax.multiply", "relax.add"]


def test_what_is_read_in_between_is_computed_as_before() -> None:
    variables = image_and_weights(2)
    x, w0, w1 = variables

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        first = builder.emit(relax.op.multiply(x, w0))
        second = builder.emit(relax.op.multiply(first, w1))
        return builder.emit(relax.op.add(first, second))

    mod = module(variables, compute)
    assert ops(scaled_once(mod, ["w0", "w1"])) == ["multiply", "multiply", "add"]


@pytest.mark.parametrize(
    ("weights", "shape"),
    [([], (CHANNELS, 1, 1)), (["w0"], (CHANNELS, 1, 1)), (["w0", "w1"], (5, 4))],
    ids=["inputs", "one weight", "matrices"],
)
def test_other_operands_stay(weights: list[str], shape: tuple[int, ...]) -> None:
    variables = image_and_weights(2, shape)
    x, w0, w1 = variables

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        return builder.emit(relax.op.add(builder.emit(relax.op.add(x, w0)), w1))

    mod = module(variables, compute)
    assert ops(scaled_once(mod, weights)) == ["add", "add"]


def test_a_difference_from_a_weight_stays() -> None:
    variables = image_and_weights(2)
    x, w0, w1 = variables

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        return builder.emit(relax.op.subtract(w1, builder.emit(relax.op.multiply(x, w0))))

    mod = module(variables, compute)
    scaled = scaled_once(mod, ["w0", "w1"])
    assert ops(scaled) == ["multiply", "subtract"]
    arrays = arrays_for(variables)
    np.testing.assert_allclose(run(scaled, arrays), arrays[2] - arrays[0] * arrays[1], rtol=1e-6)
