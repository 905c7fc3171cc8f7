"""Graph rewrites: the operators that a model is left with, and that it still computes the same."""

import math

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from tvm import relax

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tests.core.relax_modules import module, ops, run, variables
from tunewright.core.tvm_adapter.graph_rewrites import rewrite

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

RNG = np.random.default_rng(5)


def _convolution(kernel: int, **options: object) -> tuple[tvm.IRModule, list[np.ndarray]]:
    shapes = [(1, 6, 5, 4), (8, 6, kernel, kernel)]
    data, weight = variables(*shapes)
    mod = module([data, weight], lambda builder: builder.emit(relax.op.nn.conv2d(data, weight, **options)))
    return mod, [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("kernel", "options", "becomes"),
    [(1, {}, "matmul"), (1, {"strides": 2}, "nn.conv2d"), (3, {"padding": 1}, "nn.conv2d")],
)
def test_a_convolution_of_single_pixels_is_a_matrix_product(
    kernel: int, options: dict[str, object], becomes: str
) -> None:
    mod, arrays = _convolution(kernel, **options)
    rewritten = rewrite(mod)
    assert [op for op in ops(rewritten) if op in ("matmul", "nn.conv2d")] == [becomes]
    np.testing.assert_allclose(run(rewritten, arrays), run(mod, arrays), rtol=1e-4, atol=1e-5)


def test_gelu_is_taken_apart() -> None:
    x = relax.Var("x", relax.TensorType((7, 9), "float32"))
    mod = rewrite(module([x], lambda builder: builder.emit(relax.op.nn.gelu(x))))
    assert "erf" in ops(mod) and "nn.gelu" not in ops(mod)
    array = np.linspace(-6, 6, 63, dtype=np.float32).reshape(7, 9)
    truth = [value / 2 * (1 + math.erf(value / math.sqrt(2))) for value in array.ravel().astype(float)]
    np.testing.assert_allclose(run(mod, [array]).ravel(), truth, rtol=1e-5, atol=1e-6)


def test_views_of_views_are_one_view_and_real_transposes_stay() -> None:
    x = relax.Var("x", relax.TensorType((1, 5, 1, 4), "float32"))

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        view = builder.emit(relax.op.permute_dims(x, [0, 2, 1, 3]))
        flat = builder.emit(relax.op.reshape(view, (5, 4)))
        return builder.emit(relax.op.permute_dims(flat, [1, 0]))

    mod = relax.transform.DeadCodeElimination()(rewrite(module([x], compute)))
    assert ops(mod) == ["reshape", "permute_dims"]
    array = RNG.standard_normal((1, 5, 1, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(mod, [array]), array.reshape(5, 4).T)
