"""Models that are already quantised, or of bfloat16, in the products that dot-product instructions compute.

ONNX describes a quantised model as float operators between DequantizeLinear and QuantizeLinear (QDQ). Where a
product's operands are dequantised bytes, the bytes are multiplied instead, exactly, in int32:

    sum (x - x_zero) x_scale w w_scale = (sum x w - x_zero sum w) x_scale w_scale

The second sum and the product of the scales are of weights alone, so they are computed once, when a model is
loaded; the rest fuses behind the product. As in ONNX Runtime's own integer operators, an int32 bias joins the
sum, and what is quantised again is scaled only once, so a result may differ by one step of quantisation from
that of the float operators, where it lies between two steps.

What is dequantised only to be moved, or pooled by the maximum, and quantised again, stays in bytes.

The instruction takes unsigned activations and signed weights. Signed activations become unsigned where they
are quantised, with a zero point that is greater by 128.

What does not fit stays in float: weights that are not symmetric, products of activations, grouped
convolutions, targets without the instruction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.graph_rewrites import rewritten, weight_values
from tunewright.core.tvm_adapter.x86_intrinsics import supported_intrinsics
from tunewright.core.types import TargetSpec

# How far an int8's zero point moves when the number becomes a uint8.
_SIGN = 128
_FLOATS = ("float32", "float32")
_BYTE_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
# ONNX wants a bias to have the scale of the products that it is added to.
_BIAS_TOLERANCE = 1e-5

# What operators are called after they have been taken apart and fused.
LABELS = {
    "multiply_tir_round_add_maximum_minimum_cast_cast": "quantize",
    "multiply_relu_tir_round_add_maximum_minimum_cast_cast": "relu_quantize",
    "cast_subtract_cast_multiply": "dequantize",
    "add_cast_quantize": "requantize",
    "add_cast_relu_quantize": "requantize",
}

_ADD = tvm.ir.Op.get("relax.add")
_CAST = tvm.ir.Op.get("relax.astype")
_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_DEQUANTIZE = tvm.ir.Op.get("relax.dequantize")
_MATMUL = tvm.ir.Op.get("relax.matmul")
_QUANTIZE = tvm.ir.Op.get("relax.quantize")
_RELU = tvm.ir.Op.get("relax.nn.relu")
_RESHAPE = tvm.ir.Op.get("relax.reshape")
_SUBTRACT = tvm.ir.Op.get("relax.subtract")
_TRANSPOSE = tvm.ir.Op.get("relax.permute_dims")
# They move bytes, or compare them, so that a signed number may be an unsigned one on the way.
_MOVES = (_RESHAPE, _TRANSPOSE, tvm.ir.Op.get("relax.nn.max_pool2d"), tvm.ir.Op.get("relax.strided_slice"))

_OPERATORS = (_ADD, _CONVOLUTION, _DEQUANTIZE, _MATMUL, _QUANTIZE, _RELU, *_MOVES)


def rewrite(
    mod: tvm.IRModule, params: Sequence[npt.NDArray[Any]], names: Sequence[str], target: TargetSpec
) -> tvm.IRModule:
    """The model with its products of bytes, and of bfloat16 numbers, accumulated in 32 bits.

    Args:
        params, names: the weights of the main function. Of zero points and of scales of biases the values
            decide what fits; no value is built into the model but zero points with which images are padded.
    """
    intrinsics = supported_intrinsics(target)
    byte_lanes = [intrinsic.lanes for intrinsic in intrinsics if intrinsic.right == "int8"]
    rewriter = _LowPrecision(
        mod,
        weight_values(mod, params, names),
        byte_lanes=min(byte_lanes, default=None),
        multiplies_bfloat16=any(intrinsic.right == "bfloat16" for intrinsic in intrinsics),
    )
    passes = relax.transform
    clean = tvm.transform.Sequential([passes.CanonicalizeBindings(), passes.DeadCodeElimination()])
    return clean(rewritten(rewriter, mod))


@dataclass(frozen=True, slots=True, eq=False)
class _Quantized:
    """(data - zero) * scale: what a float value is made of.

    `scale` and `zero` have one element, or one for each index of `axis`. `values`: of scale and zero, None
    where they are computed.
    """

    data: relax.Expr
    scale: relax.Expr
    zero: relax.Expr
    axis: int
    is_weight: bool
    scale_value: npt.NDArray[Any] | None
    zero_value: npt.NDArray[Any] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return _shape(self.data)

    @property
    def is_uniform(self) -> bool:
        return int(np.prod(_shape(self.scale))) == 1


@dataclass(frozen=True, slots=True, eq=False)
class _Scaled:
    """(sums + offset) * scale, or the greater of that and zero: a float value that a product has given.

    `offset` (int32) and `scale` broadcast along the product's columns. `scale_value`: in one axis.
    """

    sums: relax.Expr
    offset: relax.Expr
    scale: relax.Expr
    scale_value: npt.NDArray[Any]
    is_clipped: bool = False


@mutator
class _LowPrecision(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(
        self,
        mod: tvm.IRModule,
        values: Mapping[relax.Var, npt.NDArray[Any]],
        *,
        byte_lanes: int | None,
        multiplies_bfloat16: bool,
    ) -> None:
        super().__init__(mod)
        self._values = values
        self._byte_lanes = byte_lanes
        self._multiplies_bfloat16 = multiplies_bfloat16
        self._quantized: dict[relax.Var, _Quantized] = {}
        self._scaled: dict[relax.Var, _Scaled] = {}
        self._unsigned: dict[relax.Var, relax.Expr] = {}  # int8 number -> the same plus 128, as uint8

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.visit_expr_post_order(call)
        if call.op not in _OPERATORS or not all(map(_is_static, call.args[:1])):
            return call
        result = None
        if call.op in (_MATMUL, _CONVOLUTION) and _types(call) == ("bfloat16", "bfloat16"):
            result = self._bfloat16_product(call)
        if self._byte_lanes is not None:
            if call.op == _QUANTIZE:
                result = self._quantize(call)
            elif call.op == _DEQUANTIZE:
                result = self._dequantize(call)
            elif call.op == _MATMUL and _types(call) == ("int32", "int32"):
                result = self._integer_product(call)
            elif call.op in (_MATMUL, _CONVOLUTION) and result is None:
                result = self._byte_product(call)
            elif call.op == _ADD:
                result = self._biased(call)
            elif call.op == _RELU:
                result = self._clipped(call)
            elif call.op in _MOVES:
                result = self._moved(call)
        return call if result is None else result

    def _bfloat16_product(self, call: relax.Call) -> relax.Expr | None:
        if not self._multiplies_bfloat16:
            return None
        sums = self._emit(_product(call, *call.args, out_dtype="float32"))
        return relax.op.astype(sums, "bfloat16")

    def _quantize(self, call: relax.Call) -> relax.Expr | None:
        value, scale, zero = call.args
        dtype = str(call.ty.dtype)
        if dtype not in _BYTE_LIMITS or _size(scale) != 1 or _types_of(value, scale) != _FLOATS:
            return None
        known = self._quantized.get(self._origin(value))
        if known is not None and self._is_same(known, scale, zero, dtype):
            return self._restored(known.data, dtype)
        scaled = self._scaled.get(self._origin(value))
        if scaled is None:
            # A division for each element would take longer than what is between two of them.
            steps = self._emit(relax.op.multiply(value, self._divided(relax.const(1.0), scale)))
        else:
            steps = self._scale(replace(scaled, scale=self._divided(scaled.scale, scale)))
        steps = self._emit(relax.op.round(steps))
        zero = self._emit(relax.op.astype(self._scalar(zero), "float32"))
        result = self._byte(steps, zero, dtype)
        if dtype == "int8":
            moved = self._emit(relax.op.add(zero, relax.const(float(_SIGN))))
            self._unsigned[result] = self._byte(steps, moved, "uint8")
        return result

    def _is_same(self, known: _Quantized, scale: relax.Expr, zero: relax.Expr, dtype: str) -> bool:
        """Whether quantising gives the bytes that a value is made of: it was moved in between, no more."""
        scale_value, zero_value = self._value(scale), self._value(zero)
        return (
            not known.is_weight
            and known.scale_value is not None
            and known.zero_value is not None
            and scale_value is not None
            and zero_value is not None
            and str(known.data.ty.dtype) == "uint8"
            and known.scale_value.reshape(-1).tolist() == scale_value.reshape(-1).tolist()
            and known.zero_value.reshape(-1).tolist()
            == (zero_value.astype(np.int32) + (_SIGN if dtype == "int8" else 0)).reshape(-1).tolist()
        )

    def _restored(self, data: relax.Expr, dtype: str) -> relax.Expr:
        """Bytes, or the signed numbers of which they are the unsigned twins."""
        if dtype == "uint8":
            return data
        number = self._emit(relax.op.astype(data, "int32"))
        number = self._emit(relax.op.subtract(number, relax.const(_SIGN, "int32")))
        result = self._emit(relax.op.astype(number, dtype))
        self._unsigned[result] = data
        return result

    def _byte(self, steps: relax.Expr, zero: relax.Expr, dtype: str) -> relax.Expr:
        """Whole numbers as bytes; clipped before the cast, which is defined for bytes only."""
        low, high = (relax.const(float(limit)) for limit in _BYTE_LIMITS[dtype])
        number = self._emit(relax.op.maximum(self._emit(relax.op.add(steps, zero)), low))
        number = self._emit(relax.op.minimum(number, high))  # `clip` would end the propagation of layouts
        return self._emit(relax.op.astype(self._emit(relax.op.astype(number, "int32")), dtype))

    def _dequantize(self, call: relax.Call) -> relax.Expr | None:
        data, scale, zero = call.args
        num_axes = len(_shape(data))
        axis = int(call.attrs.axis) % num_axes if num_axes else 0
        is_plain = str(data.ty.dtype) in (*_BYTE_LIMITS, "int32") and _types_of(scale, call) == _FLOATS
        if not is_plain or (_size(scale) != 1 and _shape(scale) != _shape(data)[axis : axis + 1]):
            return None  # numbers of other sizes, or scales of blocks
        data = self._origin(data)
        zero_value, scale_value = self._value(zero), self._value(scale)
        zero = self._emit(relax.op.astype(zero, "int32"))
        if data in self._unsigned:
            data = self._unsigned[data]
            zero = self._emit(relax.op.add(zero, relax.const(_SIGN, "int32")))
            zero_value = None if zero_value is None else zero_value.astype(np.int32) + _SIGN
        found = _Quantized(data, scale, zero, axis, self._is_weight(data), scale_value, zero_value)
        difference = self._emit(
            relax.op.subtract(self._emit(relax.op.astype(data, "int32")), self._along(zero, axis, num_axes))
        )
        number = self._emit(relax.op.astype(difference, "float32"))
        result = self._emit(relax.op.multiply(number, self._along(scale, axis, num_axes)))
        self._quantized[result] = found
        return result

    def _moved(self, call: relax.Call) -> relax.Expr | None:
        """The same, with what is known of the moved numbers: their unsigned twin, what they are made of."""
        source = self._origin(call.args[0])
        quantized = self._quantized.get(source)
        if source in self._unsigned:
            result = self._emit(call)
            self._unsigned[result] = self._emit(_on(call, self._unsigned[source]))
            return result
        if quantized is None or not (quantized.is_uniform or call.op == _TRANSPOSE):
            return None
        axis = quantized.axis
        if call.op == _TRANSPOSE:
            axes = [int(axis) for axis in call.attrs.axes or reversed(range(len(quantized.shape)))]
            axis = axes.index(axis)
        result = self._emit(call)
        self._quantized[result] = replace(quantized, data=self._emit(_on(call, quantized.data)), axis=axis)
        return result

    def _byte_product(self, call: relax.Call) -> relax.Expr | None:
        left, right = (self._quantized.get(self._origin(arg)) for arg in call.args)
        if left is None or right is None or not self._fits(call, left, right):
            return None
        is_convolution = call.op == _CONVOLUTION
        offset = self._offset(left.zero, right.data, is_convolution)
        scale = self._emit(relax.op.multiply(self._scalar(left.scale), right.scale))
        if is_convolution:
            data, weight, padding = self._padded(call, left, right)
            product = _product(call, data, weight, out_dtype="int32", padding=padding)
        else:
            product = _product(call, left.data, right.data, out_dtype="int32")
        assert left.scale_value is not None and right.scale_value is not None
        return self._emit_scaled(
            _Scaled(
                self._emit(product),
                offset,
                self._per_column(scale, is_convolution),
                left.scale_value.reshape(()) * right.scale_value.reshape(-1),
            )
        )

    def _integer_product(self, call: relax.Call) -> relax.Expr | None:
        """Of widened bytes, as ONNX's MatMulInteger is imported."""
        left, left_zero = self._widened(call.args[0])
        right, right_zero = self._widened(call.args[1])
        if (
            _types_of(left, right) != ("uint8", "int8")
            or len(_shape(right)) != 2
            or not self._is_weight(right)
        ):
            return None
        zeros = None if right_zero is None else self._value(right_zero)
        if right_zero is not None and (zeros is None or zeros.any()):
            return None
        if left_zero is None:
            return relax.op.matmul(left, right, out_dtype="int32")
        if _size(left_zero) != 1:
            return None
        sums = self._emit(relax.op.matmul(left, right, out_dtype="int32"))
        zero = self._emit(relax.op.astype(left_zero, "int32"))
        return relax.op.add(sums, self._offset(zero, right, is_convolution=False))

    def _widened(self, value: relax.Expr) -> tuple[relax.Expr, relax.Expr | None]:
        """The bytes that an int32 value is made of, and what was subtracted from them; itself if of none."""
        call, zero = self._call(value, _SUBTRACT), None
        if call is not None:
            widened_zero = self._call(call.args[1], _CAST)
            zero = call.args[1] if widened_zero is None else self._origin(widened_zero.args[0])
            value = call.args[0]
        cast = self._call(value, _CAST)
        return (value if cast is None else self._origin(cast.args[0])), zero

    def _call(self, value: relax.Expr, op: tvm.ir.Op) -> relax.Call | None:
        """The call that a value comes from, if it is one of that operator."""
        value = self._origin(value)
        bound = self.lookup_binding(value) if isinstance(value, relax.Var) else None
        return bound if isinstance(bound, relax.Call) and bound.op == op else None

    def _offset(self, zero: relax.Expr, weight: relax.Expr, is_convolution: bool) -> relax.Expr:
        """What is to be added to products of bytes whose left ones have that zero point."""
        axes = [1, 2, 3] if is_convolution else [0]
        total = self._emit(relax.op.sum(self._emit(relax.op.astype(weight, "int32")), axis=axes))
        offset = self._emit(relax.op.multiply(self._scalar(zero), total))
        return self._per_column(self._emit(relax.op.negative(offset)), is_convolution)

    def _per_column(self, vector: relax.Expr, is_convolution: bool) -> relax.Expr:
        shape = [1, _size(vector), 1, 1] if is_convolution else [_size(vector)]
        return self._emit(relax.op.reshape(vector, shape))

    def _fits(self, call: relax.Call, left: _Quantized, right: _Quantized) -> bool:
        is_convolution = call.op == _CONVOLUTION
        columns = 0 if is_convolution else 1
        return (
            _types_of(left.data, right.data) == ("uint8", "int8")
            and right.is_weight
            and not left.is_weight
            and left.is_uniform
            and left.zero_value is not None
            and left.scale_value is not None
            and right.scale_value is not None
            and right.zero_value is not None
            and not right.zero_value.any()
            and (right.is_uniform or right.axis == columns)
            and len(right.shape) == (4 if is_convolution else 2)
            and (not is_convolution or self._is_plain(call, right.shape[0]))
        )

    def _is_plain(self, convolution: relax.Call, columns: int) -> bool:
        attrs = convolution.attrs
        return (
            int(attrs.groups) == 1
            and (attrs.data_layout, attrs.kernel_layout) == ("NCHW", "OIHW")
            and columns % (self._byte_lanes or 1) == 0
        )

    def _padded(
        self, call: relax.Call, left: _Quantized, right: _Quantized
    ) -> tuple[relax.Expr, relax.Expr, list[int]]:
        """Operands with whole groups of channels, and the padding that is left to the convolution.

        A border is zero, so in bytes it is the zero point. Where that is 0, the convolution pads.
        """
        assert left.zero_value is not None
        top, start, bottom, end = (int(n) for n in call.attrs.padding)
        group = 4
        extra = -right.shape[1] % group
        zero = int(left.zero_value.reshape(()))
        data, weight = left.data, right.data
        if zero:
            border, padding = [top, bottom, start, end], [0, 0, 0, 0]
        else:
            border, padding = [0, 0, 0, 0], [top, start, bottom, end]
        if extra or any(border):
            widths = [0, 0, 0, extra, *border]
            data = self._emit(relax.op.nn.pad(data, widths, pad_value=float(zero)))
        if extra:
            weight = self._emit(relax.op.nn.pad(weight, [0, 0, 0, extra, 0, 0, 0, 0], pad_value=0.0))
        return data, weight, padding

    def _biased(self, call: relax.Call) -> relax.Expr | None:
        scaled = self._scaled.get(self._origin(call.args[0]))
        if scaled is None or scaled.is_clipped:
            return None
        bias = self._bias(call.args[1])
        if (
            bias is None
            or bias.scale_value is None
            or str(bias.data.ty.dtype) != "int32"
            or bias.zero_value is None
            or bias.zero_value.any()
            or _size(bias.data) != _size(scaled.offset)
            or not np.allclose(bias.scale_value.reshape(-1), scaled.scale_value, rtol=_BIAS_TOLERANCE, atol=0)
        ):
            return None
        terms = self._emit(relax.op.reshape(bias.data, _shape(scaled.offset)))
        return self._emit_scaled(replace(scaled, offset=self._emit(relax.op.add(scaled.offset, terms))))

    def _bias(self, value: relax.Expr) -> _Quantized | None:
        """What a bias, or a reshaped one, is made of."""
        reshape = self._call(value, _RESHAPE)
        return self._quantized.get(self._origin(value if reshape is None else reshape.args[0]))

    def _clipped(self, call: relax.Call) -> relax.Expr | None:
        scaled = self._scaled.get(self._origin(call.args[0]))
        return None if scaled is None else self._emit_scaled(replace(scaled, is_clipped=True))

    def _emit_scaled(self, scaled: _Scaled) -> relax.Expr:
        value = self._scale(scaled)
        self._scaled[value] = scaled
        return value

    def _scale(self, scaled: _Scaled) -> relax.Expr:
        total = self._emit(relax.op.add(scaled.sums, scaled.offset))
        number = self._emit(relax.op.astype(total, "float32"))
        value = self._emit(relax.op.multiply(number, scaled.scale))
        return self._emit(relax.op.nn.relu(value)) if scaled.is_clipped else value

    def _along(self, vector: relax.Expr, axis: int, num_axes: int) -> relax.Expr:
        """A vector, or one number, so that it broadcasts along an axis."""
        if _size(vector) == 1:
            return self._scalar(vector)
        shape = [_size(vector) if number == axis else 1 for number in range(num_axes)]
        return self._emit(relax.op.reshape(vector, shape))

    def _scalar(self, value: relax.Expr) -> relax.Expr:
        return value if not _shape(value) else self._emit(relax.op.reshape(value, []))

    def _divided(self, value: relax.Expr, scale: relax.Expr) -> relax.Expr:
        return self._emit(relax.op.divide(value, self._scalar(scale)))

    def _emit(self, value: relax.Expr) -> relax.Var:
        return self.builder_.emit(value)

    def _origin(self, value: relax.Expr) -> relax.Expr:
        """Of another name for a value its first one."""
        while isinstance(value, relax.Var):
            bound = self.lookup_binding(value)
            if not isinstance(bound, relax.Var):
                break
            value = bound
        return value

    def _is_weight(self, value: relax.Expr) -> bool:
        return isinstance(value, relax.Var) and value in self._values

    def _value(self, value: relax.Expr) -> npt.NDArray[Any] | None:
        """What a weight or a constant holds; None for what is computed."""
        if isinstance(value, tvm.ir.GenericConst):
            constant: npt.NDArray[Any] = value.data.numpy()
            return constant
        return self._values.get(value) if isinstance(value, relax.Var) else None


def _product(call: relax.Call, data: relax.Expr, weight: relax.Expr, **changes: Any) -> relax.Call:
    """A matrix product or a convolution of other operands."""
    if call.op == _MATMUL:
        return relax.op.matmul(data, weight, **changes)
    attrs = call.attrs
    options = {
        "strides": attrs.strides,
        "padding": attrs.padding,
        "dilation": attrs.dilation,
        "groups": int(attrs.groups),
        "data_layout": attrs.data_layout,
        "kernel_layout": attrs.kernel_layout,
        "out_layout": attrs.out_layout,
    }
    return relax.op.nn.conv2d(data, weight, **{**options, **changes})


def _on(call: relax.Call, value: relax.Expr) -> relax.Call:
    return relax.Call(call.op, [value, *call.args[1:]], call.attrs, call.ty_args)


def _types(call: relax.Call) -> tuple[str, ...]:
    return _types_of(*call.args)


def _types_of(*values: relax.Expr) -> tuple[str, ...]:
    return tuple(str(value.ty.dtype) for value in values)


def _is_static(value: relax.Expr) -> bool:
    shape = getattr(value.ty, "shape", None)
    return isinstance(shape, relax.ShapeExpr) and all(isinstance(n, tvm.tirx.IntImm) for n in shape.values)


def _shape(value: relax.Expr) -> tuple[int, ...]:
    return tuple(int(extent) for extent in value.ty.shape.values)


def _size(value: relax.Expr) -> int:
    return int(np.prod(_shape(value), dtype=np.int64))
