"""Products that read the same activation become one: queries, keys and values of an attention layer.

One kernel of three times the columns has more tiles to share among threads, reads its input once, and is
started once. Its parts are slices of columns; they are free where what follows moves the elements anyway, as
the split into heads does, for then slice, bias, reshape and transpose are one kernel. Elsewhere they would be
copies, so such branches (those of an Inception block) stay apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

_MATMUL = tvm.ir.Op.get("relax.matmul")
_RESHAPE = tvm.ir.Op.get("relax.reshape")
_TRANSPOSE = tvm.ir.Op.get("relax.permute_dims")
_ELEMENTWISE = {tvm.ir.Op.get(f"relax.{name}") for name in ("add", "multiply", "divide", "subtract")}
_NUM_INPUT = "num_input"

Definitions = Mapping[relax.Var, relax.Expr]


@dataclass(frozen=True, slots=True)
class _Branch:
    """One product of several: which, and the columns of the combined one that are its own."""

    members: Sequence[relax.Var]
    start: int
    stop: int


def combine_products(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with products of one activation and several weights combined, where their parts are free."""
    for var, func in list(mod.functions.items()):
        if not isinstance(func, relax.Function) or _NUM_INPUT not in (func.attrs or {}):
            continue
        definitions = {binding.var: binding.value for block in func.body.blocks for binding in block.bindings}
        branches = _find_branches(func, definitions)
        if branches:
            rewriter = _Combiner(mod, definitions, branches)
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
            mod = relax.transform.DeadCodeElimination()(rewriter.builder_.get())
    return mod


def _find_branches(func: relax.Function, definitions: Definitions) -> dict[relax.Var, _Branch]:
    inputs = set(func.params[: int(func.attrs[_NUM_INPUT])])
    readers: dict[relax.Var, list[relax.Var]] = {}
    for var, value in definitions.items():
        if isinstance(value, relax.Call):
            for operand in value.args:
                if isinstance(operand, relax.Var):
                    readers.setdefault(operand, []).append(var)
    groups: dict[relax.Var, list[relax.Var]] = {}
    for var, value in definitions.items():
        if (
            isinstance(value, relax.Call)
            and value.op == _MATMUL
            and _is_weight(value.args[1], definitions, inputs)
            and not _is_weight(value.args[0], definitions, inputs)
            and _is_static(value.args[1])
            and _moves(var, definitions, readers)
        ):
            groups.setdefault(value.args[0], []).append(var)
    branches = {}
    for members in groups.values():
        weights = [definitions[member].args[1] for member in members]
        alike = {
            (str(weight.ty.dtype), str(definitions[m].ty.dtype))
            for weight, m in zip(weights, members, strict=True)
        }
        if len(members) < 2 or len(alike) > 1:
            continue
        start = 0
        for member, weight in zip(members, weights, strict=True):
            stop = start + int(weight.ty.shape.values[1])
            branches[member] = _Branch(members, start, stop)
            start = stop
    return branches


def _is_weight(expr: relax.Expr, definitions: Definitions, inputs: set[relax.Var]) -> bool:
    """Whether an operand depends on weights alone, by calls of single operators."""
    if not isinstance(expr, relax.Var):
        return not isinstance(expr, relax.Tuple)
    value = definitions.get(expr)
    if value is None:
        return expr not in inputs
    return isinstance(value, relax.Call) and all(_is_weight(one, definitions, inputs) for one in value.args)


def _is_static(weight: relax.Expr) -> bool:
    extents = weight.ty.shape.values if isinstance(weight.ty.shape, relax.ShapeExpr) else ()
    return len(extents) == 2 and all(isinstance(extent, tvm.tirx.IntImm) for extent in extents)


def _moves(
    var: relax.Var, definitions: Definitions, readers: Mapping[relax.Var, Sequence[relax.Var]]
) -> bool:
    """Whether all that is done with a product is to add to it or scale it, and then to move its elements."""
    following = [(reader, definitions[reader].op) for reader in readers.get(var, ())]
    return bool(following) and all(
        op in (_RESHAPE, _TRANSPOSE) or (op in _ELEMENTWISE and _moves(reader, definitions, readers))
        for reader, op in following
    )


@mutator
class _Combiner(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(
        self, mod: tvm.IRModule, definitions: Definitions, branches: Mapping[relax.Var, _Branch]
    ) -> None:
        super().__init__(mod)
        self._definitions = definitions
        self._branches = branches
        self._combined: dict[relax.Var, relax.Var] = {}  # by the first member

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        branch = self._branches.get(binding.var)
        if branch is None:
            super().visit_var_binding_(binding)
            return
        first = branch.members[0]
        if first not in self._combined:
            self._combined[first] = self._combine(branch.members)
        combined = self._combined[first]
        part = relax.op.strided_slice(combined, [combined.ty.ndim - 1], [branch.start], [branch.stop])
        self.set_var_remap(binding.var, self.builder_.emit(part))

    def _combine(self, members: Sequence[relax.Var]) -> relax.Var:
        calls = [self._definitions[member] for member in members]
        weights = self.builder_.emit(relax.op.concat([self._early(call.args[1]) for call in calls], axis=1))
        product = relax.op.matmul(self.visit_expr(calls[0].args[0]), weights, str(calls[0].ty.dtype))
        return self.builder_.emit(product)

    def _early(self, weight: Any) -> relax.Expr:
        """A weight that may be defined only after the first product; what that makes twice is removed."""
        value = self._definitions.get(weight) if isinstance(weight, relax.Var) else None
        if not isinstance(value, relax.Call):
            return self.visit_expr(weight)
        operands = [self._early(operand) for operand in value.args]
        return self.builder_.emit(relax.Call(value.op, operands, value.attrs))
