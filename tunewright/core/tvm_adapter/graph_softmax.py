"""Softmax of rows that no vector divides, and its logarithm, written so that a schedule can use lanes.

TVM splits a reduction into lanes only where they divide it (a predicated block cannot be computed at a row's
loop); a row of 197 stays scalar. Here the lanes are part of the computation, and what reads past the end of a
row is guarded; `row_tiling` peels the guarded step off.
Of a log-softmax TVM has only a form that calls the C library for each number.
"""

from typing import Any

import tvm
from tvm import relax, te, topi
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.graph_rewrites import rewritten, static_shape
from tunewright.core.tvm_adapter.target import vector_lanes
from tunewright.core.types import TargetSpec

# LLVM unrolls the loops over shorter rows, and finds the vectors by itself: 17 to 120 numbers took 0.6 to 1.0
# of the time without lanes; 127 take 2, 197 and 200 1.8 times as long (one thread of a Zen 5).
_LONGEST_UNROLLED = 120
_LOG_SOFTMAX = tvm.ir.Op.get("relax.nn.log_softmax")
_SOFTMAX = tvm.ir.Op.get("relax.nn.softmax")


def softmax_in_lanes(mod: tvm.IRModule, target: TargetSpec) -> tvm.IRModule:
    """The module with each float32 softmax of long rows that are no whole vectors computed lane by lane,
    and with each float32 log-softmax of rows in vectors."""
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
        if lanes is None and not is_log:
            return call
        return self.builder_.call_te(
            lambda rows: _softmax(rows, lanes, is_log=is_log),
            call.args[0],
            primfunc_name_hint="log_softmax" if is_log else "softmax",
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
            value = tvm.tirx.if_then_else(column < length, source[(*row, column)], neutral)
            return reduce(value, axis=step)

        partial = te.compute((*outer, lanes), element, name=f"{name}_lanes")
        return te.compute(tuple(outer), lambda *row: reduce(partial[(*row, lane)], axis=lane), name=name)

    largest = reduced(rows, te.max, tvm.tirx.min_value("float32"), "largest")
    shifted = te.compute(rows.shape, lambda *index: rows[index] - largest[index[:-1]], name="shifted")
    powers = topi.fast_exp(shifted)
    total = reduced(powers, te.sum, tvm.tirx.const(0.0, "float32"), "total")
    if is_log:
        return te.compute(rows.shape, lambda *i: shifted[i] - te.log(total[i[:-1]]), name="log_softmax")
    return te.compute(rows.shape, lambda *i: powers[i] / total[i[:-1]], name="softmax")
