"""Unroll the recurrent layers of an ONNX model into products and elementwise operators, which TVM can import.

Every step becomes the same few tasks, tuned once. The products of all inputs with their weights are one
product, as they do not wait for each other.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper
from onnx.helper import make_node

# Axes and bounds are inputs of Squeeze, Unsqueeze and Slice from here on.
_MIN_OPSET = 13
_NUM_GATES = 4
_MAX_JOINED = 8
_ATTRIBUTES = {"hidden_size", "direction"}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def unroll(model: onnx.ModelProto) -> None:
    """Replace every LSTM of static shape, in place; others stay, to be refused with their names.

    Peepholes, clipping, own activations and sequences of unequal length are not known here.
    """
    opset = max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET or not any(node.op_type == "LSTM" for node in model.graph.node):
        return
    shapes = _shapes(onnx.shape_inference.infer_shapes(model))
    nodes: list[NodeProto] = []
    for number, node in enumerate(model.graph.node):
        shape = shapes.get(node.input[0]) if node.op_type == "LSTM" and _is_plain(node) else None
        if shape is None:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
        else:
            nodes += _Lstm(node, shape, prefix=f"{node.name or 'lstm'}/{number}").nodes()
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_plain(node: NodeProto) -> bool:
    has_lengths_or_peepholes = any(name for name in (*node.input[4:5], *node.input[7:8]))
    return not has_lengths_or_peepholes and {attribute.name for attribute in node.attribute} <= _ATTRIBUTES


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of the values whose shapes are static."""
    graph = model.graph
    found = {}
    for value in itertools.chain(graph.input, graph.value_info, graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.dim_value > 0 for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


class _Lstm:
    """The nodes that one LSTM becomes; gates in the order of ONNX: input, output, forget, cell."""

    def __init__(self, node: NodeProto, input_shape: Sequence[int], *, prefix: str) -> None:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        self._inputs = [*node.input, *[""] * (8 - len(node.input))]
        self._outputs = [*node.output, *[""] * (3 - len(node.output))]
        self._num_steps, self._batch = input_shape[0], input_shape[1]
        self._hidden = attributes["hidden_size"].i
        direction = attributes["direction"].s.decode() if "direction" in attributes else "forward"
        self._directions = _DIRECTIONS[direction]
        self._prefix = prefix
        self._numbers = itertools.count()
        self._made: list[NodeProto] = []

    def nodes(self) -> list[NodeProto]:
        sides = [self._run(side, is_reverse) for side, is_reverse in enumerate(self._directions)]
        sequences, hidden, cells = zip(*sides, strict=True)
        for output, values, axis in zip(self._outputs, (sequences, hidden, cells), (1, 0, 0), strict=True):
            if output:
                self._made.append(make_node("Concat", list(values), [output], axis=axis))
        return self._made

    def _run(self, side: int, is_reverse: bool) -> tuple[str, str, str]:
        """Hidden states of all steps (steps, 1, batch, hidden), last hidden, last cell (1, batch, hidden)."""
        data, weight, recurrence, bias, _, first_hidden, first_cell, _ = self._inputs
        gates = self._add("MatMul", data, self._transposed(weight, side))
        if bias:
            both = self._slices(self._side(bias, side), 0, [_NUM_GATES * self._hidden] * 2)
            gates = self._add("Add", gates, self._add("Add", *both))
        recurrent = self._transposed(recurrence, side)
        hidden = self._side(first_hidden, side) if first_hidden else None
        cell = self._side(first_cell, side) if first_cell else None
        states = [""] * self._num_steps
        for step in reversed(range(self._num_steps)) if is_reverse else range(self._num_steps):
            # A slice would be another task for each step; an index is an input, as weights are.
            total = self._add("Squeeze", self._add("Gather", gates, self._ints(step), axis=0), self._ints(0))
            if hidden is not None:
                total = self._add("Add", self._add("MatMul", hidden, recurrent), total)
            hidden, cell = self._step(total, cell)
            states[step] = self._add("Unsqueeze", hidden, self._ints(0, 1))
        assert hidden is not None and cell is not None
        return (
            self._joined(states),
            self._add("Unsqueeze", hidden, self._ints(0)),
            self._add("Unsqueeze", cell, self._ints(0)),
        )

    def _step(self, total: str, cell: str | None) -> tuple[str, str]:
        entry, exit_, keep, fresh = self._slices(total, 1, [self._hidden] * _NUM_GATES)
        added = self._add("Mul", self._add("Sigmoid", entry), self._add("Tanh", fresh))
        if cell is not None:
            added = self._add("Add", self._add("Mul", self._add("Sigmoid", keep), cell), added)
        return self._add("Mul", self._add("Sigmoid", exit_), self._add("Tanh", added)), added

    def _joined(self, states: Sequence[str]) -> str:
        """All steps in one, a few at a time: TVM takes minutes over a concatenation of many."""
        while len(states) > 1:
            groups = [states[start : start + _MAX_JOINED] for start in range(0, len(states), _MAX_JOINED)]
            states = [self._add("Concat", *group, axis=0) for group in groups]
        return states[0]

    def _transposed(self, weight: str, side: int) -> str:
        return self._add("Transpose", self._side(weight, side), perm=[1, 0])

    def _side(self, value: str, side: int) -> str:
        """The part of one direction, without its axis."""
        if len(self._directions) > 1:
            value = self._slices(value, 0, [1, 1])[side]
        return self._add("Squeeze", value, self._ints(0))

    def _slices(self, value: str, axis: int, sizes: Sequence[int]) -> list[str]:
        ends = list(itertools.accumulate(sizes))
        return [
            self._add("Slice", value, self._ints(end - size), self._ints(end), self._ints(axis))
            for end, size in zip(ends, sizes, strict=True)
        ]

    def _ints(self, *values: int) -> str:
        tensor = numpy_helper.from_array(np.array(values, dtype=np.int64))
        return self._add("Constant", value=tensor)

    def _add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        output = f"{self._prefix}/{next(self._numbers)}"
        self._made.append(make_node(op_type, list(inputs), [output], name=output, **attributes))
        return output
