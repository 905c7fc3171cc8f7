"""Canonical workloads: one computation has one module and one key, whatever its names were.

Traces address blocks by name, and TVM's structural hash ignores names but differs between platforms. So
names are normalised in the module itself: search, record, replay and stitching all use that one module.
"""

import json
from typing import Any

import tvm
from tvm.tirx import PrimFunc
from tvm.tirx.buffer import BufferType

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import TensorSpec, Workload, WorkloadKey

CANONICAL_VERSION = "w1"
# Attributes that are part of the computation. Others (operator pattern, original symbol) are history.
_KEPT_ATTRS = ("layout_free_buffers", "s_tir", "tirx.noalias")
# JSON graph node type -> (field that holds the name, prefix of the canonical name).
_NAMED_NODES = {"ir.Var": ("name", "v"), "s_tir.SBlock": ("name_hint", "b")}
# Schedule rules address the outermost block by this name.
_ROOT_BLOCK = "root"


def load_module(mod_json: str) -> tvm.IRModule:
    """The module of a workload: one PrimFunc, named "main"."""
    return tvm.ir.load_json(mod_json)


def canonical_workload(func: PrimFunc, *, name: str) -> Workload:
    """Normalise a TIR function and give it its key.

    Args:
        func: a schedulable PrimFunc; its parameters are inputs, weights, then outputs.
        name: a label for people.

    Raises:
        ValueError: the function has symbolic shapes or scalar parameters, or no blocks: it cannot be tuned.
    """
    if not is_in_blocks(func):
        raise ValueError("it is not written in blocks, which schedules are about")
    mod = load_module(_rename(tvm.ir.save_json(_normalise(func))))
    # The printed text, not the JSON, is digested: JSON shows which equal expressions are shared objects.
    key = f"{CANONICAL_VERSION}-{digest(CANONICAL_VERSION, mod.script())}"
    mod_json = tvm.ir.save_json(mod)
    return Workload(
        name=name,
        key=WorkloadKey(key),
        mod_json=mod_json,
        args=tensor_args(mod["main"]),
        flop=_flop(mod_json),
    )


def is_in_blocks(func: PrimFunc) -> bool:
    """Whether a function is one that can be scheduled at all."""
    return isinstance(func.body, tvm.s_tir.SBlockRealize) and str(func.body.block.name_hint) == _ROOT_BLOCK


def tensor_args(func: PrimFunc) -> tuple[TensorSpec, ...]:
    """The parameters of a function as tensors, in order.

    Raises:
        ValueError: a parameter is no tensor or its shape is symbolic.
    """
    args = []
    for param in func.params:
        if not isinstance(param.ty, BufferType):
            raise ValueError(f"parameter {param.name} is a scalar; only tensors can be tuned")
        shape = param.ty.shape
        if not all(isinstance(extent, tvm.tirx.IntImm) for extent in shape):
            raise ValueError(f"parameter {param.name} has the symbolic shape {list(shape)}; bind it first")
        args.append(TensorSpec(tuple(int(extent.value) for extent in shape), str(param.ty.dtype)))
    return tuple(args)


def _flop(mod_json: str) -> float:
    """The work of a workload. TVM cannot count what a `Let` holds: its value counts once here, plus one."""
    graph = json.loads(mod_json)
    for node in graph["nodes"]:
        if node["type"] == "prim.Let":
            parts = node["data"]
            node["type"] = "prim.Add"
            node["data"] = {"span": parts["span"], "ty": parts["ty"], "a": parts["value"], "b": parts["body"]}
    return float(tvm.s_tir.analysis.estimate_tir_flops(load_module(json.dumps(graph))))


def _normalise(func: PrimFunc) -> tvm.IRModule:
    for attr in list(func.attrs.keys()) if func.attrs is not None else []:
        if attr not in _KEPT_ATTRS:
            func = func.without_attr(attr)
    return tvm.IRModule({"main": func.with_attr({"global_symbol": "main", "tirx.noalias": True})})


def _rename(mod_json: str) -> str:
    """Give every variable and block a name by its order in the graph, which names do not influence."""
    graph: dict[str, Any] = json.loads(mod_json)
    nodes: list[dict[str, Any]] = graph["nodes"]
    counts = dict.fromkeys(_NAMED_NODES, 0)
    for node in list(nodes):
        if node["type"] not in _NAMED_NODES:
            continue
        name_field, prefix = _NAMED_NODES[node["type"]]
        if nodes[node["data"][name_field]]["data"] == _ROOT_BLOCK and node["type"] == "s_tir.SBlock":
            continue
        nodes.append({"type": "ffi.String", "data": f"{prefix}{counts[node['type']]}"})
        node["data"][name_field] = len(nodes) - 1
        counts[node["type"]] += 1
    return canonical_json(graph)
