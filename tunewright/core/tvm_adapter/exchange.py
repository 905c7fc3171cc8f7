"""Between workloads and traces as TVM's own database holds them, and our canonical ones.

A trace addresses blocks by name: by names of the workload, and by names that TVM made from those of blocks
and buffers while it scheduled (`C_update`, `C_rf`, `A_global`). A canonical workload has other names, so a
trace is rewritten for it. How TVM makes names is not known here: where a trace asks for a block, the one at
the same place of the canonical program gives the new name. What is then believed is only that both programs,
scheduled, are structurally equal.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.schedule import SBlockRV
from tvm.tirx import PrimFunc
from tvm_ffi import structural_equal, structural_hash

from tunewright.core.errors import TunewrightError
from tunewright.core.keys import canonical_json
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.traces import (
    ReplayError,
    block_names,
    new_schedule,
    replay_trace,
    trace_to_json,
)
from tunewright.core.types import Workload

_MAIN = "main"
_ROOT = "root"
_MAX_NAME_CHARS = 60


class AdoptionError(TunewrightError):
    """A workload or a trace cannot be taken over. The message is one of few, `detail` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def module_hash(mod_json: str) -> int:
    """TVM's structural hash of a module, in [0, 2^64)."""
    return int(structural_hash(load_module(mod_json))) % 2**64


def adopt_workload(mod_json: str) -> Workload:
    """The canonical workload of a module as TVM's database holds it; its name lists the blocks.

    Raises:
        AdoptionError: the module cannot be tuned, or is not one function called "main".
    """
    mod = load_module(mod_json)
    names = [str(var.name_hint) for var in mod.functions]
    if names != [_MAIN] or not isinstance(mod[_MAIN], PrimFunc):
        raise AdoptionError("is not one TIR function named main", ", ".join(names)[:200])
    try:
        return canonical_workload(mod[_MAIN], name=_label(mod))
    except ValueError as exc:
        raise AdoptionError("cannot be tuned", str(exc)) from exc


def args_json(scheduled: tvm.IRModule) -> str:
    """Types and shapes of the arguments of a scheduled module, with packed weights, as TVM states them."""
    infos = ArgInfo.from_entry_func(scheduled, remove_preproc=True)
    return canonical_json([info.as_json() for info in infos])


class TraceAdopter:
    """Rewrites traces of one workload for its canonical module.

    Args:
        original_json: the workload as its database holds it.
        canonical_json: `mod_json` of `adopt_workload`.
    """

    def __init__(self, original_json: str, canonical_json: str) -> None:
        self._canonical = load_module(canonical_json)
        self._original = _with_attrs_of(load_module(original_json), self._canonical)
        # Names that traces of this workload have asked for so far -> canonical ones.
        self._names: dict[str, str] = {}

    def adopt(self, trace_json: str, expected_args_json: str = "") -> str:
        """The trace for the canonical module.

        Args:
            expected_args_json: what `args_json` must say of the scheduled module; "" where nobody knows.

        Raises:
            AdoptionError: it does not apply, is another workload's, or cannot be rewritten.
        """
        try:
            wanted = replay_trace(self._original, trace_json).mod
        except ReplayError as exc:
            raise AdoptionError("does not replay on its workload", str(exc)) from exc
        if expected_args_json and args_json(wanted) != expected_args_json:
            raise AdoptionError("has other arguments than its workload", args_json(wanted))
        # A name that is known from another trace may mean another block in this one.
        for names in (self._names, {}):
            if (rewritten := self._rewritten(trace_json, names, wanted)) is not None:
                self._names.update(names)
                return rewritten
        raise AdoptionError("gives another program on the canonical workload")

    def _rewritten(self, trace_json: str, names: dict[str, str], wanted: tvm.IRModule) -> str | None:
        """The trace with other names, if it then gives the wanted program; adds the names that it learns."""
        instructions, decisions = json.loads(trace_json)
        for index, (kind, _, attrs, _) in enumerate(instructions):
            if kind != "GetSBlock":
                continue
            if attrs[0] not in names:
                name = self._name_at(trace_json, index, instructions[:index], decisions)
                if name is None:
                    return None
                names[attrs[0]] = name
            attrs[0] = names[attrs[0]]
        try:
            schedule = replay_trace(self._canonical, canonical_json([instructions, decisions]))
        except ReplayError:
            return None
        return trace_to_json(schedule.trace) if structural_equal(schedule.mod, wanted) else None

    def _name_at(self, trace_json: str, index: int, rewritten: list[Any], decisions: list[Any]) -> str | None:
        """The canonical name of the block that the trace asks for in its instruction `index`."""
        instructions, _ = json.loads(trace_json)
        known = [decision for decision in decisions if decision[0] < index]
        original = _names_after(self._original, [instructions[:index], known])
        canonical = _names_after(self._canonical, [rewritten, known])
        wanted = instructions[index][2][0]
        if len(original) != len(canonical) or original.count(wanted) != 1:
            return None
        return canonical[original.index(wanted)]


def _names_after(mod: tvm.IRModule, trace: list[Any]) -> list[str]:
    """The names of all blocks of a module to which the beginning of a trace has been applied."""
    try:
        schedule = replay_trace(mod, canonical_json(trace))
    except ReplayError:
        return []
    return list(_block_names(schedule, schedule.get_sblock(_ROOT, func_name=_MAIN)))


def _block_names(schedule: Schedule, block: SBlockRV) -> Iterator[str]:
    """The name of a block, then those of the blocks inside it, in an order that no name influences."""
    yield str(schedule.get(block).name_hint)
    for child in schedule.get_child_blocks(block):
        yield from _block_names(schedule, child)


def _with_attrs_of(mod: tvm.IRModule, like: tvm.IRModule) -> tvm.IRModule:
    """A module of the same function without attributes of history, so that it can be compared."""
    func = mod[_MAIN]
    for attr in list(func.attrs.keys()):
        func = func.without_attr(attr)
    return tvm.IRModule({_MAIN: func.with_attr(dict(like[_MAIN].attrs))})


def _label(mod: tvm.IRModule) -> str:
    """T_add, T_relu -> add_relu"""
    names = [name.removeprefix("T_") for name in block_names(new_schedule(mod, seed=1))]
    label = "_".join(name for name in names if not name.startswith("pad")) or "workload"
    return re.sub(r"[^A-Za-z0-9_]+", "_", label)[:_MAX_NAME_CHARS]
