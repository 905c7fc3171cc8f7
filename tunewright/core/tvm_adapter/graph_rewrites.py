"""A whole model in operators and layouts that make fast kernels.

Vectors of channels divide evenly where images of 7, 27 or 56 columns do not; a pixel's channels lie side by
side for convolutions, depthwise ones, pooling and normalisation alike; and a 1 x 1 convolution becomes a
plain matrix product. `ConvertLayout` propagates the layout through what lies between two convolutions, so
that transposes are left only where a model's own operators need the other order.
What only changes a view is no copy, and what TVM would compute by a call of the C library for each element is
taken apart, so that it becomes polynomials in vectors.
"""

import math
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator


def rewrite(mod: tvm.IRModule) -> tvm.IRModule:
    """The model with its two-dimensional convolutions, and what is between them, in NHWC, and simplified."""
    mod = relax.transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})(mod)
    rewriter = _Simpler(mod)
    for var, func in list(mod.functions.items()):
        if isinstance(func, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
    return rewriter.builder_.get()


# What a GELU is called after it has been taken apart and fused.
GELU_LABEL = "multiply_multiply_fast_erf_multiply_add"
_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_GELU = tvm.ir.Op.get("relax.nn.gelu")
_RESHAPE = tvm.ir.Op.get("relax.reshape")
_TRANSPOSE = tvm.ir.Op.get("relax.permute_dims")


@mutator
class _Simpler(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def visit_call_(self, call: relax.Call) -> Any:
        call = self.visit_expr_post_order(call)
        if call.op == _RESHAPE:
            return relax.op.reshape(self._unreshaped(call.args[0]), call.args[1])
        if call.op == _TRANSPOSE:
            return self._transposed(call)
        if call.op == _CONVOLUTION and _is_matrix_product(call):
            data, weight = call.args
            return relax.op.matmul(data, relax.op.reshape(weight, weight.ty.shape.values[2:]))
        if call.op == _GELU:
            return self._gelu(call.args[0])
        return call

    def _gelu(self, value: relax.Expr) -> relax.Expr:
        """x / 2 (1 + erf(x / sqrt(2))) = h + h erf(x / sqrt(2)), with h = x / 2"""
        emit, dtype = self.builder_.emit, value.ty.dtype
        half = emit(relax.op.multiply(value, relax.const(0.5, dtype)))
        error = emit(relax.op.erf(emit(relax.op.multiply(value, relax.const(math.sqrt(0.5), dtype)))))
        return relax.op.add(half, emit(relax.op.multiply(half, error)))

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
        origin = self.lookup_binding(value) if isinstance(value, relax.Var) else None
        return origin.args[0] if isinstance(origin, relax.Call) and origin.op == _RESHAPE else value


def _is_matrix_product(convolution: relax.Call) -> bool:
    """Whether a convolution in NHWC looks at one pixel at a time, and at all of them."""
    attrs = convolution.attrs
    return (
        (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) == ("NHWC", "HWIO", "NHWC")
        and all(_is_one(extent) for extent in convolution.args[1].ty.shape.values[:2])
        and int(attrs.groups) == 1
        and all(int(stride) == 1 for stride in attrs.strides)
        and not any(int(padding) for padding in attrs.padding)
        and convolution.ty.dtype == convolution.args[0].ty.dtype
    )


def _is_one(extent: Any) -> bool:
    return isinstance(extent, tvm.tirx.IntImm) and int(extent) == 1
