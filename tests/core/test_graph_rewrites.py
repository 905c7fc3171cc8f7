"""Graph rewrites: the operators that a model is left with, and that it still computes the same."""

import math
from collections.abc import Callable

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


def _stacked(reduce: Callable[..., relax.Expr], *shapes: tuple[int, ...]) -> tvm.IRModule:
    """As TVM's importer translates Max, Min, Mean and Sum."""
    inputs = variables(*shapes)
    shape = np.broadcast_shapes(*shapes)

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        wide = [builder.emit(relax.op.broadcast_to(one, shape)) for one in inputs]
        return builder.emit(reduce(builder.emit(relax.op.stack(wide, axis=0)), axis=0))

    return module(inputs, compute)


@pytest.mark.parametrize(
    ("reduce", "truth", "expected"),
    [
        (relax.op.max, np.max, ["maximum", "maximum"]),
        (relax.op.min, np.min, ["minimum", "minimum"]),
        (relax.op.sum, np.sum, ["add", "add"]),
        (relax.op.mean, np.mean, ["add", "add", "multiply"]),
    ],
)
def test_what_is_stacked_to_be_reduced_is_joined_in_pairs(
    reduce: Callable[..., relax.Expr], truth: Callable[..., np.ndarray], expected: list[str]
) -> None:
    shapes = ((2, 3, 5), (3, 1), (2, 1, 5))
    mod = rewrite(_stacked(reduce, *shapes))
    assert ops(mod) == expected
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    stacked = np.stack(np.broadcast_arrays(*arrays))
    np.testing.assert_allclose(run(mod, arrays), truth(stacked, axis=0), rtol=1e-6, atol=1e-6)


def test_a_sum_over_one_of_a_stacks_own_axes_stays() -> None:
    x, y = variables((4, 6), (4, 6))

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        return builder.emit(relax.op.sum(builder.emit(relax.op.stack([x, y], axis=0)), axis=1))

    mod = module([x, y], compute)
    arrays = [RNG.standard_normal((4, 6)).astype(np.float32) for _ in range(2)]
    np.testing.assert_allclose(run(rewrite(mod), arrays), np.stack(arrays).sum(axis=1), rtol=1e-5, atol=1e-6)


def test_a_model_whose_layout_tvm_cannot_change_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    data, weight = variables((1, 6, 5, 4), (8, 6, 3, 3))

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        image = builder.emit(relax.op.nn.conv2d(data, weight, padding=1))
        return builder.emit(relax.op.stack([image, image], axis=0))

    mod = module([data, weight], compute)
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 6, 5, 4), (8, 6, 3, 3))]
    np.testing.assert_allclose(run(rewrite(mod), arrays), run(mod, arrays), rtol=1e-5, atol=1e-6)
    assert "keep their layout" in caplog.text
    told: list[str] = []
    rewrite(mod, told.append)
    assert len(told) == 1 and "\n" not in told[0]


def _joined_step_by_step(*, axes: tuple[int, int]) -> tuple[tvm.IRModule, list[np.ndarray]]:
    """As in a DenseNet: what was joined is read, and joined to the next."""
    shapes = [(1, 4, 5, 3), (1, 4, 5, 3), (1, 8, 5, 3) if axes == (1, 2) else (1, 4, 5, 3)]
    x, y, z = variables(*shapes)

    def compute(builder: relax.BlockBuilder) -> relax.Expr:
        first = builder.emit(relax.op.concat([x, y], axis=axes[0]))
        second = builder.emit(relax.op.concat([first, z], axis=axes[1]))
        return builder.emit(relax.op.sum(builder.emit(relax.op.nn.relu(second)), axis=[2]))

    return module([x, y, z], compute), [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(("axes", "num_joins"), [((1, 1), 1), ((-3, 1), 1), ((1, 2), 2)])
def test_what_is_joined_to_joined_tensors_is_joined_at_once(axes: tuple[int, int], num_joins: int) -> None:
    mod, arrays = _joined_step_by_step(axes=axes)
    joined = relax.transform.DeadCodeElimination()(rewrite(mod))
    assert ops(joined).count("concat") == num_joins
    np.testing.assert_array_equal(run(joined, arrays), run(mod, arrays))
