"""Make an ONNX file ready for TVM's importer: check it, bind its shapes, fold what can be folded.

ONNX Runtime's basic optimisation folds batch norms and constants in tenths of a second where TVM's passes
take tens. Everything here works on `onnx.ModelProto`; nothing imports TVM.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from tunewright.core.errors import ModelImportError

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]

# Protobuf refuses messages of 2 GiB; above this, weights travel in a file of their own.
MAX_INLINE_BYTES = 1 << 30
_MIN_IR_VERSION = 8
# It puts a three-dimensional product between two reshapes, which keep what follows it out of its kernel.
_DISABLED_OPTIMIZERS = ["MatMulAddFusion"]


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a model file with its external data.

    Raises:
        ModelImportError: the file is missing, a directory, not ONNX, cut off, or its weights are missing.
    """
    if path.is_dir():
        raise ModelImportError(f"{path} is a directory; give the .onnx file inside it")
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelImportError(f"{path} does not exist; check the path of the model") from None
    except OSError as exc:
        raise ModelImportError(f"{path} cannot be read ({exc.strerror}); check its permissions") from exc
    except DecodeError:
        raise ModelImportError(
            f"{path} ({path.stat().st_size} bytes) is not an ONNX file or is cut off; "
            "export or download it again"
        ) from None
    if not model.graph.node and not model.graph.output:
        raise ModelImportError(f"{path} holds no ONNX graph; export the model again")
    _load_external_data(model, path)
    return model


def bind_shapes(model: onnx.ModelProto, input_shapes: Shapes) -> None:
    """Give every input a static shape, in place; a symbol bound in one input is bound in all.

    Raises:
        ModelImportError: a name or rank in `input_shapes` is wrong, an input is no tensor, two bindings
            of one symbol differ, or a dimension stays free.
    """
    inputs = {value.name: value for value in graph_inputs(model)}
    for name in input_shapes:
        if name not in inputs:
            raise ModelImportError(
                f"--input-shape names {name!r}, but the model's inputs are {', '.join(map(repr, inputs))}"
            )
    symbols: dict[str, int] = {}
    for value in inputs.values():
        if value.type.WhichOneof("value") != "tensor_type":
            kind = value.type.WhichOneof("value") or "value without a type"
            raise ModelImportError(
                f"input {value.name!r} is a {kind}, not a tensor; export the model with tensor inputs only"
            )
        if value.name in input_shapes:
            _bind_input(value, input_shapes[value.name], symbols)
    for value in inputs.values():
        _bind_symbols(value, symbols)
        _check_is_static(value)
    # Shapes computed for free dimensions are stale now; ONNX Runtime and TVM infer them again.
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.type.HasField("tensor_type") and _free_dims(output):
            output.type.tensor_type.ClearField("shape")


def normalise(model: onnx.ModelProto) -> None:
    """Rewrite, in place, what ONNX Runtime or TVM treat badly, without changing what is computed."""
    model.ir_version = max(model.ir_version, _MIN_IR_VERSION)
    inputs = list(graph_inputs(model))
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    kept = []
    for node in model.graph.node:
        # TVM turns a Sum into broadcast, stack and sum.
        if node.op_type == "Sum" and node.domain in ("", "ai.onnx") and len(node.input) == 2:
            node.op_type = "Add"
        # As an initialiser a constant stays an input of the compiled model, as all weights do.
        if node.op_type == "Constant" and (tensor := _constant(node)) is not None:
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    if len(kept) < len(model.graph.node):
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """None for texts and sparse tensors."""
    if len(node.attribute) != 1:
        return None
    value = onnx.helper.get_attribute_value(node.attribute[0])
    match node.attribute[0].name:
        case "value":
            tensor: onnx.TensorProto = value
            return tensor
        case "value_float" | "value_floats":
            return onnx.numpy_helper.from_array(np.asarray(value, np.float32))
        case "value_int" | "value_ints":
            return onnx.numpy_helper.from_array(np.asarray(value, np.int64))
    return None


def has_inlined(model: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime wrote out operators, after it had optimised the others."""
    return any(output.startswith("_inlfunc_") for node in model.graph.node for output in node.output)


def optimise(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto | str:
    """Apply ONNX Runtime's basic graph optimisation.

    Returns: the optimised model, or ONNX Runtime's reason for not loading this one.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # The session is only a compiler here: repacked weights would double its memory.
    options.add_session_config_entry("session.disable_prepacking", "1")
    optimised = scratch / "optimised.onnx"
    options.optimized_model_filepath = str(optimised)
    source: str | bytes
    if model.ByteSize() > MAX_INLINE_BYTES:
        source = str(scratch / "source.onnx")
        onnx.save_model(model, source, save_as_external_data=True, location="source.bin")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimised.bin"
        )
    else:
        source = model.SerializeToString()
    try:
        ort.InferenceSession(
            source,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
        )
    except Exception as exc:  # ONNX Runtime's exceptions share no base class but this
        logger.info("ONNX Runtime cannot load the model: %s", exc)
        return str(exc).strip().splitlines()[0]
    return onnx.load(optimised)


def graph_inputs(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """The inputs that a caller provides: older files list initialisers among the inputs too."""
    initialisers = {tensor.name for tensor in model.graph.initializer}
    return (value for value in model.graph.input if value.name not in initialisers)


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            data = path.parent / ExternalDataInfo(tensor).location
            if not data.is_file():
                raise ModelImportError(
                    f"{path} keeps the weight {tensor.name!r} in {data}, which does not exist; "
                    "put that file beside the model"
                )
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as exc:
        raise ModelImportError(f"the external weights of {path} cannot be read: {exc}") from exc


def _bind_input(value: onnx.ValueInfoProto, shape: Sequence[int], symbols: dict[str, int]) -> None:
    tensor = value.type.tensor_type
    if any(extent < 1 for extent in shape):
        raise ModelImportError(f"--input-shape {_binding(value.name, shape)}: extents must be at least 1")
    if not tensor.HasField("shape"):
        tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=extent) for extent in shape)
        return
    if len(tensor.shape.dim) != len(shape):
        raise ModelImportError(
            f"--input-shape {_binding(value.name, shape)} has {len(shape)} dimensions, but the input has "
            f"{len(tensor.shape.dim)}: {_dims(value)}"
        )
    declared = _dims(value)
    for dim, extent in zip(tensor.shape.dim, shape, strict=True):
        if dim.dim_value > 0 and dim.dim_value != extent:
            raise ModelImportError(
                f"--input-shape {_binding(value.name, shape)} contradicts the model's {declared}"
            )
        if dim.dim_param and symbols.setdefault(dim.dim_param, extent) != extent:
            raise ModelImportError(
                f"--input-shape {_binding(value.name, shape)}: dimension {dim.dim_param!r} is already "
                f"{symbols[dim.dim_param]}; give it one value everywhere"
            )
        dim.dim_value = extent


def _bind_symbols(value: onnx.ValueInfoProto, symbols: Mapping[str, int]) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param in symbols:
            dim.dim_value = symbols[dim.dim_param]


def _check_is_static(value: onnx.ValueInfoProto) -> None:
    if not value.type.tensor_type.HasField("shape"):
        raise ModelImportError(
            f"input {value.name!r} has no shape; bind it with "
            f"--input-shape {_binding(value.name, (1, 3, 224, 224))}"
        )
    free = _free_dims(value)
    if free:
        dims = value.type.tensor_type.shape.dim
        example = tuple(dim.dim_value if dim.dim_value > 0 else 1 for dim in dims)
        raise ModelImportError(
            f"input {value.name!r} has the free dimension{'s' if len(free) > 1 else ''} {', '.join(free)} in "
            f"{_dims(value)}; bind {'them' if len(free) > 1 else 'it'} with "
            f"--input-shape {_binding(value.name, example)}"
        )


def _free_dims(value: onnx.ValueInfoProto) -> list[str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or f"axis {axis}" for axis, dim in enumerate(dims) if dim.dim_value <= 0]


def _dims(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    texts = (str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims)
    return f"[{', '.join(texts)}]"


def _binding(name: str, shape: Sequence[int]) -> str:
    return f"{name}:{','.join(map(str, shape))}"
