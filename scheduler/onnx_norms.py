"""Group and instance norms as one factor and one summand for each channel.

A group's mean and variance are means of its channels', so that the image keeps its layout: reshaped into
groups, as ONNX defines a group norm and PyTorch exports one, an image whose channels go last would be
transposed before each norm and after it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tunewright.scheduler.onnx_graph import known_shapes

_GROUP, _INSTANCE, _RESHAPE = "GroupNormalization", "InstanceNormalization", "Reshape"
_NUM_OTHER_AXES = 2  # images and channels
_AXES_ARE_INPUTS = 13  # of ReduceSum, since this version of ONNX's operators


@dataclass(frozen=True, slots=True)
class _Norm:
    """`shape`: (images, channels, ...). `scale`, `bias`: by channel. `replaces`: numbers of the nodes that
    go; the last one's place is taken."""

    source: str
    result: str
    shape: tuple[int, ...]
    num_groups: int
    scale: npt.NDArray[Any]
    bias: npt.NDArray[Any]
    epsilon: float
    replaces: tuple[int, ...]


def by_channels(model: onnx.ModelProto) -> None:
    """Write out, in place, each float32 group or instance norm with known weights and static shapes."""
    if all(node.op_type not in (_GROUP, _INSTANCE) for node in model.graph.node):
        return
    while norms := _norms(model):  # once more, as ONNX does not infer the shape of a group norm
        _write_out(model, norms)


def _write_out(model: onnx.ModelProto, norms: Sequence[_Norm]) -> None:
    dropped = {number for norm in norms for number in norm.replaces}
    places = {norm.replaces[-1]: norm for norm in norms}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        if number in places:
            nodes += _Writer(model, places[number]).nodes()
        elif number not in dropped:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class _Graph:
    """A graph, and who makes and reads what in it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = model.graph.node
        self.shapes = known_shapes(model)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {output: number for number, node in enumerate(self.nodes) for output in node.output}
        self.readers = {name: number for number, node in enumerate(self.nodes) for name in node.input}
        self.uses = Counter(name for node in self.nodes for name in node.input)
        self.uses.update(output.name for output in model.graph.output)


def _norms(model: onnx.ModelProto) -> list[_Norm]:
    graph = _Graph(model)
    found = (
        _norm(graph, number)
        for number, node in enumerate(graph.nodes)
        if node.op_type in (_GROUP, _INSTANCE)
        and node.domain in ("", "ai.onnx")
        and all(name in graph.weights for name in node.input[1:])
    )
    return [norm for norm in found if norm is not None]


def _norm(graph: _Graph, number: int) -> _Norm | None:
    node = graph.nodes[number]
    shape = graph.shapes.get(node.input[0])
    scale, bias = (numpy_helper.to_array(graph.weights[name]) for name in node.input[1:])
    if shape is None or len(shape) <= _NUM_OTHER_AXES or scale.dtype != np.float32:
        return None
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    num_groups = int(given.get("num_groups", shape[1]))
    source, result, replaces = node.input[0], node.output[0], [number]
    if node.op_type == _INSTANCE and (reshapes := _reshapes_around(graph, node)):
        before, after = reshapes
        source, result = graph.nodes[before].input[0], graph.nodes[after].output[0]
        shape, replaces = graph.shapes[source], [before, number, after]
    if shape[1] % num_groups or shape[1] % len(scale):
        return None
    repeats = shape[1] // len(scale)
    return _Norm(
        source,
        result,
        shape,
        num_groups,
        np.repeat(scale, repeats),
        np.repeat(bias, repeats),
        float(given.get("epsilon", 1e-5)),
        tuple(replaces),
    )


def _reshapes_around(graph: _Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """The numbers of the nodes that make groups of channels and undo it, as PyTorch exports a group norm."""
    source, result = node.input[0], node.output[0]
    before, after = graph.makers.get(source), graph.readers.get(result)
    if before is None or after is None or graph.uses[source] > 1 or graph.uses[result] > 1:
        return None
    if any(graph.nodes[number].op_type != _RESHAPE for number in (before, after)):
        return None
    grouped, whole = graph.shapes[source], graph.shapes.get(graph.nodes[before].input[0], ())
    is_undone = graph.shapes.get(graph.nodes[after].output[0]) == whole
    has_groups = len(whole) > _NUM_OTHER_AXES and whole[0] == grouped[0] and whole[1] % grouped[1] == 0
    return (before, after) if is_undone and has_groups else None


class _Writer:
    """The nodes of one norm: mean, then variance around it, of channels and then of groups."""

    def __init__(self, model: onnx.ModelProto, norm: _Norm) -> None:
        self._model = model
        self._norm = norm
        self._nodes: list[onnx.NodeProto] = []
        versions = {opset.domain: opset.version for opset in model.opset_import}
        self._axes_are_inputs = versions.get("", versions.get("ai.onnx", 1)) >= _AXES_ARE_INPUTS

    def nodes(self) -> list[onnx.NodeProto]:
        norm = self._norm
        images, channels, *size = norm.shape
        groups = (images, norm.num_groups, channels // norm.num_groups)
        by_channel = (images, channels, *[1] * len(size))

        def of_groups(name: str) -> str:
            return self._mean(self._reshaped(name, groups), groups, 2) if groups[2] > 1 else name

        def of_channels(name: str) -> str:
            if groups[2] == 1:
                return name
            return self._reshaped(self._node("Expand", name, self._sizes(groups)), by_channel)

        mean = of_channels(of_groups(self._mean(norm.source, norm.shape, _NUM_OTHER_AXES)))
        centred = self._node("Sub", norm.source, mean)
        squares = self._node("Mul", centred, centred)
        variance = of_groups(self._mean(squares, norm.shape, _NUM_OTHER_AXES))
        guarded = self._node("Add", variance, self._stored(np.float32(norm.epsilon)))
        inverse = of_channels(self._node("Reciprocal", self._node("Sqrt", guarded)))
        weight_shape = (channels, *[1] * len(size))
        scale = self._node("Mul", inverse, self._stored(norm.scale.reshape(weight_shape)))
        bias = self._stored(norm.bias.reshape(weight_shape))
        shift = self._node("Sub", bias, self._node("Mul", mean, scale))
        self._node("Add", self._node("Mul", norm.source, scale), shift)
        self._nodes[-1].output[0] = norm.result
        return self._nodes

    def _mean(self, name: str, shape: Sequence[int], first_axis: int) -> str:
        """Of the axes from `first_axis` on, kept. TVM fuses what is summed with a sum, not with a mean."""
        axes = list(range(first_axis, len(shape)))
        if self._axes_are_inputs:
            total = self._node("ReduceSum", name, self._sizes(axes), keepdims=1)
        else:
            total = self._node("ReduceSum", name, axes=axes, keepdims=1)
        return self._node("Mul", total, self._stored(np.float32(1 / math.prod(shape[first_axis:]))))

    def _reshaped(self, name: str, shape: Sequence[int]) -> str:
        return self._node(_RESHAPE, name, self._sizes(shape))

    def _sizes(self, shape: Sequence[int]) -> str:
        return self._stored(np.array(shape, np.int64))

    def _node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        output = f"{self._norm.result}_norm{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def _stored(self, value: npt.NDArray[Any] | np.float32) -> str:
        name = f"{self._norm.result}_norm_weight{len(self._model.graph.initializer)}"
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
