"""Is a kernel's output right? Compared with the unscheduled kernel's, as exactly as its types allow."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunewright.workers.inputs import Array, InputSet, is_float

# Rounding errors of a sum of K terms grow like sqrt(K); the factor leaves room for fused multiply-adds,
# other summation orders and library functions. A wrong kernel is off by the size of its values.
_ERROR_FACTOR = 8.0
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_COARSE_EPSILON = 2.0**-2  # 8-bit floats
# A quantised output that lies between two steps may be rounded to either, as the float before it rounds.
_QUANTISED = ("int8", "uint8")
_MAX_SHARE_BETWEEN_STEPS = 1e-3


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where the first (worst) wrong element is; `index` is into output number `output`."""

    input_set: InputSet
    output: int
    index: tuple[int, ...]
    expected: float
    actual: float
    tolerance: float
    num_wrong: int
    num_elements: int

    def __str__(self) -> str:
        return (
            f"output {self.output} is wrong on input set '{self.input_set}' in {self.num_wrong} of "
            f"{self.num_elements} elements; worst at {list(self.index)}: {self.actual!r} instead of "
            f"{self.expected!r} (tolerance {self.tolerance:.3g})"
        )


def reduction_length(flop: float, outputs: Sequence[Array]) -> float:
    """How many terms an output element sums at most on average: the operations spent on it."""
    return max(1.0, flop / max(1, sum(output.size for output in outputs)))


def compare(
    actual: Sequence[Array],
    expected: Sequence[Array],
    *,
    input_set: InputSet,
    flop: float,
    accumulators: Collection[str] = (),
) -> Mismatch | None:
    """The worst mismatch of the first output that has one, or None if all are right.

    Integers, booleans and pure data movement (`flop` == 0) must agree exactly; so must floating-point
    outputs of the INTEGERS set that are exact integers. All others may differ by
    8 * eps * sqrt(K) * max|expected|, K being the reduction length; where sums are wider than the output, by
    8 * (eps of the sums * sqrt(K) + eps of the output) * max|expected|. Of 8-bit integers one in 1000 may
    differ by 1. NaN and infinities must be at the same places.

    Args:
        accumulators: the types in which the kernel sums; none where it sums nothing.
    """
    terms = reduction_length(flop, expected)
    for position, (got, want) in enumerate(zip(actual, expected, strict=True)):
        if got.shape != want.shape or got.dtype != want.dtype:
            raise ValueError(
                f"output {position} is {got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
            )
        if flop > 0 and want.dtype.name in _QUANTISED and _rounds_otherwise(got, want):
            continue
        tolerance = _tolerance(want, input_set, terms, accumulators) if flop > 0 else 0.0
        mismatch = _compare_one(got, want, tolerance, input_set, position)
        if mismatch is not None:
            return mismatch
    return None


def _rounds_otherwise(got: Array, want: Array) -> bool:
    steps = np.abs(got.astype(np.int16) - want)
    return bool(
        steps.max(initial=0) <= 1 and np.count_nonzero(steps) <= _MAX_SHARE_BETWEEN_STEPS * steps.size
    )


def _tolerance(want: Array, input_set: InputSet, terms: float, accumulators: Collection[str]) -> float:
    if not is_float(want.dtype):
        return 0.0
    epsilon = _EPSILON.get(want.dtype.name, _COARSE_EPSILON)
    wide = want.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    largest = float(np.abs(finite).max(initial=0.0))
    if input_set is InputSet.INTEGERS and largest * epsilon < 1.0 and not np.any(finite % 1.0):
        return 0.0
    sums = max((_EPSILON.get(name, _COARSE_EPSILON) for name in accumulators), default=epsilon)
    error = sums * math.sqrt(terms) + epsilon if sums < epsilon else epsilon * math.sqrt(terms)
    return _ERROR_FACTOR * error * largest


def _compare_one(
    got: Array, want: Array, tolerance: float, input_set: InputSet, position: int
) -> Mismatch | None:
    if np.array_equal(got, want):
        return None
    if is_float(want.dtype):
        got, want = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(got - want)
        same = (got == want) | (np.isnan(got) & np.isnan(want))  # the same infinity differs by NaN
        error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
    else:
        error = (got != want).astype(np.float64)
    wrong = error > tolerance
    if not wrong.any():
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    return Mismatch(
        input_set=input_set,
        output=position,
        index=index,
        expected=_scalar(want[index]),
        actual=_scalar(got[index]),
        tolerance=tolerance,
        num_wrong=int(wrong.sum()),
        num_elements=int(wrong.size),
    )


def _scalar(value: Any) -> float:
    return float(value)
