"""What rewrites of ONNX graphs share."""

from collections.abc import Callable, Collection, Sequence

import onnx

# Of a tensor that holds a shape.
_MAX_SHAPE_BYTES = 1 << 10


def replace_nodes(
    model: onnx.ModelProto,
    op_types: Collection[str],
    replace: Callable[[onnx.NodeProto, int], Sequence[onnx.NodeProto]],
) -> None:
    """Put others in the place of some nodes of a graph.

    Args:
        replace: gives what a node, with its number in the graph, becomes; nothing where it stays.
    """
    if all(node.op_type not in op_types for node in model.graph.node):
        return
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        others = replace(node, number) if node.op_type in op_types else ()
        nodes += others or [onnx.NodeProto.FromString(node.SerializeToString())]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of the inputs, weights and values whose shapes are static, as ONNX infers them."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # Without large weights, which would make a message that protobuf refuses.
    light = onnx.helper.make_graph(
        graph.node,
        graph.name,
        [*graph.input, *(as_input(one) for one in weights.values() if one.ByteSize() > _MAX_SHAPE_BYTES)],
        graph.output,
        [one for one in weights.values() if one.ByteSize() <= _MAX_SHAPE_BYTES],
        value_info=graph.value_info,
    )
    proto = onnx.helper.make_model(
        light, functions=model.functions, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    found = {name: tuple(tensor.dims) for name, tensor in weights.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


def as_input(weight: onnx.TensorProto) -> onnx.ValueInfoProto:
    """Name, type and shape of a weight."""
    return onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
