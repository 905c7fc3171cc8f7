"""Products of one activation become one, where their parts are no copies; the results stay the same."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run, variables
from tunewright.core.tvm_adapter.graph_branches import combine_products

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TOKENS, DEPTH, HEADS = 6, 8, 2
SHAPES = [(1, TOKENS, DEPTH), (DEPTH, 8), (DEPTH, 8), (4, DEPTH), (8,)]

Compute = Callable[[relax.BlockBuilder, list[relax.Var]], relax.Expr]


def _heads(builder: relax.BlockBuilder, product: relax.Expr) -> relax.Expr:
    columns = int(product.ty.shape.values[-1]) // HEADS
    split = builder.emit(relax.op.reshape(product, (TOKENS, HEADS, columns)))
    return builder.emit(relax.op.permute_dims(split, [1, 0, 2]))


def _attention(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    """The third weight is transposed, only after the first product; one branch has a bias in front."""
    x, query, key, value, bias = xs
    q = builder.emit(relax.op.matmul(x, query))
    q = _heads(builder, builder.emit(relax.op.add(bias, q)))
    value = builder.emit(relax.op.permute_dims(value))
    k = _heads(builder, builder.emit(relax.op.matmul(x, key)))
    v = _heads(builder, builder.emit(relax.op.matmul(x, value)))
    scores = builder.emit(relax.op.matmul(q, builder.emit(relax.op.permute_dims(k, [0, 2, 1]))))
    return builder.emit(relax.op.matmul(scores, v))


def _made(compute: Compute, shapes: list[tuple[int, ...]]) -> tvm.IRModule:
    xs = variables(*shapes)
    return module(xs, lambda builder: compute(builder, xs), num_input=1)


def test_queries_keys_and_values_are_one_product() -> None:
    mod = _made(_attention, SHAPES)
    combined = combine_products(mod)
    assert ops(combined).count("matmul") == 1 + 2  # scores, and their product with the values
    assert ops(combined).count("strided_slice") == 3
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]
    np.testing.assert_allclose(run(combined, arrays), run(mod, arrays), rtol=1e-4, atol=1e-4)


def _activated(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    first, second = (builder.emit(relax.op.nn.relu(builder.emit(relax.op.matmul(xs[0], w)))) for w in xs[1:3])
    return builder.emit(relax.op.add(first, second))


def _unlike(builder: relax.BlockBuilder, xs: list[relax.Var]) -> relax.Expr:
    """Of two operands one is no weight."""
    other = builder.emit(relax.op.permute_dims(xs[0], [0, 2, 1]))
    first = _heads(builder, builder.emit(relax.op.matmul(xs[0], xs[1])))
    second = builder.emit(relax.op.reshape(builder.emit(relax.op.matmul(xs[0], other)), (2, TOKENS, 3)))
    return builder.emit(relax.op.concat([first, second], axis=2))


@pytest.mark.parametrize("compute", [_activated, _unlike])
def test_what_would_have_to_be_copied_stays_apart(compute: Compute) -> None:
    mod = _made(compute, SHAPES[:3])
    tvm.ir.assert_structural_equal(combine_products(mod), mod)
