"""A model as a Relax module: imported from ONNX, taken apart into functions, put together again.

Weights stay parameters. What depends on weights alone is lifted twice: at import (transposed or reshaped
weights) into PREPARE_FUNCTION, and after scheduling (weights packed for a schedule's layout) into
PACK_FUNCTION. Both run once, when a compiled model is loaded.
"""

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy.typing as npt
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.tirx import PrimFunc

from tunewright.core.errors import TunewrightError
from tunewright.core.tvm_adapter import graph_elementary, graph_low_precision, graph_rewrites
from tunewright.core.tvm_adapter.canonical import is_in_blocks, load_module
from tunewright.core.tvm_adapter.graph_affine import scaled_once
from tunewright.core.tvm_adapter.graph_branches import combine_products
from tunewright.core.tvm_adapter.graph_fusion import keep_channels_apart
from tunewright.core.tvm_adapter.graph_grouped import groups_apart
from tunewright.core.tvm_adapter.graph_joined import read_in_place
from tunewright.core.tvm_adapter.graph_recurrent import fuse_steps
from tunewright.core.tvm_adapter.graph_rewrites import bindings, static_shape
from tunewright.core.tvm_adapter.graph_softmax import softmax_in_lanes
from tunewright.core.tvm_adapter.graph_winograd import use_winograd
from tunewright.core.tvm_adapter.target import tvm_target
from tunewright.core.tvm_adapter.tensors import memory_of
from tunewright.core.types import TargetSpec, TensorSpec

logger = logging.getLogger(__name__)

MAIN_FUNCTION = "main"
PREPARE_FUNCTION = "prepare_params"
PACK_FUNCTION = "main_transform_params"  # the name that relax.transform.LiftTransformParams gives


class GraphImportError(TunewrightError):
    """TVM cannot import an ONNX graph. `op_type` and `node` name the culprit where it is known."""

    def __init__(
        self, reason: str, *, op_type: str = "", node: str = "", is_unsupported: bool = False
    ) -> None:
        super().__init__(reason)
        self.op_type = op_type
        self.node = node
        self.is_unsupported = is_unsupported


_REPEATED = re.compile(r"(?<![a-z0-9])((?:[a-z0-9]+_){0,5}?[a-z0-9]+)(?:_\1){3,}(?![a-z0-9])")


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A fused module whose main function takes the model's inputs, then prepared weights.

    `params` are the model's own weights, the arguments of PREPARE_FUNCTION, in order.
    """

    mod: tvm.IRModule
    params: tuple[npt.NDArray[Any], ...]
    param_names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CallSite:
    """A TIR function that the main function calls, `num_calls` times in one run."""

    function: str
    label: str
    num_calls: int
    func: PrimFunc


def import_onnx(model: onnx.ModelProto, target: TargetSpec) -> Graph:
    """Import a model with static shapes, legalise and fuse it; weights stay parameters.

    Raises:
        GraphImportError: an operator is unsupported, a node cannot be converted, or a shape is dynamic.
    """
    mod = _convert(model)
    mod, param_lists = relax.frontend.detach_params(mod)
    params = tuple(map(_array, param_lists.get(MAIN_FUNCTION, [])))
    num_inputs = int(mod[MAIN_FUNCTION].attrs["num_input"])
    names = tuple(str(var.name) for var in mod[MAIN_FUNCTION].params[num_inputs:])
    passes = relax.transform
    simplify = tvm.transform.Sequential([passes.DecomposeOpsForInference(), passes.CanonicalizeBindings()])
    lower = tvm.transform.Sequential(
        [
            passes.LegalizeOps(),
            passes.AnnotateTIROpPattern(),
            passes.FoldConstant(),
            # Before fusion, so that a transposed weight is a weight of the kernel that reads it.
            passes.LiftTransformParams(),
        ]
    )
    fuse = tvm.transform.Sequential(
        [
            passes.FuseOps(),
            passes.FuseTIR(),
            passes.RewriteDataflowReshape(),  # what only changes a shape becomes a view, not a task
            passes.DeadCodeElimination([MAIN_FUNCTION, PREPARE_FUNCTION]),
            passes.AttachAttrLayoutFreeBuffers(),
        ]
    )
    converted = mod[MAIN_FUNCTION]
    problems: list[str] = []  # what is logged while TVM is kept quiet is not seen
    try:
        with tvm_target(target), _quiet():
            mod = scaled_once(simplify(mod), names)
            mod = graph_low_precision.rewrite(mod, params, names, target)
            mod = graph_elementary.taken_apart(fuse_steps(mod), params, names)
            mod = read_in_place(graph_rewrites.rewrite(mod, problems.append), target)
            mod = groups_apart(use_winograd(mod))
            mod = combine_products(mod)
            lowered = lower(graph_elementary.in_vectors(softmax_in_lanes(mod, target)))
            lowered = _rename(lowered, PACK_FUNCTION, PREPARE_FUNCTION)
            mod = _with_useful_layout_attrs(fuse(keep_channels_apart(lowered, MAIN_FUNCTION)))
    except Exception as exc:  # TVM's errors are of all kinds
        raise GraphImportError(_dynamic(converted) or f"TVM cannot lower it: {_last_line(exc)}") from exc
    for text in problems:
        logger.warning("%s", text)
    main = mod[MAIN_FUNCTION]
    dynamic = _dynamic(main)
    if dynamic:  # the operators of the model, before lowering, say more
        raise GraphImportError(_dynamic(converted) or dynamic)
    output_types = main.ret_ty.fields if isinstance(main.ret_ty, relax.TupleType) else [main.ret_ty]
    return Graph(
        mod=mod,
        params=params,
        param_names=names,
        inputs=tuple(_spec(var.ty) for var in main.params[:num_inputs]),
        outputs=tuple(_spec(ty) for ty in output_types),
    )


def call_sites(graph: Graph) -> list[CallSite]:
    """The TIR functions that one run calls, in the order of their first calls."""
    call_tir = tvm.ir.Op.get("relax.call_tir")
    counts: Counter[str] = Counter()
    for binding in bindings(graph.mod[MAIN_FUNCTION]):
        value = binding.value
        if isinstance(value, relax.Call) and value.op == call_tir:
            counts[str(value.args[0].name_hint)] += 1
    return [CallSite(name, _label(name), calls, graph.mod[name]) for name, calls in counts.items()]


def stitch(graph: Graph, scheduled: Mapping[str, str]) -> tvm.IRModule:
    """Replace functions by scheduled ones and lift the packing of their weights out of the main function.

    Args:
        scheduled: function name -> JSON of a module whose "main" is the scheduled function. Functions
            that are not named stay as they are.
    """
    mod = graph.mod.clone()
    for name, mod_json in scheduled.items():
        mod[name] = _restore_attrs(load_module(mod_json)["main"], like=graph.mod[name])
    passes = relax.transform
    mod = _splitting_preprocessing(mod)
    # Weights that several calls share are packed for each of them. One copy stays in the caches.
    return tvm.transform.Sequential([passes.EliminateCommonSubexpr(), passes.LiftTransformParams()])(mod)


def _splitting_preprocessing(mod: tvm.IRModule) -> tvm.IRModule:
    """What packs weights is split from the kernels; TVM's pass fails at functions that are not in blocks."""
    others = {
        var: func
        for var, func in mod.functions.items()
        if isinstance(func, PrimFunc) and not is_in_blocks(func)
    }
    for var in others:
        del mod[var]
    mod = relax.transform.SplitLayoutRewritePreproc()(mod)
    for var, func in others.items():
        mod[var] = func
    return mod


def graph_to_json(mod: tvm.IRModule) -> str:
    """A stitched module as text, without weights."""
    return str(tvm.ir.save_json(mod))


def _convert(model: onnx.ModelProto) -> tvm.IRModule:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")
            return from_onnx(model, keep_params_in_input=True)
    except tvm.error.OpNotImplemented as exc:
        op_type = str(exc).strip().splitlines()[-1].rpartition(":")[2].split(",")[0].strip()
        node = next((node for node in model.graph.node if node.op_type == op_type), onnx.NodeProto())
        raise GraphImportError(
            f"TVM has no converter for {op_type}", op_type=op_type, node=_node_name(node), is_unsupported=True
        ) from exc
    except Exception as exc:  # converters raise anything: KeyError, AssertionError, InternalError ...
        failed = _failed_node(exc.__traceback__)
        raise GraphImportError(
            _last_line(exc), op_type=failed.op_type, node=_node_name(failed) if failed.op_type else ""
        ) from exc


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what TVM prints, on either stream and from C++ too, to the log at level DEBUG."""
    with tempfile.TemporaryFile() as noise:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [os.dup(1), os.dup(2)]
        os.dup2(noise.fileno(), 1)
        os.dup2(noise.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in enumerate(saved, start=1):
                os.dup2(copy, number)
                os.close(copy)
            noise.seek(0)
            text = noise.read().decode(errors="replace")
            if text:
                logger.debug("TVM said while importing: %s", text)


def _failed_node(traceback: TracebackType | None) -> onnx.NodeProto:
    """The node that the importer was at; its exceptions do not say."""
    while traceback is not None:
        node = traceback.tb_frame.f_locals.get("node")
        if isinstance(node, onnx.NodeProto):
            return node
        traceback = traceback.tb_next
    return onnx.NodeProto()


def _node_name(node: onnx.NodeProto) -> str:
    return node.name or f"with output {node.output[0]}" if node.output else node.name


def _array(tensor: tvm.runtime.Tensor) -> npt.NDArray[Any]:
    """Without a copy, where NumPy knows the type itself."""
    memory = memory_of(tensor)
    return tensor.numpy() if memory is None else memory


def _rename(mod: tvm.IRModule, old: str, new: str) -> tvm.IRModule:
    """The module with the function `old`, which nothing calls, under another name."""
    functions = dict(mod.functions.items())
    # Without "num_input", later lifting leaves it alone.
    func = functions.pop(mod.get_global_var(old)).without_attr("num_input")
    return tvm.IRModule({**functions, new: func.with_attr("global_symbol", new)}, attrs=mod.attrs)


def _with_useful_layout_attrs(mod: tvm.IRModule) -> tvm.IRModule:
    """Keep only weights with two or more axes layout-free: packing a bias gains nothing and costs a call."""
    for var, func in list(mod.functions.items()):
        if not isinstance(func, PrimFunc) or "layout_free_buffers" not in (func.attrs or {}):
            continue
        free = [
            int(index)
            for index in func.attrs["layout_free_buffers"]
            if sum(extent != 1 for extent in _param_shape(func, int(index))) > 1
        ]
        mod[var] = (
            func.with_attr("layout_free_buffers", free) if free else func.without_attr("layout_free_buffers")
        )
    return mod


def _param_shape(func: PrimFunc, index: int) -> list[object]:
    _, _, shape = tvm.s_tir.meta_schedule.arg_info.ArgInfo.from_prim_func(func)[index].as_json()
    return list(shape)


def _restore_attrs(func: PrimFunc, *, like: PrimFunc) -> PrimFunc:
    """A scheduled function with the attributes that its place in the graph had."""
    for attr in list(func.attrs.keys()):
        func = func.without_attr(attr)
    return func.with_attr({**dict(like.attrs or {}), "tirx.is_scheduled": True})


def _dynamic(main: relax.Function) -> str:
    """Which value has no static shape, in words; empty where all have one."""
    for binding in bindings(main):
        types = binding.var.ty.fields if isinstance(binding.var.ty, relax.TupleType) else [binding.var.ty]
        if any(isinstance(ty, relax.TensorType) and static_shape(ty) is None for ty in types):
            op = getattr(binding.value, "op", None)
            name = op.name if isinstance(op, tvm.ir.Op) else type(binding.value).__name__
            return f"the shape of what {str(name).removeprefix('relax.')} computes depends on the data"
    return ""


def _spec(ty: relax.TensorType) -> TensorSpec:
    shape = static_shape(ty)
    if shape is None:
        raise GraphImportError(f"an input or output is {ty}, not a tensor of a static shape")
    return TensorSpec(shape, str(ty.dtype))


def _label(function: str) -> str:
    """fused_conv2d1_add1_relu11 -> conv2d_add_relu; what is there four times or more in a row, once."""
    label = re.sub(r"(?<=[a-z])\d+(?=_|$)", "", function.removeprefix("fused_"))
    for parts, name in (graph_low_precision.LABELS | graph_rewrites.LABELS).items():
        label = label.replace(parts, name)
    return _REPEATED.sub(r"\1", label)


def _last_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__


__all__ = [
    "MAIN_FUNCTION",
    "PACK_FUNCTION",
    "PREPARE_FUNCTION",
    "CallSite",
    "Graph",
    "GraphImportError",
    "call_sites",
    "graph_to_json",
    "import_onnx",
    "stitch",
]
