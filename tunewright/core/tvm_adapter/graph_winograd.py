"""3 x 3 convolutions by Winograd's minimal filtering F(2 x 2, 3 x 3): 2.25 times fewer multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016). Tiles of 4 x 4 pixels, two
apart, are transformed; each of their 16 elements is a plain product over the channels; the results are
transformed back to 2 x 2 pixels, and what follows the convolution is fused there. Weights are transformed
when a model is loaded. Sums of this form are about as exact as direct ones; larger tiles would not be.

It pays where there are channels enough to make up for the transforms.
"""

from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.graph_rewrites import rewritten, static_shape

_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_TILE, _STEP, _TAPS, _BYTES = 4, 2, 3, 4
_LEAST_TILES = 16
# Multiplications saved for each number that is transformed grow as channels * filters / (channels + filters).
# Break-even was at 32 to 40 where transformed inputs and results stay in the caches, above 64 beyond.
_LEAST_SHARED_CHANNELS, _LEAST_BEYOND_CACHES = 48, 96
_CACHE_BYTES = 16 << 20
# TVM's kinds of operators: elementwise ones may be fused to the first, nothing to the second. What is in
# front of the input's transform would be computed again for each of the tiles that share a pixel.
_INJECTIVE, _OPAQUE = 2, 8
# Rows of the weights' transform G, halved products of taps.
_WEIGHTS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def use_winograd(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with those of its convolutions replaced that should be faster so."""
    return rewritten(_Winograd(mod), mod)


@mutator
class _Winograd(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        return self._transformed(call) if call.op == _CONVOLUTION and _pays(call) else call

    def _transformed(self, call: relax.Call) -> relax.Var:
        data, weight = call.args
        top, left, *_ = (int(padding) for padding in call.attrs.padding)
        images, rows, columns, filters = (int(extent) for extent in call.ty.shape.values)
        channels = int(data.ty.shape.values[-1])
        tiles = images, -(-rows // _STEP), -(-columns // _STEP)
        num_tiles = tiles[0] * tiles[1] * tiles[2]

        def to_tiles(image: Any) -> Any:
            return _input_tiles(image, tiles, top, left)

        def to_pixels(products: Any) -> Any:
            return _output_pixels(products, (images, rows, columns, filters))

        emit = self.builder_.emit
        flat = (_TILE * _TILE, num_tiles, channels)
        inputs = emit(relax.op.reshape(self._emit(to_tiles, data, "winograd_input", _OPAQUE), flat))
        kernels = self._emit(_weight_tiles, weight, "winograd_weight", _OPAQUE)
        kernels = emit(relax.op.reshape(kernels, (_TILE * _TILE, channels, filters)))
        products = emit(relax.op.matmul(inputs, kernels))
        products = emit(relax.op.reshape(products, (_TILE, _TILE, *tiles, filters)))
        return self._emit(to_pixels, products, "winograd_output", _INJECTIVE)

    def _emit(self, compute: Any, operand: relax.Expr, name: str, kind: int) -> relax.Var:
        call = self.builder_.call_te(compute, operand, primfunc_name_hint=name)
        function = call.args[0]
        annotated = self.builder_.get()[function].with_attr("op_pattern", kind)
        self.builder_.update_func(function, annotated)
        return self.builder_.emit(call)


def _pays(call: relax.Call) -> bool:
    """Whether a convolution is one of those that were faster so, by a fifth to a third."""
    attrs = call.attrs
    data, weight = call.args
    if (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) != ("NHWC", "HWIO", "NHWC"):
        return False
    shapes = [static_shape(operand.ty) for operand in (data, weight, call)]
    if any(shape is None for shape in shapes) or str(call.ty.dtype) != "float32":
        return False
    _, kernel, (images, rows, columns, filters) = shapes  # type: ignore[misc]
    is_plain = int(attrs.groups) == 1 and all(int(n) == 1 for n in (*attrs.strides, *attrs.dilation))
    if not is_plain or kernel[:2] != (_TAPS, _TAPS):  # type: ignore[index]
        return False
    channels = kernel[2]  # type: ignore[index]
    num_tiles = images * -(-rows // _STEP) * -(-columns // _STEP)
    num_bytes = _BYTES * _TILE * _TILE * num_tiles * (channels + filters)
    least = _LEAST_SHARED_CHANNELS if num_bytes <= _CACHE_BYTES else _LEAST_BEYOND_CACHES
    return num_tiles >= _LEAST_TILES and channels * filters >= least * (channels + filters)


def _input_tiles(image: Any, tiles: tuple[int, int, int], top: int, left: int) -> Any:
    """(4, 4, images, rows of tiles, columns of tiles, channels)"""
    _, height, width, channels = (int(extent) for extent in image.shape)

    def pixel(n: Any, y: Any, x: Any, c: Any) -> Any:
        is_inside = tvm.tirx.all(y >= top, y < height + top, x >= left, x < width + left)
        return tvm.tirx.if_then_else(is_inside, image[n, y - top, x - left, c], tvm.tirx.const(0, "float32"))

    images, tile_rows, tile_columns = tiles
    extents = images, _STEP * tile_rows + _STEP, _STEP * tile_columns + _STEP, channels
    padded = te.compute(extents, pixel, name="padded")

    def element(i: Any, j: Any, n: Any, y: Any, x: Any, c: Any) -> Any:
        def part(row: Any, column: Any) -> Any:
            return padded[n, y * _STEP + row, x * _STEP + column, c]

        (top_row, low_row, sign_y), (first, last, sign_x) = _pair(i), _pair(j)
        return (part(top_row, first) + sign_x * part(top_row, last)) + sign_y * (
            part(low_row, first) + sign_x * part(low_row, last)
        )

    return te.compute((_TILE, _TILE, *tiles, channels), element, name="tiles")


def _pair(i: Any) -> tuple[Any, Any, Any]:
    """Which two of four elements make up element i of their transform, and the sign of the second.

    d0 - d2, d1 + d2, d2 - d1, d1 - d3
    """
    select, number = tvm.tirx.Select, tvm.tirx.const
    first = select(i == 0, number(0, "int64"), select(i == 2, number(2, "int64"), number(1, "int64")))
    second = select(i == 3, number(3, "int64"), select(i == 2, number(1, "int64"), number(2, "int64")))
    return first, second, select(i == 1, number(1.0, "float32"), number(-1.0, "float32"))


def _weight_tiles(weight: Any) -> Any:
    """(4, 4, channels, filters)"""
    *_, channels, filters = (int(extent) for extent in weight.shape)

    def factor(i: Any, tap: int) -> Any:
        *others, last = (tvm.tirx.const(row[tap], "float32") for row in _WEIGHTS)
        for number, other in reversed(list(enumerate(others))):
            last = tvm.tirx.Select(i == number, other, last)
        return last

    def element(i: Any, j: Any, c: Any, f: Any) -> Any:
        taps = [(y, x) for y in range(_TAPS) for x in range(_TAPS)]
        return sum(
            (factor(i, y) * factor(j, x) * weight[y, x, c, f] for y, x in taps[1:]),
            factor(i, 0) * factor(j, 0) * weight[0, 0, c, f],
        )

    return te.compute((_TILE, _TILE, channels, filters), element, name="weights")


def _output_pixels(products: Any, shape: tuple[int, int, int, int]) -> Any:
    """m0 + m1 + m2, m1 - m2 - m3: of both axes."""

    def sign(place: Any, number: int) -> Any:
        if number == 0:
            return tvm.tirx.const(1.0, "float32")
        one = tvm.tirx.const(1.0, "float32")
        return tvm.tirx.Select(place == 0, one, -one)

    def element(n: Any, y: Any, x: Any, f: Any) -> Any:
        row, column = tvm.tirx.floormod(y, _STEP), tvm.tirx.floormod(x, _STEP)
        tile = n, tvm.tirx.floordiv(y, _STEP), tvm.tirx.floordiv(x, _STEP), f
        result = None
        for i in range(_TAPS):
            line = None
            for j in range(_TAPS):
                term = products[(row + i, column + j, *tile)]
                line = term if line is None else line + sign(column, j) * term
            result = line if result is None else result + sign(row, i) * line
        return result

    return te.compute(shape, element, name="pixels")
