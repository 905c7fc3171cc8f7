"""The arrays that kernels are timed and verified on: the same seed gives the same arrays everywhere.

No value is NaN, infinite or denormal. Integers may be indices into another argument (take, embedding), so
they are small and non-negative, unless their type is too narrow to index with.
"""

import math
import zlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.core.types import TensorSpec

Array = npt.NDArray[Any]

_NARROW_INTEGERS = ("int8", "uint8", "int16", "uint16")
_SMALLEST_NORMAL = np.float32(2.0**-14)  # of float16, which has the fewest exponents
_EDGE_EXPONENT = {"float16": 3}  # 2^±3: sums of products must not overflow in any order
_DEFAULT_EDGE_EXPONENT = 12
# Larger arrays repeat themselves: drawing every element took a third of the time that binding a kernel with
# large weights takes. A prime, so that no kernel that mixes up rows, planes or tiles reads equal values.
_PERIOD = 65521


class InputSet(StrEnum):
    """Three ways to fill a kernel's arguments; a candidate is timed on RANDOM."""

    RANDOM = "random"  # uniform in [-0.5, 1.5): signed, but sums do not cancel
    INTEGERS = "integers"  # 1, 2, 3 or 4: sums and products are exact in float32
    EDGES = "edges"  # zeros, and magnitudes far apart


def make_inputs(args: Sequence[TensorSpec], input_set: InputSet, seed: int) -> list[Array]:
    """One array per argument, outputs included (they are poisoned before a kernel runs)."""
    index_limit = _index_limit(args)
    return [
        _fill(
            spec,
            input_set,
            np.random.default_rng((seed, position, zlib.crc32(input_set.encode()))),
            index_limit,
        )
        for position, spec in enumerate(args)
    ]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of a TVM type name; bfloat16 and the 8-bit floats come from ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type round; ml_dtypes' types are of numpy's kind "V"."""
    return dtype.kind in "fV"


def _index_limit(args: Sequence[TensorSpec]) -> int:
    """Indices below this are inside every axis longer than 1; at least 2, at most 4."""
    extents = [extent for spec in args for extent in spec.shape if extent > 1]
    return min(4, min(extents, default=2))


def _fill(spec: TensorSpec, input_set: InputSet, rng: np.random.Generator, index_limit: int) -> Array:
    size = math.prod(spec.shape)
    values = _draw(spec, input_set, rng, index_limit, min(size, _PERIOD))
    return np.resize(values, spec.shape) if size > _PERIOD else values.reshape(spec.shape)


def _draw(
    spec: TensorSpec, input_set: InputSet, rng: np.random.Generator, index_limit: int, size: int
) -> Array:
    dtype = numpy_dtype(spec.dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, size).astype(dtype)
    if spec.dtype in _NARROW_INTEGERS:
        if input_set is InputSet.EDGES and dtype.itemsize == 1:  # sums of wider products may overflow
            limits = np.iinfo(dtype)
            values = np.array([limits.min, 0, 1, limits.max // 2 + 1, limits.max])
            return values[rng.integers(0, len(values), size)].astype(dtype)
        low = 0 if dtype.kind == "u" else -4
        return rng.integers(low, 5, size).astype(dtype)
    if not is_float(dtype):
        return rng.integers(0, index_limit, size).astype(dtype)
    match input_set:
        case InputSet.RANDOM:
            values = rng.random(size, dtype=np.float32) * np.float32(2.0) - np.float32(0.5)
            # Denormals take other paths of the CPU, and some kernels flush them.
            return np.where(np.abs(values) < _SMALLEST_NORMAL, _SMALLEST_NORMAL, values).astype(dtype)
        case InputSet.INTEGERS:
            return rng.integers(1, 5, size).astype(dtype)
        case InputSet.EDGES:
            exponent = _EDGE_EXPONENT.get(spec.dtype, _DEFAULT_EDGE_EXPONENT)
            large, small = 2.0**exponent, 2.0**-exponent
            values = np.array([0.0, 0.0, 1.0, -1.0, small, -1.5 * small, large, 1.25 * large, -0.5 * large])
            return values[rng.integers(0, len(values), size)].astype(dtype)
