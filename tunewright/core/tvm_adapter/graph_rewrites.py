"""A whole model in operators and layouts that make fast kernels.

Vectors of channels divide evenly where images of 7, 27 or 56 columns do not; a pixel's channels lie side by
side for convolutions, depthwise ones, pooling and normalisation alike; and a 1 x 1 convolution becomes a
plain matrix product. `ConvertLayout` propagates the layout through what lies between two convolutions, so
that transposes are left only where a model's own operators need the other order.
What only changes a view is no copy, and what TVM would compute by a call of the C library for each element is
taken apart, so that it becomes polynomials in vectors.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

logger = logging.getLogger(__name__)


def rewrite(mod: tvm.IRModule, warn: Callable[[str], None] = logger.warning) -> tvm.IRModule:
    """The model with its two-dimensional convolutions, and what is between them, in NHWC, and simplified.

    Args:
        warn: is told if TVM cannot change the layout.
    """
    mod = relax.transform.DeadCodeElimination()(rewritten(_Elementwise(mod), mod))
    try:
        mod = relax.transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})(mod)
    except Exception as exc:  # of several kinds, for operators whose layouts TVM cannot tell
        warn(f"the model's convolutions keep their layout, and are slower: {_first_line(exc)}")
    return rewritten(_Views(mod), mod)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


def rewritten(rewriter: PyExprMutator, mod: tvm.IRModule) -> tvm.IRModule:
    """The module with its Relax functions as the rewriter, made for it, leaves them."""
    for var, func in list(mod.functions.items()):
        if isinstance(func, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
    return rewriter.builder_.get()


def bindings(func: relax.Function) -> Iterator[relax.Binding]:
    """Those of all blocks of a function, in order."""
    for block in func.body.blocks:
        yield from block.bindings


def readers_of(func: relax.Function) -> dict[relax.Var, list[relax.Binding]]:
    """The bindings of a function that read each variable, in order; none of what is only returned."""
    readers: dict[relax.Var, list[relax.Binding]] = {}
    for binding in bindings(func):
        for var in relax.analysis.free_vars(binding.value):
            readers.setdefault(var, []).append(binding)
    return readers


def joined_axis(concat: relax.Call) -> int:
    """The axis that a concat joins along, counted from the front."""
    axis = int(concat.attrs.axis)
    return axis if axis >= 0 else axis + int(concat.ty.ndim)


def weight_values(
    mod: tvm.IRModule, params: Sequence[npt.NDArray[Any]], names: Sequence[str]
) -> dict[relax.Var, npt.NDArray[Any]]:
    """What the parameters of these names hold."""
    by_name = dict(zip(names, params, strict=True))
    functions = [func for func in mod.functions.values() if isinstance(func, relax.Function)]
    return {var: by_name[var.name] for func in functions for var in func.params if var.name in by_name}


def static_shape(ty: Any) -> tuple[int, ...] | None:
    """The shape of a tensor's type; None for other types, and where an extent is not known."""
    shape = ty.shape if isinstance(ty, relax.TensorType) else None
    if not isinstance(shape, relax.ShapeExpr):
        return None
    if not all(isinstance(extent, tvm.tirx.IntImm) for extent in shape.values):
        return None
    return tuple(int(extent) for extent in shape.values)


# What operators are called after they have been taken apart and fused.
LABELS = {
    "multiply_multiply_fast_erf_multiply_add": "gelu",
    "maximum_minimum": "clip",
    "tir_sqrt_tir_sqrt_multiply": "power",
    "tir_negative_fast_exp_add_divide": "sigmoid",
}
_IMAGE_RANK = 4
# Parts of one tensor: each has a loop of its own in the kernel that joins them.
_MOST_JOINED = 64
BINARY = [
    tvm.ir.Op.get(f"relax.{name}") for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")
]
_BROADCAST = tvm.ir.Op.get("relax.broadcast_to")
_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
_CLIP = tvm.ir.Op.get("relax.clip")
_CONCAT = tvm.ir.Op.get("relax.concat")
_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_GELU = tvm.ir.Op.get("relax.nn.gelu")
_MEAN = tvm.ir.Op.get("relax.mean")
_REDUCTIONS = {
    tvm.ir.Op.get("relax.max"): tvm.ir.Op.get("relax.maximum"),
    tvm.ir.Op.get("relax.min"): tvm.ir.Op.get("relax.minimum"),
    tvm.ir.Op.get("relax.sum"): tvm.ir.Op.get("relax.add"),
    _MEAN: tvm.ir.Op.get("relax.add"),
}
_RESHAPE = tvm.ir.Op.get("relax.reshape")
_STACK = tvm.ir.Op.get("relax.stack")
_TRANSPOSE = tvm.ir.Op.get("relax.permute_dims")


@mutator
class _Elementwise(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    """Operators of single elements in terms of those that TVM can vectorise, and carry a layout through."""

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if call.op == _GELU:
            return self._gelu(call.args[0])
        if call.op == _CLIP:
            return self._clip(*call.args)
        if call.op == _CALL_TIR:
            return self._bounded(call)
        if call.op in BINARY:
            return relax.Call(call.op, self._of_equal_rank(*call.args), call.attrs)
        if call.op in _REDUCTIONS:
            return self._of_several(call)
        return call

    def _of_several(self, call: relax.Call) -> relax.Expr:
        """TVM's importer stacks the operands of a Max, and reduces; ConvertLayout fails at a stack."""
        stack = _origin(self, call.args[0])
        is_stacked = isinstance(stack, relax.Call) and stack.op == _STACK and int(stack.attrs.axis) == 0
        if not is_stacked or call.attrs.keepdims or [int(axis) for axis in call.attrs.axis or []] != [0]:
            return call
        operator = _REDUCTIONS[call.op]
        first, *others = (self._unbroadcast(value) for value in _origin(self, stack.args[0]).fields)
        result = first
        for other in others:
            result = self.builder_.emit(relax.Call(operator, self._of_equal_rank(result, other)))
        if call.op == _MEAN:
            return relax.op.multiply(result, relax.const(1.0 / (1 + len(others)), call.ty.dtype))
        return result

    def _unbroadcast(self, value: relax.Expr) -> relax.Expr:
        origin = _origin(self, value)
        return origin.args[0] if isinstance(origin, relax.Call) and origin.op == _BROADCAST else value

    def _of_equal_rank(self, *operands: relax.Expr) -> list[relax.Expr]:
        """ConvertLayout takes operands of different ranks, but for scalars, for ones of unknown layouts."""
        ranks = [operand.ty.ndim for operand in operands]
        if min(ranks) < 1 or max(ranks) != _IMAGE_RANK or min(ranks) == max(ranks):
            return list(operands)
        return [
            operand
            if rank == _IMAGE_RANK
            else self.builder_.emit(
                relax.op.reshape(operand, (*[1] * (_IMAGE_RANK - rank), *operand.ty.shape.values))
            )
            for operand, rank in zip(operands, ranks, strict=True)
        ]

    def _gelu(self, value: relax.Expr) -> relax.Expr:
        """x / 2 (1 + erf(x / sqrt(2))) = h + h erf(x / sqrt(2)), with h = x / 2"""
        emit, dtype = self.builder_.emit, value.ty.dtype
        half = emit(relax.op.multiply(value, relax.const(0.5, dtype)))
        error = emit(relax.op.erf(emit(relax.op.multiply(value, relax.const(math.sqrt(0.5), dtype)))))
        return relax.op.add(half, emit(relax.op.multiply(half, error)))

    def _bounded(self, call: relax.Call) -> relax.Expr:
        """TVM's importer makes a Clip of ONNX two kernels at once, which hides from all passes what it is."""
        name = re.fullmatch(r"(maximum|minimum)\d*", str(call.args[0].name_hint))
        operands = list(call.args[1])
        if name is None or len(operands) != 2 or operands[1].ty.ndim != 0:
            return call
        return getattr(relax.op, name[1])(*operands)

    def _clip(self, value: relax.Expr, low: Any, high: Any) -> relax.Expr:
        """ConvertLayout knows no clip: it would put a transpose before and one behind it."""
        dtype = value.ty.dtype
        raised = self.builder_.emit(relax.op.maximum(value, relax.const(low.value, dtype)))
        return relax.op.minimum(raised, relax.const(high.value, dtype))


@mutator
class _Views(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    """What needs the final layout: transposes that are views, convolutions that are products."""

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if call.op == _RESHAPE:
            return relax.op.reshape(self._unreshaped(call.args[0]), call.args[1])
        if call.op == _TRANSPOSE:
            return self._transposed(call)
        if call.op == _CONCAT:
            return self._joined_at_once(call)
        if call.op == _CONVOLUTION and int(call.attrs.groups) == 1 and looks_at_single_pixels(call):
            data, weight = call.args
            weight = relax.op.reshape(weight, weight.ty.shape.values[2:])
            return relax.op.matmul(data, weight, out_dtype=str(call.ty.dtype))
        return call

    def _joined_at_once(self, call: relax.Call) -> relax.Expr:
        """Tensors that are joined to joined ones are joined at once: nobody may need what was between."""
        fields: list[relax.Expr] = []
        for field in self._fields(call.args[0]):
            origin = _origin(self, field)
            is_alike = isinstance(origin, relax.Call) and origin.op == _CONCAT
            if is_alike and joined_axis(origin) == joined_axis(call):
                fields += self._fields(origin.args[0])
            else:
                fields.append(field)
        return call if len(fields) > _MOST_JOINED else relax.op.concat(fields, axis=joined_axis(call))

    def _fields(self, value: relax.Expr) -> list[relax.Expr]:
        return list(_origin(self, value).fields)

    def _transposed(self, call: relax.Call) -> relax.Call:
        """A transpose that moves only axes of extent 1 becomes a reshape, which costs nothing."""
        source = call.args[0].ty
        if not isinstance(source, relax.TensorType) or not isinstance(source.shape, relax.ShapeExpr):
            return call
        extents = list(source.shape.values)
        axes = [int(axis) for axis in call.attrs.axes or reversed(range(len(extents)))]
        moved = [axis for axis in axes if not _is_one(extents[axis])]
        if moved != sorted(moved):
            return call
        return relax.op.reshape(self._unreshaped(call.args[0]), [extents[axis] for axis in axes])

    def _unreshaped(self, value: relax.Expr) -> relax.Expr:
        """Of a reshaped value the value: TVM takes one reshape for a view, but not two."""
        origin = _origin(self, value)
        return origin.args[0] if isinstance(origin, relax.Call) and origin.op == _RESHAPE else value


def _origin(rewriter: PyExprMutator, value: relax.Expr) -> relax.Expr:
    """What a variable is bound to; None where it is a parameter."""
    return rewriter.lookup_binding(value) if isinstance(value, relax.Var) else value


def looks_at_single_pixels(convolution: relax.Call) -> bool:
    """Whether a convolution in NHWC looks at one pixel at a time, and at all of them."""
    attrs = convolution.attrs
    return (
        (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) == ("NHWC", "HWIO", "NHWC")
        and all(_is_one(extent) for extent in convolution.args[1].ty.shape.values[:2])
        and all(int(stride) == 1 for stride in attrs.strides)
        and not any(int(padding) for padding in attrs.padding)
    )


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tvm.tirx.IntImm) and int(extent) == 1
