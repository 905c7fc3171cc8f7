"""Transposed convolutions as convolutions, which have schedules of their own.

TVM puts zeros between the pixels and convolves: with stride 2, three of four products are by zero. Outputs
whose places are equal modulo the stride share their taps instead: each such phase is a convolution of the
image as it is. All phases are one, its channels moved to their places by DepthToSpace ("sub-pixel
convolution", Shi et al., CVPR 2016).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tunewright.scheduler.onnx_graph import replace_nodes

_IMAGE_RANK = 4
_DEFAULTS: Mapping[str, Any] = {
    "auto_pad": b"NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "output_padding": [0, 0],
    "output_shape": None,
    "pads": [0, 0, 0, 0],
    "strides": [1, 1],
}


@dataclass(frozen=True, slots=True)
class _Line:
    """Along one axis. `taps`: (phase, pixel of its window, place in the kernel that meets it).

    `before`, `after`: how far the image is padded; `cropped`: how much longer than the output the phases are.
    """

    num_phases: int
    window: int
    taps: Sequence[tuple[int, int, int]]
    before: int
    after: int
    cropped: int


def use_convolutions(model: onnx.ModelProto) -> None:
    """Write, in place, each transposed convolution of images with known weights as a convolution."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    replace_nodes(model, {"ConvTranspose"}, lambda node, number: _convolution(model, node, weights))


def _convolution(
    model: onnx.ModelProto, node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """What takes the node's place; nothing where it stays."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    attributes = {**_DEFAULTS, **given}
    is_known = all(name in weights for name in node.input[1:] if name)
    plain = ("auto_pad", "dilations", "group", "output_shape")
    strides, pads = attributes["strides"], attributes["pads"]
    if not is_known or any(attributes[name] != _DEFAULTS[name] for name in plain) or len(set(strides)) > 1:
        return []
    kernel = numpy_helper.to_array(weights[node.input[1]])
    if kernel.ndim != _IMAGE_RANK:
        return []
    lines = [
        _line(
            kernel.shape[2 + axis],
            strides[axis],
            pads[axis],
            pads[2 + axis],
            attributes["output_padding"][axis],
        )
        for axis in range(2)
    ]
    if any(min(line.before, line.after) < 0 for line in lines):
        return []
    num_phases = lines[0].num_phases * lines[1].num_phases
    inputs = [node.input[0], _stored(model, f"{node.output[0]}_phases", _phases(kernel, *lines))]
    if len(node.input) > 2 and node.input[2]:
        bias = np.tile(numpy_helper.to_array(weights[node.input[2]]), num_phases)
        inputs.append(_stored(model, f"{node.output[0]}_bias", bias))
    padding = [line.before for line in lines] + [line.after for line in lines]
    nodes = [helper.make_node("Conv", inputs, [f"{node.output[0]}_conv"], pads=padding)]
    if num_phases > 1:
        size = strides[0]
        nodes.append(
            helper.make_node("DepthToSpace", nodes[-1].output, [f"{node.output[0]}_whole"], blocksize=size)
        )
    if any(line.cropped for line in lines):
        kept = [axis for axis in range(2) if lines[axis].cropped]
        limits = [[0] * len(kept), [-lines[axis].cropped for axis in kept], [2 + axis for axis in kept]]
        names = [
            _stored(model, f"{node.output[0]}_slice{n}", np.array(limit, np.int64))
            for n, limit in enumerate(limits)
        ]
        nodes.append(helper.make_node("Slice", [nodes[-1].output[0], *names], [f"{node.output[0]}_cropped"]))
    nodes[-1].output[0] = node.output[0]
    return nodes


def _line(extent: int, stride: int, before: int, after: int, extra: int) -> _Line:
    """Output o = stride q + phase sums the input's pixels q + offset with the kernel's places k where
    stride offset = phase + before - k."""
    met = [
        (phase, (phase + before - k) // stride, k)
        for phase in range(stride)
        for k in range(extent)
        if (phase + before - k) % stride == 0
    ]
    first, last = min(offset for _, offset, _ in met), max(offset for _, offset, _ in met)
    taps = [(phase, offset - first, k) for phase, offset, k in met]
    longer = extent + extra - before - after - stride  # than stride times the input
    more = -(-longer // stride)  # steps than the input has pixels
    return _Line(stride, last - first + 1, taps, -first, more + last, more * stride - longer)


def _phases(kernel: npt.NDArray[Any], rows: _Line, columns: _Line) -> npt.NDArray[Any]:
    """Weights (phases x outputs, inputs, rows, columns) of a kernel (inputs, outputs, rows, columns)."""
    num_inputs, num_outputs = kernel.shape[:2]
    shape = (rows.num_phases, columns.num_phases, num_outputs, num_inputs, rows.window, columns.window)
    found = np.zeros(shape, kernel.dtype)
    for (i, y, row), (j, x, column) in itertools.product(rows.taps, columns.taps):
        found[i, j, :, :, y, x] = kernel[:, :, row, column].T
    return found.reshape(-1, *shape[3:])


def _stored(model: onnx.ModelProto, name: str, value: npt.NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
