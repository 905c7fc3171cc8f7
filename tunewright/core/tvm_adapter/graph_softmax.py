"""Softmax and its logarithm, written so that a schedule can use lanes.

The powers are of numbers that are not positive, which takes fewer steps than TVM's polynomial does, and each
is multiplied by a row's inverse instead of being divided.
TVM splits a reduction into lanes only where they divide it (a predicated block cannot be computed at a row's
loop); a row of 197 would stay scalar. So the lanes are part of the computation there, and what reads past the
end of a row is guarded; `row_tiling` peels the guarded step off.
Of a log-softmax TVM has only a form that calls the C library for each number.
"""

import math
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.expressions import (
    LOG_2_HIGH,
    LOG_2_LOW,
    MANTISSA_BITS,
    float32,
    named,
    polynomial,
)
from tunewright.core.tvm_adapter.graph_fusion import OPAQUE
from tunewright.core.tvm_adapter.graph_rewrites import rewritten, static_shape
from tunewright.core.tvm_adapter.target import vector_lanes
from tunewright.core.types import TargetSpec

# LLVM unrolls the loops over shorter rows, and finds the vectors by itself: 17 to 120 numbers took 0.6 to 1.0
# of the time without lanes; 127 take 2, 197 and 200 1.8 times as long (one thread of a Zen 5).
_LONGEST_UNROLLED = 120
# Powers of smaller numbers are no normal numbers any more.
_LEAST_EXPONENT = -87.0
_LOG_2_OF_E = math.log2(math.e)
# Added to a number of this size, another one is rounded to a whole one, which the lowest bits hold.
_ROUNDING = 1.5 * 2.0**23
_ONE_BITS = 0x3F800000
# exp x = 1 + x + x^2 (...) where |x| <= log(2) / 2: least largest relative error (3e-9), by least squares
# whose weights were raised where the error was large.
_EXP_TERMS = (1.0, 1.0, 0.49999993432, 0.16666520399, 0.04166839079, 0.00836874512, 0.00138145400)
_LOG_SOFTMAX = tvm.ir.Op.get("relax.nn.log_softmax")
_SOFTMAX = tvm.ir.Op.get("relax.nn.softmax")


def softmax_in_lanes(mod: tvm.IRModule, target: TargetSpec) -> tvm.IRModule:
    """The module with each float32 softmax and log-softmax of rows as one function; of long rows that are no
    whole vectors lane by lane."""
    return rewritten(_Softmax(mod, vector_lanes(target)), mod)


@mutator
class _Softmax(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(self, mod: tvm.IRModule, lanes: int) -> None:
        super().__init__(mod)
        self._lanes = lanes

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        length = _row_length(call) if call.op in (_SOFTMAX, _LOG_SOFTMAX) else None
        if length is None:
            return call
        is_log = call.op == _LOG_SOFTMAX
        lanes = self._lanes if length > _LONGEST_UNROLLED and length % self._lanes else None
        return self.builder_.call_te(
            lambda rows: _softmax(rows, lanes, is_log=is_log),
            call.args[0],
            primfunc_name_hint="log_softmax" if is_log else "softmax",
            primfunc_attrs={"op_pattern": OPAQUE},  # its expressions have names
        )


def _row_length(call: relax.Call) -> int | None:
    """Of the last axis, where a softmax is over it and has rows; else None."""
    shape = static_shape(call.ty)
    if shape is None or len(shape) < 2 or str(call.ty.dtype) != "float32":
        return None
    return shape[-1] if int(call.attrs.axis) in (-1, len(shape) - 1) else None


def _softmax(rows: Any, lanes: int | None, *, is_log: bool) -> Any:
    """`lanes`: what the sums are written in, None for a schedule to choose."""
    *outer, length = (int(extent) for extent in rows.shape)

    def reduced(source: Any, reduce: Any, neutral: Any, name: str) -> Any:
        """Of each row: one result per lane, then one of all."""
        if lanes is None:
            column = te.reduce_axis((0, length), name="column")
            return te.compute(
                tuple(outer), lambda *row: reduce(source[(*row, column)], axis=column), name=name
            )
        num_steps = -(-length // lanes)
        step = te.reduce_axis((0, num_steps), name="step")
        lane = te.reduce_axis((0, lanes), name="lane")

        def element(*index: Any) -> Any:
            *row, own_lane = index
            column = step * lanes + own_lane
            value = tirx.if_then_else(column < length, source[(*row, column)], neutral)
            return reduce(value, axis=step)

        partial = te.compute((*outer, lanes), element, name=f"{name}_lanes")
        return te.compute(tuple(outer), lambda *row: reduce(partial[(*row, lane)], axis=lane), name=name)

    largest = reduced(rows, te.max, tirx.min_value("float32"), "largest")
    if is_log:
        shifted = te.compute(rows.shape, lambda *index: rows[index] - largest[index[:-1]], name="shifted")
        powers = te.compute(rows.shape, lambda *index: _power(shifted[index]), name="powers")
        total = reduced(powers, te.sum, float32(0.0), "total")
        return te.compute(rows.shape, lambda *i: shifted[i] - te.log(total[i[:-1]]), name="log_softmax")
    powers = te.compute(rows.shape, lambda *i: _power(rows[i] - largest[i[:-1]]), name="powers")
    total = reduced(powers, te.sum, float32(0.0), "total")
    inverse = te.compute(tuple(outer), lambda *row: float32(1.0) / total[row], name="inverse")
    return te.compute(rows.shape, lambda *i: powers[i] * inverse[i[:-1]], name="softmax")


def _power(exponent: Any) -> Any:
    """e^x of x <= 0, as 2^n e^r where n is whole; 1.6e-38 of what is smaller than -87. NaN stays NaN."""

    def of_rounded(x: Any, shifted: Any) -> Any:
        bits = (tirx.reinterpret("int32", shifted) << MANTISSA_BITS) + _ONE_BITS

        def of_whole(whole: Any) -> Any:
            rest = x - whole * float32(LOG_2_HIGH) - whole * float32(LOG_2_LOW)
            return named(rest, lambda r: polynomial(r, _EXP_TERMS)) * tirx.reinterpret("float32", bits)

        return named(shifted - float32(_ROUNDING), of_whole)

    def of_limited(x: Any) -> Any:
        return named(x * float32(_LOG_2_OF_E) + float32(_ROUNDING), lambda shifted: of_rounded(x, shifted))

    return named(tirx.max(float32(_LEAST_EXPONENT), exponent), of_limited)
