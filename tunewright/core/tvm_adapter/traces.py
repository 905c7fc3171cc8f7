"""Schedule traces: between TVM's objects and the JSON text that the log keeps."""

import json
from collections.abc import Callable
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV, Trace
from tvm.s_tir.schedule import _ffi_api as schedule_ffi
from tvm_ffi import Array, Map

from tunewright.core.errors import TunewrightError
from tunewright.core.keys import canonical_json
from tunewright.core.tvm_adapter.x86_intrinsics import register_intrinsics


class ReplayError(TunewrightError):
    """A trace does not apply to the workload it is meant for."""


# An annotation that has TVM split a loop where a decision inside it changes: of 13 vectors the last, which
# alone is not full; of the channels of joined tensors, those of each. What decides inside a vector becomes
# scalar code. It is lost where indices have 64 bits: `kernel.replay` narrows them.
PEEL = "pragma_loop_partition_hint"


def new_schedule(mod: tvm.IRModule, *, seed: int) -> Schedule:
    """A schedule without debug checks and with short errors: a failing primitive costs half as much."""
    return Schedule(mod, seed=seed, debug_mask="none", error_render_level="fast")


def block_names(schedule: Schedule) -> list[str]:
    """Names of the blocks of the main function, in the order in which they run."""
    root = schedule.get_sblock("root", func_name="main")
    return [str(schedule.get(block).name_hint) for block in schedule.get_child_blocks(root)]


def block_named(schedule: Schedule, name: str) -> SBlockRV:
    """A block of the main function."""
    return schedule.get_sblock(name, func_name="main")


def inlined(schedule: Schedule, is_wanted: Callable[[Schedule, SBlockRV], bool]) -> Schedule:
    """The schedule with every wanted block computed where it is read, as far as TVM can do that."""
    for name in block_names(schedule):
        attempt = schedule.copy()
        block = attempt.get_sblock(name, func_name="main")
        if not is_wanted(attempt, block):
            continue
        try:
            attempt.compute_inline(block)
        except RuntimeError:  # ScheduleError: it writes an output, or is read in a way that forbids it
            continue
        schedule = attempt
    return schedule


def is_branching(schedule: Schedule, block: SBlockRV) -> bool:
    """Whether a block decides for each element, as at the border of a padded input."""
    return "if_then_else" in str(schedule.get(block).body)


def extent_of(schedule: Schedule, loop: LoopRV) -> int:
    """Iterations of a loop, 0 where the shape is symbolic."""
    extent = schedule.get(loop).extent
    return int(extent.value) if isinstance(extent, tvm.tirx.IntImm) else 0


def trace_to_json(trace: Trace) -> str:
    """Canonical JSON of a trace, `[instructions, decisions]` as TVM's own database writes it."""
    return canonical_json(trace_to_plain(trace))


def trace_to_plain(trace: Trace) -> list[Any]:
    """`[instructions, decisions]` as plain lists.

    The same as `Trace.as_json`, whose own conversion leaves TVM's numbers and strings inside.
    """
    plain: list[Any] = _plain(schedule_ffi.TraceAsJSON(trace, False))
    return plain


def replay_trace(mod: tvm.IRModule, trace_json: str) -> Schedule:
    """Apply a recorded trace, its postprocessing included.

    Raises:
        ReplayError: the text is no trace, or a primitive does not apply.
    """
    if "Tensorize" in trace_json:
        register_intrinsics()
    schedule = new_schedule(mod, seed=1)
    try:
        Trace.apply_json_to_schedule(json.loads(trace_json), schedule)
    except (ValueError, TypeError, RuntimeError, AttributeError) as exc:
        raise ReplayError(f"the trace does not apply to this workload: {_first_line(exc)}") from exc
    return schedule


def _plain(value: Any) -> Any:
    """TVM's nested containers as plain Python data.

    Raises:
        TypeError: a value has no JSON form.
    """
    match value:
        case str():
            return str(value)
        case Array():
            return [_plain(item) for item in value]
        case tvm.tirx.IntImm() | tvm.tirx.FloatImm():
            return value.value
        case None | bool() | int() | float():
            return value
        case Map():
            return {str(key): _plain(item) for key, item in value.items()}
        case tvm.tirx.IndexMap():
            return str(tvm.ir.save_json(value))
    raise TypeError(f"a trace holds a {type(value).__name__}, which has no JSON form")


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__
