"""Right kernels pass in any summation order, wrong ones do not: NumPy is the independent truth."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from tunewright.core.types import TensorSpec
from tunewright.workers.inputs import Array, InputSet, make_inputs
from tunewright.workers.verification import compare

M, K, N = 6, 320, 10
FLOP = 2.0 * M * K * N
ARGS = (TensorSpec((M, K), "float32"), TensorSpec((K, N), "float32"), TensorSpec((M, N), "float32"))


def _sequential(a: Array, b: Array) -> Array:
    total = np.zeros((M, N), a.dtype)
    for k in range(K):
        total = total + np.outer(a[:, k], b[k]).astype(a.dtype)
    return total


def _blocked(a: Array, b: Array) -> Array:
    parts = [_sequential_range(a, b, start, start + 16) for start in range(0, K, 16)]
    return np.sum(np.stack(parts), axis=0, dtype=a.dtype)


def _sequential_range(a: Array, b: Array, start: int, end: int) -> Array:
    total = np.zeros((M, N), a.dtype)
    for k in range(end - 1, start - 1, -1):
        total = total + np.outer(a[:, k], b[k]).astype(a.dtype)
    return total


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float8_e4m3fn", "bfloat16", "float32", "int64"])
def test_specs_know_the_size_of_their_arrays(dtype: str) -> None:
    (array,) = make_inputs([TensorSpec((3, 5), dtype)], InputSet.RANDOM, 1)
    assert TensorSpec((3, 5), dtype).num_bytes == array.nbytes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("input_set", list(InputSet))
@pytest.mark.parametrize("seed", range(4))
def test_other_summation_orders_are_right(dtype: str, input_set: InputSet, seed: int) -> None:
    a, b, _ = make_inputs([TensorSpec(spec.shape, dtype) for spec in ARGS], input_set, seed)
    assert compare([_blocked(a, b)], [_sequential(a, b)], input_set=input_set, flop=FLOP) is None


def _rounded(array: Array) -> Array:
    """As bfloat16 rounds: 8 bits of mantissa."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)


MUTANTS: dict[str, Callable[[Array, Array], Array]] = {
    "drops the last term": lambda a, b: a[:, :-1] @ b[:-1],
    "adds a term twice": lambda a, b: a @ b + np.outer(a[:, 3], b[3]),
    "stale output": lambda a, b: np.full((M, N), np.nan, np.float32),
    "last row unwritten": lambda a, b: np.vstack([(a @ b)[:-1], np.full((1, N), np.nan, np.float32)]),
    "columns swapped": lambda a, b: (a @ b)[:, ::-1],
    "low precision": lambda a, b: _rounded(a) @ _rounded(b),
    "one element off": lambda a, b: a @ b + np.eye(M, N, dtype=np.float32) * (np.arange(N) == 2),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught_by_some_input_set(name: str) -> None:
    caught = []
    for input_set in InputSet:
        a, b, _ = make_inputs(ARGS, input_set, 7)
        caught.append(compare([MUTANTS[name](a, b)], [a @ b], input_set=input_set, flop=FLOP) is not None)
    assert any(caught)


def test_small_integers_must_agree_exactly() -> None:
    a, b, _ = make_inputs(ARGS, InputSet.INTEGERS, 1)
    off_by_one = a @ b
    off_by_one[4, 2] += 1
    mismatch = compare([off_by_one], [a @ b], input_set=InputSet.INTEGERS, flop=FLOP)
    assert mismatch is not None
    assert mismatch.index == (4, 2)
    assert (mismatch.num_wrong, mismatch.tolerance) == (1, 0.0)
    assert "in 1 of 60 elements; worst at [4, 2]" in str(mismatch)


def test_data_movement_and_integers_must_agree_exactly() -> None:
    moved = np.array([1.0, 2.0], np.float32)
    assert compare([moved], [np.nextafter(moved, 9)], input_set=InputSet.RANDOM, flop=0.0) is not None
    whole = np.array([1, 2], np.int32)
    assert compare([whole + 1], [whole], input_set=InputSet.RANDOM, flop=2.0) is not None
    assert compare([whole], [whole], input_set=InputSet.RANDOM, flop=2.0) is None


def test_quantised_outputs_may_be_one_step_off_where_few_are() -> None:
    want = np.arange(10_000, dtype=np.int64).astype(np.uint8)
    few, many, far = want.copy(), want.copy(), want.copy()
    few[[3, 300]] += 1
    many[:100] += 1
    far[7] += 2
    for got, is_right in ((few, True), (many, False), (far, False)):
        mismatch = compare([got], [want], input_set=InputSet.RANDOM, flop=2.0)
        assert (mismatch is None) == is_right
    assert compare([few], [want], input_set=InputSet.RANDOM, flop=0.0) is not None  # only moved: no rounding


def test_sums_wider_than_the_output_are_held_to_their_own_precision() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(bfloat16).astype(np.float32) for shape in ((M, K), (K, N)))
    want = (a @ b).astype(bfloat16)
    rounded_twice = (a @ b + np.float32(1e-3)).astype(bfloat16)
    half = (a[:, : K // 2] @ b[: K // 2]).astype(bfloat16)
    for got, is_right in ((rounded_twice, True), (half, False)):
        mismatch = compare(
            [got], [want], input_set=InputSet.RANDOM, flop=FLOP, accumulators=frozenset({"float32"})
        )
        assert (mismatch is None) == is_right
    assert compare([half], [want], input_set=InputSet.RANDOM, flop=FLOP) is None  # sums of bfloat16 may


def test_nan_and_infinity_must_be_at_the_same_places() -> None:
    want = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert compare([want.copy()], [want], input_set=InputSet.EDGES, flop=4.0) is None
    for index in range(4):
        got = want.copy()
        got[index] = -np.inf if index != 2 else np.inf
        mismatch = compare([got], [want], input_set=InputSet.EDGES, flop=4.0)
        assert mismatch is not None and mismatch.index == (index,)


DTYPES = ["float16", "float32", "float64", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]


@given(dtype=st.sampled_from(DTYPES), input_set=st.sampled_from(list(InputSet)), seed=st.integers(0, 2**31))
def test_inputs_are_reproducible_finite_normal_and_index_safe(
    dtype: str, input_set: InputSet, seed: int
) -> None:
    args = (TensorSpec((3, 5), dtype), TensorSpec((2, 1), "float32"))
    first, second = make_inputs(args, input_set, seed), make_inputs(args, input_set, seed)
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()
    values = np.abs(first[0].astype(np.float64))
    assert first[0].shape == (3, 5)
    assert np.isfinite(values).all()
    if dtype.startswith(("float", "bfloat")):
        assert np.all((values == 0) | (values >= 2.0**-14))
    if dtype in ("int32", "int64"):
        assert values.max() < 2  # the smallest axis longer than 1
        assert first[0].min() >= 0
