"""Grouped convolutions of single pixels as a product for each group.

A group's columns are seldom whole vectors (34 of ShuffleNet's 136), and a convolution finds the group of a
column by division, so that its columns cannot be padded to whole ones. With the groups as an axis of their
own it is a batch of products, whose columns can be. The elementwise operations behind it keep that axis, or
the vectors of their outputs would cross groups. Images change their rank by views, which cost nothing.
"""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, te, topi
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.graph_fusion import OPAQUE, OUT_ELEMENTWISE_FUSIBLE
from tunewright.core.tvm_adapter.graph_rewrites import BINARY, looks_at_single_pixels, rewritten, static_shape

_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_UNARY = [
    tvm.ir.Op.get(f"relax.{name}")
    for name in (
        *("abs", "erf", "exp", "log", "negative", "rsqrt", "sigmoid", "sqrt", "square", "tanh"),
        *("nn.leakyrelu", "nn.relu", "nn.silu"),
    )
]
_IMAGE_RANK = 4


def groups_apart(mod: tvm.IRModule) -> tvm.IRModule:
    """The module, its images in NHWC, with grouped 1 x 1 convolutions as products with an axis of groups."""
    return rewritten(_Grouped(mod), mod)


@mutator
class _Grouped(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self._apart: dict[relax.Var, relax.Var] = {}  # images that are computed with an axis of groups
        self._joined: dict[relax.Var, relax.Var] = {}  # their views, for whoever else reads them

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        apart = self._computed_apart(binding.value)
        if apart is None:
            super().visit_var_binding_(binding)
        elif isinstance(binding.var, relax.DataflowVar):
            self._apart[binding.var] = apart
        else:  # an output
            super().visit_var_binding_(relax.VarBinding(binding.var, self._joined_axes(apart)))

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        if var not in self._apart:
            return super().visit_dataflow_var_(var)
        if var not in self._joined:
            self._joined[var] = self._joined_axes(self._apart[var])
        return self._joined[var]

    def _computed_apart(self, value: relax.Expr) -> relax.Var | None:
        if not isinstance(value, relax.Call):
            return None
        if value.op == _CONVOLUTION and _is_grouped_product(value):
            return self._product(value)
        if value.op in BINARY or value.op in _UNARY:
            return self._elementwise(value)
        return None

    def _product(self, convolution: relax.Call) -> relax.Var:
        data, weight = convolution.args
        num_groups = int(convolution.attrs.groups)
        depth, columns = static_shape(weight.ty)[2:]  # type: ignore[index]
        shape = (depth, num_groups, columns // num_groups)
        weight = self.builder_.emit(relax.op.reshape(self.visit_expr(weight), shape))
        image = self._split(data, num_groups)
        return self.builder_.emit_te(
            _products,
            image,
            weight,
            primfunc_name_hint="grouped_conv2d",
            primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSIBLE},
        )

    def _elementwise(self, call: relax.Call) -> relax.Var | None:
        """None where no operand has an axis of groups, or one does not fit to it."""
        known = [self._apart[arg] for arg in call.args if isinstance(arg, relax.Var) and arg in self._apart]
        shape = static_shape(call.ty)
        if not known or shape is None or len(shape) != _IMAGE_RANK:
            return None
        *_, num_groups, columns = static_shape(known[0].ty)  # type: ignore[misc]
        if any(static_shape(one.ty)[3:] != (num_groups, columns) for one in known):  # type: ignore[index]
            return None
        shapes = [static_shape(arg.ty) for arg in call.args]
        if not all(_fits(one, num_groups * columns) for one in shapes):
            return None
        operands = [
            self.visit_expr(arg) if one == () else self._split(arg, num_groups)
            for arg, one in zip(call.args, shapes, strict=True)
        ]
        return self.builder_.emit(relax.Call(call.op, operands, call.attrs))

    def _split(self, image: relax.Expr, num_groups: int) -> relax.Expr:
        """With an axis of groups before the last one; a single channel is that of all groups."""
        *others, channels = static_shape(image.ty)  # type: ignore[misc]
        groups = 1 if channels == 1 else num_groups
        shape = (*others, groups, channels // groups)
        apart = self._apart.get(image) if isinstance(image, relax.Var) else None
        if apart is not None and static_shape(apart.ty) == shape:
            return apart
        value = self.visit_expr(image)
        if all(extent == 1 for extent in others):  # of channels: reshaped where a model is loaded, or fused
            return self.builder_.emit(relax.op.reshape(value, shape))
        return self._view(value, shape)

    def _joined_axes(self, apart: relax.Var) -> relax.Var:
        *others, groups, channels = static_shape(apart.ty)  # type: ignore[misc]
        return self._view(apart, (*others, groups * channels))

    def _view(self, value: relax.Expr, shape: Sequence[int]) -> relax.Var:
        """A reshape that is fused with nothing, so that it becomes a view."""
        return self.builder_.emit_te(
            topi.reshape,
            value,
            tuple(shape),
            primfunc_name_hint="view",
            primfunc_attrs={"op_pattern": OPAQUE},
        )


def _products(image: Any, weight: Any) -> Any:
    """Of (n, y, x, groups, depth) and (depth, groups, columns)."""
    *pixels, num_groups, depth = image.shape
    step = te.reduce_axis((0, depth), name="depth")
    return te.compute(
        (*pixels, num_groups, weight.shape[-1]),
        lambda n, y, x, group, column: te.sum(
            image[n, y, x, group, step] * weight[step, group, column], axis=step
        ),
        name="products",
    )


def _is_grouped_product(convolution: relax.Call) -> bool:
    shape = static_shape(convolution.args[1].ty)
    num_groups = int(convolution.attrs.groups)
    if num_groups == 1 or shape is None or shape[2] == 1 or not looks_at_single_pixels(convolution):
        return False
    return all(str(value.ty.dtype) == "float32" for value in (*convolution.args, convolution))


def _fits(shape: tuple[int, ...] | None, num_channels: int) -> bool:
    """Whether an operand is a number, or can have an axis of groups."""
    return shape == () or (shape is not None and len(shape) == _IMAGE_RANK and shape[3] in (1, num_channels))
