"""Unroll the recurrent layers of an ONNX model into products and elementwise operators, which TVM can import.

Every step becomes the same few tasks, tuned once. The products of all inputs with their weights are one
product, as they do not wait for each other.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper
from onnx.helper import get_attribute_value, make_node

from tunewright.scheduler.onnx_graph import known_shapes, replace_nodes

# Axes and bounds are inputs of Squeeze, Unsqueeze and Slice from here on.
_MIN_OPSET = 13
_MAX_JOINED = 8
_NUM_INPUTS = 8
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
# What is understood: attributes, and of an RNN the activations.
_ATTRIBUTES = {
    "GRU": {"hidden_size", "direction", "linear_before_reset"},
    "LSTM": {"hidden_size", "direction"},
    "RNN": {"hidden_size", "direction", "activations"},
}
_RNN_ACTIVATIONS = {"Tanh", "Relu", "Sigmoid"}


def unroll(model: onnx.ModelProto) -> None:
    """Replace every LSTM, GRU and RNN of static shape, in place; others stay, to be refused with their names.

    Peepholes, clipping, gates with own activations and sequences of unequal length are not known here.
    """
    opset = max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET or not any(node.op_type in _LAYERS for node in model.graph.node):
        return
    shapes = known_shapes(model)

    def unrolled(node: NodeProto, number: int) -> list[NodeProto]:
        shape = shapes.get(node.input[0]) if _is_plain(node) else None
        if shape is None:
            return []
        return _LAYERS[node.op_type](
            node, shape, prefix=f"{node.name or node.op_type.lower()}/{number}"
        ).nodes()

    replace_nodes(model, _LAYERS, unrolled)


def _is_plain(node: NodeProto) -> bool:
    has_lengths_or_peepholes = any(name for name in (*node.input[4:5], *node.input[7:8]))
    activations = {text.decode() for attribute in node.attribute for text in attribute.strings}
    return (
        not has_lengths_or_peepholes
        and {attribute.name for attribute in node.attribute} <= _ATTRIBUTES[node.op_type]
        and activations <= _RNN_ACTIVATIONS
    )


class _Layer(ABC):
    """The nodes that one recurrent layer becomes."""

    num_gates: int

    def __init__(self, node: NodeProto, input_shape: Sequence[int], *, prefix: str) -> None:
        attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
        self._attributes = attributes
        self._inputs = [*node.input, *[""] * (_NUM_INPUTS - len(node.input))]
        self._outputs = list(node.output)
        self._num_steps, self._batch = input_shape[0], input_shape[1]
        self._hidden = int(attributes["hidden_size"])
        self._directions = _DIRECTIONS[attributes.get("direction", b"forward").decode()]
        self._prefix = prefix
        self._numbers = itertools.count()
        self._made: list[NodeProto] = []
        self._shared: dict[tuple[str, int], list[str]] = {}

    def nodes(self) -> list[NodeProto]:
        sides = [self._run(side, is_reverse) for side, is_reverse in enumerate(self._directions)]
        # All steps, then what is known after the last one: (steps, sides, batch, hidden) and (sides, ...).
        for number, (output, values) in enumerate(zip(self._outputs, zip(*sides, strict=True), strict=False)):
            if output:
                self._made.append(make_node("Concat", list(values), [output], axis=0 if number else 1))
        return self._made

    @abstractmethod
    def _step(self, side: int, total: str, state: Sequence[str | None]) -> list[str]:
        """The state after a step, hidden units first.

        Args:
            total: what the step's input brings to all gates (batch, gates x hidden).
            state: before the step, None for zeros.
        """

    def _initial(self, side: int) -> list[str | None]:
        return [self._side(self._inputs[5], side) if self._inputs[5] else None]

    def _run(self, side: int, is_reverse: bool) -> tuple[str, ...]:
        """Hidden units of all steps (steps, 1, batch, hidden), last states (1, batch, hidden)."""
        gates = self._add("MatMul", self._inputs[0], self._transposed(self._inputs[1], side))
        if (bias := self._input_bias(side)) is not None:
            gates = self._add("Add", gates, bias)
        state = self._initial(side)
        states = [""] * self._num_steps
        for step in reversed(range(self._num_steps)) if is_reverse else range(self._num_steps):
            # A slice would be another task for each step; an index is an input, as weights are.
            total = self._add("Squeeze", self._add("Gather", gates, self._ints(step), axis=0), self._ints(0))
            after = self._step(side, total, state)
            states[step] = self._add("Unsqueeze", after[0], self._ints(0, 1))
            state = [*after]
        return (self._joined(states), *(self._add("Unsqueeze", part, self._ints(0)) for part in after))

    def _input_bias(self, side: int) -> str | None:
        biases = self._biases(side)
        return self._add("Add", *biases) if biases else None

    def _biases(self, side: int) -> list[str]:
        """Of the inputs and of the hidden units; [] where there is none."""
        bias, size = self._inputs[3], self.num_gates * self._hidden
        if not bias:
            return []
        return self._once("biases", side, lambda: self._slices(self._side(bias, side), 0, [size] * 2))

    def _with_hidden(self, side: int, total: str, hidden: str | None) -> str:
        """What the input and the hidden units bring to all gates."""
        if hidden is None:
            return total
        return self._add("Add", self._add("MatMul", hidden, self._transposed(self._inputs[2], side)), total)

    def _gates(self, value: str) -> list[str]:
        return self._slices(value, 1, [self._hidden] * self.num_gates)

    def _joined(self, states: Sequence[str]) -> str:
        """All steps in one, a few at a time: TVM takes minutes over a concatenation of many."""
        while len(states) > 1:
            groups = [states[start : start + _MAX_JOINED] for start in range(0, len(states), _MAX_JOINED)]
            states = [self._add("Concat", *group, axis=0) for group in groups]
        return states[0]

    def _transposed(self, weight: str, side: int) -> str:
        (transposed,) = self._once(
            f"transposed {weight}",
            side,
            lambda: [self._add("Transpose", self._side(weight, side), perm=[1, 0])],
        )
        return transposed

    def _once(self, name: str, side: int, make: Callable[[], list[str]]) -> list[str]:
        """Values that all steps share: of weights alone, each would become a weight of its own."""
        if (name, side) not in self._shared:
            self._shared[name, side] = make()
        return self._shared[name, side]

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


class _Lstm(_Layer):
    """Gates in the order of ONNX: input, output, forget, cell."""

    num_gates = 4

    def _initial(self, side: int) -> list[str | None]:
        return [self._side(value, side) if value else None for value in self._inputs[5:7]]

    def _step(self, side: int, total: str, state: Sequence[str | None]) -> list[str]:
        hidden, cell = state
        entry, exit_, keep, fresh = self._gates(self._with_hidden(side, total, hidden))
        added = self._add("Mul", self._add("Sigmoid", entry), self._add("Tanh", fresh))
        if cell is not None:
            added = self._add("Add", self._add("Mul", self._add("Sigmoid", keep), cell), added)
        return [self._add("Mul", self._add("Sigmoid", exit_), self._add("Tanh", added)), added]


class _Gru(_Layer):
    """Gates in the order of ONNX: update, reset, hidden."""

    num_gates = 3

    @property
    def _resets_products(self) -> bool:
        """Whether the reset gate acts behind the product with the hidden units, and its bias (as PyTorch)."""
        return bool(self._attributes.get("linear_before_reset", 0))

    def _initial(self, side: int) -> list[str | None]:
        (given,) = super()._initial(side)
        if given is None:
            zeros = numpy_helper.from_array(np.zeros((self._batch, self._hidden), np.float32))
            given = self._add("Constant", value=zeros)
        return [given]

    def _input_bias(self, side: int) -> str | None:
        if not self._resets_products or not self._inputs[3]:
            return super()._input_bias(side)
        return self._biases(side)[0]

    def _step(self, side: int, total: str, state: Sequence[str | None]) -> list[str]:
        (hidden,) = state
        assert hidden is not None
        recurrence = self._transposed(self._inputs[2], side)
        if self._resets_products:
            product = self._add("MatMul", hidden, recurrence)
            if self._inputs[3]:
                product = self._add("Add", product, self._biases(side)[1])
            update, reset, fresh = zip(self._gates(total), self._gates(product), strict=True)
            opened = self._add("Mul", self._add("Sigmoid", self._add("Add", *reset)), fresh[1])
            candidate = self._add("Tanh", self._add("Add", fresh[0], opened))
            kept = self._add("Sigmoid", self._add("Add", *update))
        else:
            update_x, reset_x, fresh_x = self._gates(total)
            sizes = [2 * self._hidden, self._hidden]
            weights = self._once("weights", side, lambda: self._slices(recurrence, 1, sizes))
            update_h, reset_h = self._slices(self._add("MatMul", hidden, weights[0]), 1, [self._hidden] * 2)
            kept = self._add("Sigmoid", self._add("Add", update_x, update_h))
            opened = self._add("Mul", self._add("Sigmoid", self._add("Add", reset_x, reset_h)), hidden)
            candidate = self._add("Tanh", self._add("Add", fresh_x, self._add("MatMul", opened, weights[1])))
        # (1 - z) h~ + z h = h~ + z (h - h~)
        return [self._add("Add", candidate, self._add("Mul", kept, self._add("Sub", hidden, candidate)))]


class _Rnn(_Layer):
    num_gates = 1

    def _step(self, side: int, total: str, state: Sequence[str | None]) -> list[str]:
        activations = self._attributes.get("activations", [b"Tanh"] * len(self._directions))
        return [self._add(activations[side].decode(), self._with_hidden(side, total, state[0]))]


_LAYERS: dict[str, type[_Layer]] = {"GRU": _Gru, "LSTM": _Lstm, "RNN": _Rnn}
