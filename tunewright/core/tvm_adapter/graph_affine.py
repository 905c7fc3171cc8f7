"""Chains of multiplications and additions by weights, as one multiplication and one addition.

A batch norm that no convolution precedes is (x - mean) / sqrt(variance + e) gamma + beta, often with a scale
of its own behind it: six operations, one of them a division, of which five only tell what the channel's one
factor and one summand are. Those are computed where a model is loaded.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.ir.expr import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.graph_rewrites import bindings, rewritten, static_shape

_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE = (
    tvm.ir.Op.get(f"relax.{name}") for name in ("add", "subtract", "multiply", "divide")
)
_FACTORS = (_MULTIPLY, _DIVIDE)


def scaled_once(mod: tvm.IRModule, weights: Collection[str]) -> tvm.IRModule:
    """The module with each chain of float32 operations by weights as x scale + shift, where that is shorter.

    Results differ by rounding.

    Args:
        weights: names of the main function's parameters that are weights.
    """
    remove_dead = relax.transform.DeadCodeElimination()  # before: what nobody reads is no use of a result
    mod = remove_dead(mod)
    return remove_dead(rewritten(_Affine(mod, frozenset(weights)), mod))


@dataclass(frozen=True, slots=True)
class _Chain:
    """`steps`: operators and their weights, applied to `source` one after the other."""

    source: relax.Var
    steps: tuple[tuple[Any, relax.Expr], ...]

    @property
    def is_long(self) -> bool:
        """Whether it has more than a factor and a summand after it, in this order."""
        are_factors = [operator in _FACTORS for operator, _ in self.steps]
        return are_factors not in ([True], [False], [True, False])


@mutator
class _Affine(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(self, mod: tvm.IRModule, weights: frozenset[str]) -> None:
        super().__init__(mod)
        self._weights = weights
        self._chains: dict[relax.Var, _Chain] = {}

    def visit_function_(self, func: relax.Function) -> relax.Function:
        self._chains = _chains(func, self._weights)
        return super().visit_function_(func)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        chain = self._chains.get(binding.var)
        if chain is None or not chain.is_long:
            super().visit_var_binding_(binding)
            return
        scale, shift = self._scale_and_shift(chain)
        result = self.visit_expr(chain.source)
        if scale is not None:
            result = relax.op.multiply(result, scale)
        if shift is not None:
            result = relax.op.add(self.builder_.emit(result) if scale is not None else result, shift)
        super().visit_var_binding_(relax.VarBinding(binding.var, result))

    def _scale_and_shift(self, chain: _Chain) -> tuple[relax.Expr | None, relax.Expr | None]:
        scale: relax.Expr | None = None
        shift: relax.Expr | None = None
        for operator, weight in chain.steps:
            operand = self.visit_expr(weight)
            if operator in _FACTORS:
                if operator == _DIVIDE:
                    one = relax.const(1.0, "float32")
                    operand = self.builder_.emit(relax.op.divide(one, operand))
                scale = self._joined(relax.op.multiply, scale, operand)
                shift = None if shift is None else self._joined(relax.op.multiply, shift, operand)
            elif operator == _SUBTRACT:
                negative = self.builder_.emit(relax.op.negative(operand))
                shift = self._joined(relax.op.add, shift, negative)
            else:
                shift = self._joined(relax.op.add, shift, operand)
        return scale, shift

    def _joined(
        self, join: Callable[..., relax.Expr], left: relax.Expr | None, right: relax.Expr
    ) -> relax.Expr:
        return right if left is None else self.builder_.emit(join(left, right))


def _chains(func: relax.Function, weights: frozenset[str]) -> dict[relax.Var, _Chain]:
    """By the variable that a chain ends with; only the last of a chain may be read more than once."""
    uses: Counter[relax.Var] = Counter()
    for binding in bindings(func):
        relax.analysis.post_order_visit(
            binding.value, lambda expr: uses.update([expr] if isinstance(expr, relax.Var) else [])
        )
    uses.update(relax.analysis.free_vars(func.body.body))
    known: set[relax.Var] = {param for param in func.params if param.name in weights}
    chains: dict[relax.Var, _Chain] = {}
    for binding in bindings(func):
        value = binding.value
        if _is_weight(value, known):
            known.add(binding.var)
        step = _step(value, known)
        if step is None:
            continue
        source, operator, weight = step
        before = chains.get(source)
        if before is not None and uses[source] == 1:
            chains[binding.var] = _Chain(before.source, (*before.steps, (operator, weight)))
        else:
            chains[binding.var] = _Chain(source, ((operator, weight),))
    return chains


def _step(value: relax.Expr, weights: set[relax.Var]) -> tuple[relax.Var, Any, relax.Expr] | None:
    """What one operation by a weight does to which variable of the same shape."""
    if not isinstance(value, relax.Call) or value.op not in (_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE):
        return None
    left, right = value.args
    if value.op in (_ADD, _MULTIPLY) and _is_weight(left, weights):
        left, right = right, left
    if not isinstance(left, relax.Var) or _is_weight(left, weights) or not _is_weight(right, weights):
        return None
    shape = static_shape(value.ty)
    if shape is None or static_shape(left.ty) != shape or str(value.ty.dtype) != "float32":
        return None
    return (left, value.op, right) if _is_of_channels(right, len(shape)) else None


def _is_of_channels(weight: relax.Expr, ndim: int) -> bool:
    """Whether it varies along one axis at most: products of others might be larger than they are."""
    shape = static_shape(weight.ty)
    return shape is not None and len(shape) <= ndim and sum(extent > 1 for extent in shape) <= 1


def _is_weight(value: relax.Expr, known: set[relax.Var]) -> bool:
    if isinstance(value, relax.Var):
        return value in known
    if isinstance(value, relax.Call):
        operands = [arg for arg in value.args if not isinstance(arg, relax.ShapeExpr | tvm.ir.Op)]
        return bool(operands) and all(_is_weight(operand, known) for operand in operands)
    return isinstance(value, GenericConst)
