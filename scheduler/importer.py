"""Import a model file: ONNX in, a fused graph whose weights are inputs out."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tunewright.core.errors import ModelImportError
from tunewright.core.types import TargetSpec, TensorSpec
from tunewright.scheduler import (
    onnx_einsum,
    onnx_norms,
    onnx_operators,
    onnx_prepare,
    onnx_recurrent,
    onnx_transposed,
)

if TYPE_CHECKING:
    import onnx

    from tunewright.core.tvm_adapter.graph import Graph, GraphImportError

logger = logging.getLogger(__name__)

NamedSpec = tuple[str, TensorSpec]


@dataclass(frozen=True, slots=True, eq=False)
class ImportedModel:
    """A model with static shapes, ready to be partitioned into tasks.

    `inputs` and `outputs` carry the file's own names. `graph` is TVM's form of the model; only
    `core.tvm_adapter` looks inside. `is_optimised`: ONNX Runtime's basic optimisation folded the graph.
    """

    name: str
    path: Path
    target: TargetSpec
    inputs: tuple[NamedSpec, ...]
    outputs: tuple[NamedSpec, ...]
    graph: "Graph"
    is_optimised: bool

    @property
    def params(self) -> tuple[npt.NDArray[Any], ...]:
        """The weights, in the order in which the compiled model takes them."""
        return self.graph.params

    @property
    def weight_bytes(self) -> int:
        """Size of all weights."""
        return sum(param.nbytes for param in self.params)

    @property
    def param_names(self) -> tuple[str, ...]:
        return self.graph.param_names


def import_model(
    path: Path | str, *, target: TargetSpec, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> ImportedModel:
    """Import an ONNX file.

    Args:
        input_shapes: input name -> shape, for inputs with free dimensions.

    Raises:
        ModelImportError: the file cannot be read, a dimension stays free, or TVM cannot import it.
    """
    path = Path(path)
    model = onnx_prepare.load_onnx(path)
    onnx_prepare.bind_shapes(model, input_shapes or {})
    model = onnx_operators.written_out(model)
    onnx_prepare.normalise(model)
    onnx_recurrent.unroll(model)
    onnx_einsum.use_products(model)
    onnx_transposed.use_convolutions(model)
    onnx_norms.by_channels(model)
    input_names = [value.name for value in model.graph.input]
    output_names = [value.name for value in model.graph.output]
    with tempfile.TemporaryDirectory(prefix="tunewright-import-") as scratch:
        optimised = onnx_prepare.optimise(model, Path(scratch))
        if not isinstance(optimised, str) and onnx_prepare.has_inlined(optimised):
            optimised = onnx_prepare.optimise(optimised, Path(scratch))  # once more, with what is inside
        prepared = model if isinstance(optimised, str) else optimised
        del model  # an optimised copy holds the weights now
        _refuse_misunderstood(path, prepared)
        onnx_operators.adapt_weights(prepared)
        if isinstance(optimised, str):
            graph = _import_unoptimised(path, prepared, target, refusal=optimised)
        else:
            graph = _import(path, prepared, target)
    return ImportedModel(
        name=path.stem,
        path=path,
        target=target,
        inputs=tuple(zip(input_names, graph.inputs, strict=True)),
        outputs=tuple(zip(output_names, graph.outputs, strict=True)),
        graph=graph,
        is_optimised=not isinstance(optimised, str),
    )


def _refuse_misunderstood(path: Path, model: "onnx.ModelProto") -> None:
    if misunderstood := onnx_operators.misunderstood(model):
        node, reason = misunderstood
        raise ModelImportError(
            f"{path}: operator {node.op_type} (node {node.name or node.output[0]}) is not supported as it is "
            f"used here: {reason}; replace it in the exporting program or cut the model before it"
        )


def _import(path: Path, model: "onnx.ModelProto", target: TargetSpec) -> "Graph":
    from tunewright.core.tvm_adapter.graph import GraphImportError, import_onnx

    try:
        return import_onnx(model, target)
    except GraphImportError as exc:
        raise ModelImportError(_explain(path, exc)) from exc


def _import_unoptimised(path: Path, model: "onnx.ModelProto", target: TargetSpec, *, refusal: str) -> "Graph":
    """TVM knows operators that ONNX Runtime does not; where neither helps, both reasons are told."""
    from tunewright.core.tvm_adapter.graph import GraphImportError, import_onnx

    try:
        graph = import_onnx(model, target)
    except GraphImportError as exc:
        message = _explain(path, exc)
        if not exc.is_unsupported:
            message += f" (ONNX Runtime cannot load the model either: {refusal})"
        raise ModelImportError(message) from exc
    logger.warning("ONNX Runtime cannot load %s, so its graph stays unoptimised: %s", path, refusal)
    return graph


def _explain(path: Path, exc: "GraphImportError") -> str:
    if exc.is_unsupported:
        return (
            f"{path}: operator {exc.op_type} (node {exc.node}) is not supported; "
            "replace it in the exporting program or cut the model before it"
        )
    if exc.op_type:
        return (
            f"{path}: operator {exc.op_type} (node {exc.node}) cannot be imported: {exc}; "
            "export the model with static shapes and constant attributes, or replace that node"
        )
    return f"{path}: {exc}; export the model with static shapes"
