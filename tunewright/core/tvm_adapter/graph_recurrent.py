"""Each step of an unrolled LSTM becomes one kernel.

As ONNX has it, a step is a product and two kernels for its gates, each over in a few microseconds, as long as
it takes to start one: what cuDNN's and oneDNN's recurrent primitives fuse (Appleyard et al., "Optimizing
Performance of Recurrent Neural Networks on GPUs", 2016). Here a step reads the state and the inputs' gates,
and writes the next state, hidden and cell in one tensor; the four gates of a unit lie in one tile.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.expressions import named, polynomial
from tunewright.core.tvm_adapter.graph_rewrites import rewritten, static_shape

_KERNEL = "lstm_step"
_NUM_GATES = 4
_INPUT, _OUTPUT, _FORGET, _CELL = range(_NUM_GATES)  # in the order of ONNX
_OPS = {
    name: tvm.ir.Op.get(f"relax.{name}")
    for name in ("add", "matmul", "multiply", "sigmoid", "squeeze", "strided_slice", "take", "tanh")
}
# tanh as a quotient of polynomials, within a few units in the last place: Eigen's, as in topi.fast_tanh.
_TANH_LIMIT = 9.0
_TANH_ODD = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
_TANH_EVEN = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)

Definitions = Mapping[relax.Var, relax.Expr]


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step reads.

    `gates`: what the inputs of all steps add to the gates (steps, batch, 4 units). `index`: which of them.
    """

    gates: relax.Var
    index: relax.Expr
    hidden: relax.Var
    cell: relax.Var
    weight: relax.Var


def fuse_steps(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with the steps of its LSTMs as kernels, those behind the first of each."""
    definitions = {b.var: b.value for block in mod["main"].body.blocks for b in block.bindings}
    found = [(var, *step) for var in definitions if (step := _step_with_hidden(var, definitions)) is not None]
    if not found:
        return mod
    hidden = {var: cell for var, cell, _ in found}
    steps = {cell: step for _, cell, step in found}
    return relax.transform.DeadCodeElimination()(rewritten(_Fuser(mod, steps, hidden), mod))


def _step_with_hidden(hidden: relax.Var, definitions: Definitions) -> tuple[relax.Var, _Step] | None:
    """The cell state and the step of which a variable is the hidden state; None for any other."""
    match = _Match(definitions)
    for output, activated in match.gated(hidden):
        cell = match.only("tanh", activated)
        for kept, added in match.either("add", cell):
            for (forget, previous), (entry, new) in itertools.product(match.gated(kept), match.gated(added)):
                fresh = match.gate("tanh", new)
                if fresh is None:
                    continue
                totals, numbers = zip(entry, output, forget, fresh, strict=True)
                if len(set(totals)) == 1 and numbers == (_INPUT, _OUTPUT, _FORGET, _CELL):
                    step = match.step(totals[0], previous)
                    if step is not None:
                        return cell, step
    return None


class _Match:
    """Looks backwards through definitions; whatever does not fit is None, or nothing."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def _call(self, name: str, expr: Any) -> relax.Call | None:
        value = self._definitions.get(expr) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, relax.Call) and value.op == _OPS[name] else None

    def only(self, name: str, expr: Any) -> Any:
        """The operand of an operator of one."""
        call = self._call(name, expr)
        return None if call is None else call.args[0]

    def either(self, name: str, expr: Any) -> list[tuple[Any, Any]]:
        """The operands of a commutative operator, both ways round."""
        call = self._call(name, expr)
        return [] if call is None else [(call.args[0], call.args[1]), (call.args[1], call.args[0])]

    def gated(self, expr: Any) -> list[tuple[tuple[relax.Var, int], Any]]:
        """Each gate, behind its sigmoid, that an expression is the product of, and the other factor."""
        found = ((self.gate("sigmoid", left), right) for left, right in self.either("multiply", expr))
        return [(gate, factor) for gate, factor in found if gate is not None]

    def gate(self, activation: str, expr: Any) -> tuple[relax.Var, int] | None:
        """All gates before their activation, and which of them this is."""
        call = self._call("strided_slice", self.only(activation, expr))
        if call is None:
            return None
        total, axes, begin, end = (call.args[0], *map(_integers, call.args[1:4]))
        strides = _integers(call.args[4]) if len(call.args) > 4 else [1]
        shape = static_shape(total.ty)
        if shape is None or len(shape) != 2 or axes != [1] or strides != [1] or shape[1] % _NUM_GATES:
            return None
        units = shape[1] // _NUM_GATES
        return (total, begin[0] // units) if begin[0] % units == 0 and end[0] == begin[0] + units else None

    def step(self, total: relax.Var, cell: relax.Expr) -> _Step | None:
        """The step that adds up to `total`, if its types and shapes are those of the kernel."""
        for product, own in self.either("add", total):
            matmul = self._call("matmul", product)
            squeeze = self._call("squeeze", own)
            take = self._call("take", None if squeeze is None else squeeze.args[0])
            if matmul is None or squeeze is None or take is None:
                continue
            step = _Step(take.args[0], take.args[1], matmul.args[0], cell, matmul.args[1])
            gates, shape = static_shape(step.gates.ty), static_shape(total.ty)
            assert shape is not None
            batch, units = shape[0], shape[1] // _NUM_GATES
            fits = (
                gates is not None
                and len(gates) == 3
                and gates[1:] == shape
                and static_shape(step.index.ty) == (1,)
                and (take.attrs.axis is not None and int(take.attrs.axis) == 0)
                and static_shape(step.hidden.ty) == static_shape(step.cell.ty) == (batch, units)
                and static_shape(step.weight.ty) == (units, shape[1])
            )
            floats = (step.gates, step.hidden, step.cell, step.weight)
            if fits and all(str(operand.ty.dtype) == "float32" for operand in floats):
                return step
        return None


@mutator
class _Fuser(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    """Emits a step where its cell state was defined, and takes both states from it."""

    def __init__(
        self, mod: tvm.IRModule, steps: Mapping[relax.Var, _Step], hidden: Mapping[relax.Var, relax.Var]
    ) -> None:
        super().__init__(mod)
        self._steps = steps
        self._hidden = hidden
        self._states: dict[tuple[Any, Any], relax.Var] = {}  # by hidden and cell state
        self._weights: dict[Any, relax.Var] = {}
        self._emitted: dict[relax.Var, relax.Var] = {}  # by the cell state of a step

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if (step := self._steps.get(binding.var)) is not None:
            self._emitted[binding.var] = self._emit(step)
            self.set_var_remap(binding.var, self._part(self._emitted[binding.var], 1))
        elif (cell := self._hidden.get(binding.var)) is not None:
            hidden = self._part(self._emitted[cell], 0)
            self.set_var_remap(binding.var, hidden)
            self._states[(hidden, self.visit_expr(cell))] = self._emitted[cell]
        else:
            super().visit_var_binding_(binding)

    def _emit(self, step: _Step) -> relax.Var:
        emit = self.builder_.emit
        gates, index, hidden, cell, weight = (
            self.visit_expr(operand)
            for operand in (step.gates, step.index, step.hidden, step.cell, step.weight)
        )
        batch, units = static_shape(step.hidden.ty) or (0, 0)
        if (hidden, cell) not in self._states:
            rows = [emit(relax.op.reshape(part, (1, batch, units))) for part in (hidden, cell)]
            self._states[(hidden, cell)] = emit(relax.op.concat(rows, axis=0))
        if weight not in self._weights:
            self._weights[weight] = emit(relax.op.reshape(weight, (units, _NUM_GATES, units)))
        state, packed = self._states[(hidden, cell)], self._weights[weight]
        return emit(
            self.builder_.call_te(_step_kernel, gates, index, state, packed, primfunc_name_hint=_KERNEL)
        )

    def _part(self, state: relax.Var, number: int) -> relax.Var:
        _, batch, units = static_shape(state.ty) or (0, 0, 0)
        part = self.builder_.emit(relax.op.strided_slice(state, [0], [number], [number + 1]))
        return self.builder_.emit(relax.op.reshape(part, (batch, units)))


def _step_kernel(gates: Any, index: Any, state: Any, weight: Any) -> Any:
    """(2, batch, units): the hidden state, then the cell state."""
    _, batch, units = (int(extent) for extent in state.shape)
    depth = te.reduce_axis((0, units), name="depth")
    recurrent = te.compute(
        (batch, _NUM_GATES, units),
        lambda b, gate, unit: te.sum(state[0, b, depth] * weight[depth, gate, unit], axis=depth),
        name="recurrent",
    )

    def next_state(which: Any, b: Any, unit: Any) -> Any:
        def gate(number: int) -> Any:
            return recurrent[b, number, unit] + gates[index[0], b, number * units + unit]

        kept, added = _sigmoid(gate(_FORGET)) * state[1, b, unit], _sigmoid(gate(_INPUT)) * _tanh(gate(_CELL))
        return named(
            kept + added,
            lambda cell: tvm.tirx.Select(which == 0, _sigmoid(gate(_OUTPUT)) * _tanh(cell), cell),
        )

    return te.compute((2, batch, units), next_state, name="next_state")


def _sigmoid(value: Any) -> Any:
    half = tvm.tirx.const(0.5, "float32")
    return _tanh(value * half) * half + half


def _tanh(value: Any) -> Any:
    limit = tvm.tirx.const(_TANH_LIMIT, "float32")

    def quotient(x: Any) -> Any:
        return named(x * x, lambda square: x * polynomial(square, _TANH_ODD) / polynomial(square, _TANH_EVEN))

    return named(te.max(te.min(value, limit), -limit), quotient)


def _integers(expr: Any) -> list[int]:
    return [int(part.value) for part in expr.fields] if isinstance(expr, relax.Tuple) else []
