"""Einsums of two operands as matrix products, which have schedules of their own.

TVM computes an Einsum as it is written, one element after the other: ten times slower than a product.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tunewright.scheduler.onnx_graph import known_shapes, replace_nodes


@dataclass(frozen=True, slots=True)
class _Axes:
    """Labels of the axes: of both operands and the result, of one and the result, and those summed over."""

    batch: str
    rows: str
    columns: str
    summed: str


def use_products(model: onnx.ModelProto) -> None:
    """Write, in place, each Einsum that is a product as transposes and a MatMul; needs static shapes."""
    if any(node.op_type == "Einsum" for node in model.graph.node):
        shapes = known_shapes(model)
        replace_nodes(model, {"Einsum"}, lambda node, number: _product(model, node, shapes))


def _product(
    model: onnx.ModelProto, node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]
) -> list[onnx.NodeProto]:
    """What takes the node's place; nothing where it is no product."""
    (attribute,) = node.attribute
    equation = helper.get_attribute_value(attribute).decode().replace(" ", "")
    axes = _axes(equation)
    if axes is None or any(name not in shapes for name in node.input):
        return []
    operands, result = equation.split("->")
    left, right = operands.split(",")
    extents = dict(zip(left + right, [n for name in node.input for n in shapes[name]], strict=True))
    nodes: list[onnx.NodeProto] = []

    def append(op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{node.output[0]}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def transposed(value: str, labels: str, wanted: str) -> str:
        if labels == wanted:
            return value
        return append("Transpose", value, perm=[labels.index(label) for label in wanted])

    def reshaped(value: str, groups: Sequence[str]) -> str:
        """With one axis for each group of labels, or with one for each label of such groups."""
        shape = f"{node.output[0]}_{len(nodes)}_shape"
        extent = np.array([math.prod(extents[label] for label in group) for group in groups], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(extent, shape))
        return append("Reshape", value, shape)

    def as_matrices(value: str, labels: str, rows: str, columns: str) -> str:
        value = transposed(value, labels, axes.batch + rows + columns)
        is_matrix = len(rows) == len(columns) == 1
        return value if is_matrix else reshaped(value, [*axes.batch, rows, columns])

    first = as_matrices(node.input[0], left, axes.rows, axes.summed)
    second = as_matrices(node.input[1], right, axes.summed, axes.columns)
    value = append("MatMul", first, second)
    computed = axes.batch + axes.rows + axes.columns
    if not len(axes.rows) == len(axes.columns) == 1:
        value = reshaped(value, list(computed))
    transposed(value, computed, result)
    nodes[-1].output[0] = node.output[0]
    return nodes


def _axes(equation: str) -> _Axes | None:
    """None where it is not a product of two operands with all axes named once."""
    operands, arrow, result = equation.partition("->")
    if not arrow or operands.count(",") != 1 or "." in equation:
        return None
    left, right = operands.split(",")
    if any(len(set(labels)) != len(labels) for labels in (left, right, result)):
        return None
    both = "".join(label for label in left if label in right)
    rows = "".join(label for label in left if label not in both)
    columns = "".join(label for label in right if label not in both)
    if not set(rows + columns) <= set(result):  # summed in one operand alone
        return None
    batch = "".join(label for label in both if label in result)
    return _Axes(batch, rows, columns, "".join(label for label in both if label not in result))
