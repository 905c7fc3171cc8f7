"""3 x 3 convolutions by Winograd's minimal filtering F(2 x 2, 3 x 3): 2.25 times fewer multiplications.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016). Tiles of 4 x 4 pixels, two
apart, are transformed; each of their 16 elements is a plain product over the channels; the results are
transformed back to 2 x 2 pixels, and what follows the convolution is fused there. All of this is one kernel
(`winograd_tiling`); weights are transformed when a model is loaded. Sums of this form are about as exact as
direct ones; larger tiles would not be.
"""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.expressions import joined
from tunewright.core.tvm_adapter.graph_fusion import OPAQUE, OUT_ELEMENTWISE_FUSIBLE
from tunewright.core.tvm_adapter.graph_rewrites import rewritten, static_shape
from tunewright.core.types import JOINED

_CONVOLUTION = tvm.ir.Op.get("relax.nn.conv2d")
_TILE, _STEP, _TAPS = 4, 2, 3
# Each row of tiles reads all of the weights; a few tiles do not make up for it.
_LEAST_COLUMNS, _LEAST_TILES = 12, 36
# Both are vectors here, tiles along the channels and pixels along the filters.
_LEAST_CHANNELS, _MULTIPLE = 16, 8
# Rows of the weights' transform G, halved products of taps.
_WEIGHTS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def use_winograd(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with those of its convolutions replaced that are faster so."""
    return rewritten(_Winograd(mod), mod)


@mutator
class _Winograd(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if call.op != _CONVOLUTION or not is_faster_by_winograd(call):
            return call
        data, weight = call.args
        return emit_winograd(self.builder_, call, [data], weight)


def emit_winograd(
    builder: relax.BlockBuilder, call: relax.Call, images: Sequence[relax.Expr], weight: relax.Expr
) -> relax.Var:
    """A convolution's result from images that are joined along their channels, and its weight."""
    top, left, *_ = (int(padding) for padding in call.attrs.padding)
    shape = static_shape(call.ty)

    def convolution(parts: Any, kernels: Any) -> Any:
        return _convolution(parts, kernels, shape, top, left)

    kernels = builder.emit_te(
        _weight_tiles, weight, primfunc_name_hint="winograd_weight", primfunc_attrs={"op_pattern": OPAQUE}
    )
    return builder.emit_te(
        convolution,
        list(images),
        kernels,
        primfunc_name_hint="winograd_conv2d" if len(images) == 1 else f"{JOINED}winograd_conv2d",
        primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSIBLE},
    )


def is_faster_by_winograd(call: relax.Call) -> bool:
    """Whether a convolution is one of those that are, most by a third."""
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
    num_tiles = images * -(-rows // _STEP) * -(-columns // _STEP)
    if num_tiles < _LEAST_TILES or columns < _LEAST_COLUMNS:
        return False
    depths = kernel[2], filters  # type: ignore[index]
    return all(depth >= _LEAST_CHANNELS and depth % _MULTIPLE == 0 for depth in depths)


def _convolution(parts: Sequence[Any], kernels: Any, shape: Any, top: int, left: int) -> Any:
    """Pixels in the `shape` (images, rows, columns, filters), from weights (4, 4, channels, filters)."""
    images, rows, columns, filters = shape
    channels = int(kernels.shape[2])
    tiles = images, -(-rows // _STEP), -(-columns // _STEP)
    inputs = _input_tiles(parts, tiles, channels, top, left)
    channel = te.reduce_axis((0, channels), name="channel")
    products = te.compute(
        (_TILE, _TILE, *tiles, filters),
        lambda i, j, n, y, x, f: te.sum(
            inputs[i, j, n, y, x, channel] * kernels[i, j, channel, f], axis=channel
        ),
        name="products",
    )
    return _output_pixels(products, shape)


def _input_tiles(
    parts: Sequence[Any], tiles: tuple[int, int, int], channels: int, top: int, left: int
) -> Any:
    """(4, 4, images, rows of tiles, columns of tiles, channels)"""
    _, height, width, _ = (int(extent) for extent in parts[0].shape)
    image = joined(parts)

    def pixel(n: Any, y: Any, x: Any, c: Any) -> Any:
        is_inside = tvm.tirx.all(y >= top, y < height + top, x >= left, x < width + left)
        return tvm.tirx.if_then_else(is_inside, image(n, y - top, x - left, c), tvm.tirx.const(0, "float32"))

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

    def sign(place: Any) -> Any:
        one = tvm.tirx.const(1.0, "float32")
        return tvm.tirx.Select(place == 0, one, -one)

    def combined(place: Any, terms: Sequence[Any]) -> Any:
        first, second, third = terms
        return first + sign(place) * second + sign(place) * third

    def element(n: Any, y: Any, x: Any, f: Any) -> Any:
        row, column = tvm.tirx.floormod(y, _STEP), tvm.tirx.floormod(x, _STEP)
        tile = n, tvm.tirx.floordiv(y, _STEP), tvm.tirx.floordiv(x, _STEP), f
        lines = [
            combined(column, [products[(row + i, column + j, *tile)] for j in range(_TAPS)])
            for i in range(_TAPS)
        ]
        return combined(row, lines)

    return te.compute(shape, element, name="pixels")
