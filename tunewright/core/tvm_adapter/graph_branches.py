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

from tunewright.core.tvm_adapter.graph_rewrites import bindings, readers_of, rewritten

_MATMUL = tvm.ir.Op.get("relax.matmul")
_MOVES = {tvm.ir.Op.get(f"relax.{name}") for name in ("reshape", "permute_dims")}
_ELEMENTWISE = {tvm.ir.Op.get(f"relax.{name}") for name in ("add", "multiply", "divide", "subtract")}

Definitions = Mapping[relax.Var, relax.Expr]
Readers = Mapping[relax.Var, Sequence[relax.Binding]]


@dataclass(frozen=True, slots=True)
class _Branch:
    """One product of several: which, and the columns of the combined one that are its own."""

    members: Sequence[relax.Var]
    start: int
    stop: int


def combine_products(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with products of one activation and several weights combined, where their parts are free."""
    func = mod["main"]
    definitions = {binding.var: binding.value for binding in bindings(func)}
    branches = _find_branches(func, definitions)
    if not branches:
        return mod
    return relax.transform.DeadCodeElimination()(rewritten(_Combiner(mod, definitions, branches), mod))


def _find_branches(func: relax.Function, definitions: Definitions) -> dict[relax.Var, _Branch]:
    weights = _weights(func, definitions)
    readers = readers_of(func)
    groups: dict[relax.Var, list[relax.Var]] = {}
    for var, value in definitions.items():
        if isinstance(value, relax.Call) and value.op == _MATMUL and _is_moved(var, readers):
            left, right = value.args
            if left not in weights and right in weights and _is_static(right):
                groups.setdefault(left, []).append(var)
    branches = {}
    for members in groups.values():
        operands = [definitions[member].args[1] for member in members]
        dtypes = {str(value.ty.dtype) for value in (*members, *operands)}
        if len(members) < 2 or len(dtypes) > 1:
            continue
        start = 0
        for member, operand in zip(members, operands, strict=True):
            stop = start + int(operand.ty.shape.values[1])
            branches[member] = _Branch(members, start, stop)
            start = stop
    return branches


def _weights(func: relax.Function, definitions: Definitions) -> set[relax.Var]:
    """Parameters of a model, and what calls of single operators make of them alone."""
    weights = set(func.params[int(func.attrs["num_input"]) :])
    for var, value in definitions.items():
        if isinstance(value, relax.Call):
            tensors = [operand for operand in value.args if isinstance(operand, relax.Var | relax.Tuple)]
            if tensors and all(operand in weights for operand in tensors):
                weights.add(var)
    return weights


def _is_static(weight: relax.Expr) -> bool:
    extents = weight.ty.shape.values if isinstance(weight.ty.shape, relax.ShapeExpr) else ()
    return len(extents) == 2 and all(isinstance(extent, tvm.tirx.IntImm) for extent in extents)


def _is_moved(product: relax.Var, readers: Readers) -> bool:
    """Whether all that is done with a product is to add to it or scale it, and then to move its elements."""
    waiting, seen = [product], {product}
    while waiting:
        following = readers.get(waiting.pop(), ())
        for reader in following:
            op = reader.value.op if isinstance(reader.value, relax.Call) else None
            if op in _ELEMENTWISE and reader.var not in seen:
                seen.add(reader.var)
                waiting.append(reader.var)
            elif op not in _ELEMENTWISE | _MOVES:
                return False
        if not following:
            return False
    return True


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
