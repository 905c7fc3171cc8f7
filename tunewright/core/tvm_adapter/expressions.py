"""Expressions of TIR that several kernels of ours are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import tvm


def named(value: Any, body: Callable[[Any], Any], *, dtype: str = "float32") -> Any:
    """`body` of a value that is computed once, however often it is used.

    Not in a function that others are fused behind: TVM copies the name with the value, which it refuses then.
    """
    name = tvm.tirx.Var("value", dtype)
    return tvm.tirx.Let(name, value, body(name))


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Of float32, the coefficient of the lowest power first."""
    *lower, result = (tvm.tirx.const(coefficient, "float32") for coefficient in coefficients)
    for coefficient in reversed(lower):
        result = result * x + coefficient
    return result
