"""Expressions of TIR that several kernels of ours are made of."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import tvm

# Bits of a float32 below its exponent.
MANTISSA_BITS = 23
# log 2 in two numbers: products of the first one with a whole exponent are exact.
LOG_2_HIGH = 0.693359375
LOG_2_LOW = math.log(2.0) - LOG_2_HIGH


def float32(value: float) -> Any:
    """A constant."""
    return tvm.tirx.const(value, "float32")


def named(value: Any, body: Callable[[Any], Any], *, dtype: str = "float32") -> Any:
    """`body` of a value that is computed once, however often it is used.

    Not in a function that others are fused behind: TVM copies the name with the value, which it refuses then.
    """
    name = tvm.tirx.Var("value", dtype)
    return tvm.tirx.Let(name, value, body(name))


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Of float32, the coefficient of the lowest power first."""
    *lower, result = map(float32, coefficients)
    for coefficient in reversed(lower):
        result = result * x + coefficient
    return result


def joined(parts: Sequence[Any]) -> Callable[..., Any]:
    """What reads tensors by an index into all of them, joined along their last axis."""
    *others, last = zip(parts, accumulate((int(part.shape[-1]) for part in parts), initial=0), strict=False)

    def element(*index: Any) -> Any:
        *outer, channel = index
        tensor, start = last
        value = tensor[(*outer, channel - start if start else channel)]
        for tensor, start in reversed(others):
            own = tensor[(*outer, channel - start if start else channel)]
            value = tvm.tirx.if_then_else(channel < start + int(tensor.shape[-1]), own, value)
        return value

    return element
