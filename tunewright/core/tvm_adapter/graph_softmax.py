"""Softmax of rows that no vector divides: sums in lanes, written so that a schedule can use them.

TVM splits a reduction into lanes only where they divide it (a predicated block cannot be computed at a row's
loop); a row of 197 stays scalar. Here the lanes are part of the computation, and what reads past the end of a
row is guarded; `row_tiling` peels the guarded step off.
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
_SOFTMAX = tvm.ir.Op.get("relax.nn.softmax")


def softmax_in_lanes(mod: tvm.IRModule, target: TargetSpec) -> tvm.IRModule:
    """The module with each float32 softmax of long rows that are no whole vectors computed lane by lane."""
    return rewritten(_Softmax(mod, vector_lanes(target)), mod)


@mutator
class _Softmax(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(self, mod: tvm.IRModule, lanes: int) -> None:
        super().__init__(mod)
        self._lanes = lanes

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if call.op != _SOFTMAX or not self._pays(call):
            return call
        return self.builder_.call_te(
            lambda rows: _softmax(rows, self._lanes), call.args[0], primfunc_name_hint="softmax"
        )

    def _pays(self, call: relax.Call) -> bool:
        shape = static_shape(call.ty)
        if shape is None or len(shape) < 2 or str(call.ty.dtype) != "float32":
            return False
        is_last = int(call.attrs.axis) in (-1, len(shape) - 1)
        return is_last and shape[-1] > _LONGEST_UNROLLED and shape[-1] % self._lanes != 0


def _softmax(rows: Any, lanes: int) -> Any:
    *outer, length = (int(extent) for extent in rows.shape)
    num_steps = -(-length // lanes)

    def reduced(source: Any, reduce: Any, neutral: Any, name: str) -> Any:
        """Of each row: one result per lane, then one of all."""
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
    return te.compute(rows.shape, lambda *index: powers[index] / total[index[:-1]], name="softmax")
