"""Operators of ONNX that TVM's importer does not know, takes for others, or fails at for want of a value.

Found by `benchmarks/operators.py`, and by compiling the node tests of the package `onnx`. Works on
`onnx.ModelProto`; nothing imports TVM.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import onnx
import onnx.inliner
from onnx import numpy_helper

from tunewright.scheduler.onnx_graph import as_input, known_shapes
from tunewright.scheduler.onnx_prepare import MAX_INLINE_BYTES

logger = logging.getLogger(__name__)

# ONNX defines them by simpler ones.
_COMPOSED = {"Attention", "Celu", "RotaryEmbedding", "Swish"}
# Attributes that TVM's importer takes for their defaults, whatever they are, by operator: with what is right.
_IGNORED: Mapping[str, Mapping[str, Sequence[object]]] = {
    "BatchNormalization": {"training_mode": (0,)},
    "ConvTranspose": {"output_shape": ()},
    "IsInf": {"detect_negative": (1,), "detect_positive": (1,)},
    "Resize": {"antialias": (0,)},
    "RoiAlign": {"mode": (b"avg",)},
    "SpaceToDepth": {"mode": (b"DCR",)},
}


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what ONNX defines for operators that TVM does not know, or only others of their names.

    One too large for a message of protobuf, which the definitions are looked up with, stays as it is.
    """

    def found() -> set[str]:
        return _COMPOSED & {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}

    if model.ByteSize() > MAX_INLINE_BYTES:
        return model
    if found():
        # Some definitions depend on the types of all inputs; the inliner does not look for those of weights.
        model.graph.value_info.extend(map(as_input, model.graph.initializer))
        model = onnx.shape_inference.infer_shapes(model)
    while names := found():
        wanted = [("", name) for name in sorted(names)]
        try:
            model = onnx.inliner.inline_selected_functions(model, wanted, inline_schema_functions=True)
        except RuntimeError as exc:
            logger.warning("%s stay as they are: %s", ", ".join(sorted(names)), exc)
            break
        if found() == names:  # of a version without a definition
            break
    return model


def misunderstood(model: onnx.ModelProto) -> tuple[onnx.NodeProto, str] | None:
    """The first node of which TVM would compute something else, and why; None where there is none."""
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    used.discard("")  # what is left out
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    resizes = any(node.op_type == "Resize" for node in model.graph.node)
    shapes = known_shapes(model) if resizes else {}
    for node in model.graph.node:
        for attribute in node.attribute:
            right = _IGNORED.get(node.op_type, {}).get(attribute.name)
            if right is not None and onnx.helper.get_attribute_value(attribute) not in right:
                return node, f"TVM ignores its attribute {attribute.name}"
        if node.op_type == "Resize" and not _scales_evenly(node, weights, shapes):
            return node, "TVM takes its output's size over its input's for the scale"
        if node.op_type == "Dropout" and _is_in_training(node, weights):
            return node, "in training its results are random"
        if node.op_type == "LayerNormalization" and used.intersection(node.output[1:]):
            return node, "TVM computes only its first output"
    return None


def _is_in_training(dropout: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it may drop anything: unless its mode, or a ratio of zero, is known not to."""
    _, ratio, mode = (*dropout.input, "", "")[:3]
    is_never = ratio in weights and not numpy_helper.to_array(weights[ratio]).any()
    is_off = not mode or (mode in weights and not numpy_helper.to_array(weights[mode]).any())
    return not (is_never or is_off)


def _scales_evenly(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether a Resize by scales gives whole numbers of pixels, as far as is known."""
    scales = weights.get(node.input[2]) if len(node.input) > 2 else None
    shape = shapes.get(node.input[0])
    if scales is None or shape is None:
        return True
    extents = [
        scale * extent for scale, extent in zip(numpy_helper.to_array(scales).tolist(), shape, strict=False)
    ]
    return all(math.isclose(extent, round(extent), rel_tol=1e-6) for extent in extents)


def adapt_weights(model: onnx.ModelProto) -> None:
    """Change weights, in place, into what TVM's importer understands.

    The shape of an Expand is a constant, or it would be one that nobody knows; the exponent of a Pow is of
    the type of its base, which can only be a float.
    """
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    exposed: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        if node.op_type == "Expand" and (tensor := initialisers.get(node.input[1])) is not None:
            node.input[1] = f"{tensor.name}_of_expand"
            exposed[node.input[1]] = onnx.helper.make_node("Constant", [], [node.input[1]], value=tensor)
        if node.op_type == "Pow" and (tensor := initialisers.get(node.input[1])) is not None:
            exponent = numpy_helper.to_array(tensor)
            if exponent.dtype.kind in "iu":
                node.input[1] = f"{tensor.name}_of_{node.output[0]}"
                float_exponent = numpy_helper.from_array(exponent.astype("float32"), node.input[1])
                model.graph.initializer.append(float_exponent)
    for constant in exposed.values():
        model.graph.node.insert(0, constant)
