"""What a schedule's trace from outside may hold: a list of what is allowed; all else is refused. No TVM here.

TVM takes a trace at its word. An annotation may name a file of LLVM code that is then linked in, the index of
a decision is written through unchecked, some flags promise what is then not checked either, a tile's factor
divides even if it is 0, and a decision that is missing is drawn at random, perhaps for ever. So a trace from
outside is checked before TVM sees it. Allowed are the instructions that TVM's "llvm" and "cuda" schedule
rules and our own sketches make, with arguments of the types and ranges that they give them.

A trace that passes may still not apply to its workload, or take TVM down: that is what a child is for.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.core.errors import UntrustedTraceError
from tunewright.core.index_map_rules import check_index_map
from tunewright.core.untrusted_json import parse_untrusted, shown

MAX_TRACE_BYTES = 1 << 20
MAX_TRACE_DEPTH = 16
MAX_INSTRUCTIONS = 4096

INTRINSICS = (
    "tunewright.x86.dot_u8s8s32_16x4",
    "tunewright.x86.dot_u8s8s32_8x4",
    "tunewright.x86.dot_bf16bf16f32_16x2",
    "tunewright.x86.dot_f32bf16f32_16x2",
    "tunewright.x86.dot_f32bf16f32_8x2",
    "tunewright.x86.dot_widened_bf16bf16f32_16x2",
    "tunewright.x86.dot_widened_bf16bf16f32_8x2",
)
"""What `Tensorize` may name: all of `tvm_adapter.x86_intrinsics`, which loads TVM, as this must not."""

_MAX_INPUTS = 256
_MAX_OUTPUTS = 1024
_MAX_NAME_CHARS = 256
_MAX_BUFFERS = 64
_MAX_AXES = 64
_MAX_EXTENT = 2**31 - 1
_MAX_FACTORS = 16
_MAX_CHOICES = 64
_MAX_STEPS = 4096  # to unroll, or of a vector
_MAX_JOBS = 1 << 16
_MAX_THREADS = 1024
_MAX_STAGES = 16
_MAX_LOCATION = 4096

_VARIABLE = re.compile(r"[blv](0|[1-9][0-9]{0,5})")
_TILING = re.compile(r'"[SR]{1,16}"')

_Variables = dict[str, str]
"""What is defined so far: name -> one of the sorts below."""

_BLOCK, _LOOP, _NUMBER, _LOCATION = "b", "l", "v", "location"
"""Sorts of variables; names begin with the first letter. A location may be no loop: the root, or inlined."""

_Check = Callable[[Any, _Variables], None]
"""Raises UntrustedTraceError unless a value is allowed where these variables are defined."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """One kind of instruction.

    `inputs` and `attrs` check the lists as a whole. It defines from `least` to `most` variables of the sort
    `makes`. `together` checks what arguments say about each other: inputs, attrs, outputs and the variables
    defined. `decision` checks a decision, given the attrs; only sampling has one.
    """

    inputs: _Check
    attrs: _Check
    makes: str = ""
    least: int = 0
    most: int = 0
    together: Callable[[list[Any], list[Any], list[Any], _Variables], None] | None = None
    decision: Callable[[Any, list[Any]], None] | None = None


def check_trace(trace_json: str) -> None:
    """Check a trace from outside, before anything else reads it.

    Raises:
        UntrustedTraceError: names the instruction (its index and kind) and what is not allowed.
    """
    trace = parse_untrusted(trace_json, "the trace", max_bytes=MAX_TRACE_BYTES, max_depth=MAX_TRACE_DEPTH)
    if not _is_list(trace, 2) or not all(isinstance(part, list) for part in trace):
        raise UntrustedTraceError("the trace is no pair of a list of instructions and one of decisions")
    instructions, decisions = trace
    if len(instructions) > MAX_INSTRUCTIONS:
        raise UntrustedTraceError(
            f"the trace has {len(instructions)} instructions, at most {MAX_INSTRUCTIONS} are allowed"
        )
    defined: _Variables = {}
    for index, instruction in enumerate(instructions):
        try:
            _check_instruction(instruction, defined)
        except UntrustedTraceError as exc:
            raise UntrustedTraceError(f"{_place(index, instruction)}: {exc}") from None
    _check_decisions(instructions, decisions)


def _check_instruction(instruction: Any, defined: _Variables) -> None:
    """Check one instruction, and add what it defines."""
    if not _is_list(instruction, 4):
        raise UntrustedTraceError("it is no list of kind, inputs, attrs and outputs")
    kind, inputs, attrs, outputs = instruction
    if not isinstance(kind, str) or kind not in _RULES:
        raise UntrustedTraceError(f"the kind {shown(kind)} is not allowed")
    if not all(isinstance(part, list) for part in (inputs, attrs, outputs)):
        raise UntrustedTraceError("its inputs, attrs or outputs are no list")
    rule = _RULES[kind]
    rule.inputs(inputs, defined)
    rule.attrs(attrs, defined)
    if not rule.least <= len(outputs) <= rule.most:
        raise UntrustedTraceError(f"it defines {len(outputs)} variables, not {rule.least} to {rule.most}")
    if rule.together is not None:
        rule.together(inputs, attrs, outputs, defined)
    for name in outputs:
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or name[0] != rule.makes[0]:
            raise UntrustedTraceError(f"it defines {shown(name)}, which is no name of a variable of its type")
        if name in defined:
            raise UntrustedTraceError(f"it defines {name}, which is defined before")
        defined[name] = rule.makes


def _check_decisions(instructions: list[Any], decisions: list[Any]) -> None:
    missing = {index for index, instruction in enumerate(instructions) if _RULES[instruction[0]].decision}
    for number, entry in enumerate(decisions):
        if not _is_list(entry, 2) or type(entry[0]) is not int or not 0 <= entry[0] < len(instructions):
            raise UntrustedTraceError(f"decision {number}: {shown(entry)} names no instruction and its value")
        index, value = entry
        kind, _, attrs, _ = instructions[index]
        place = _place(index, instructions[index])
        check = _RULES[kind].decision
        if check is None:
            raise UntrustedTraceError(f"{place}: it samples nothing, so a decision is not allowed")
        if index not in missing:
            raise UntrustedTraceError(f"{place}: it has two decisions")
        missing.discard(index)
        try:
            check(value, attrs)
        except UntrustedTraceError as exc:
            raise UntrustedTraceError(f"{place}: its decision: {exc}") from None
    for index in sorted(missing):
        raise UntrustedTraceError(f"{_place(index, instructions[index])}: it has no decision")


def _place(index: int, instruction: Any) -> str:
    kind = instruction[0] if isinstance(instruction, list) and instruction else None
    return f"instruction {index} ({kind if isinstance(kind, str) and kind in _RULES else shown(kind)})"


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


# Checks of one value.


def _variable(*sorts: str) -> _Check:
    def check(value: Any, defined: _Variables) -> None:
        if not isinstance(value, str) or defined.get(value) not in sorts:
            raise UntrustedTraceError(
                f"{shown(value)} is no variable of the right type that is defined before"
            )

    return check


def _integer(low: int, high: int) -> _Check:
    def check(value: Any, _defined: _Variables) -> None:
        if type(value) is not int or not low <= value <= high:
            raise UntrustedTraceError(f"{shown(value)} is no integer from {low} to {high}")

    return check


def _one_of(*allowed: str) -> _Check:
    def check(value: Any, _defined: _Variables) -> None:
        if not isinstance(value, str) or value not in allowed:
            raise UntrustedTraceError(f"{shown(value)} is not allowed here")

    return check


def _flag(value: Any, _defined: _Variables) -> None:
    if type(value) not in (bool, int) or value not in (0, 1):
        raise UntrustedTraceError(f"{shown(value)} is no flag")


def _off(value: Any, defined: _Variables) -> None:
    """A promise that TVM does not check: a loop's bounds, or that a layout loses nothing."""
    _flag(value, defined)
    if value:
        raise UntrustedTraceError(f"{shown(value)} switches a check off")


def _null(value: Any, _defined: _Variables) -> None:
    if value is not None:
        raise UntrustedTraceError(f"{shown(value)} is not allowed here, only null is")


def _name(value: Any, _defined: _Variables) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME_CHARS or not value.isprintable():
        raise UntrustedTraceError(f"{shown(value)} is no name of 1 to {_MAX_NAME_CHARS} printable characters")


def _probability(value: Any, _defined: _Variables) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise UntrustedTraceError(f"{shown(value)} is no probability")


def _tiling_structure(value: Any, _defined: _Variables) -> None:
    if not isinstance(value, str) or not _TILING.fullmatch(value):
        raise UntrustedTraceError(f"{shown(value)} is no tiling structure")


def _factor(value: Any, defined: _Variables) -> None:
    """Of a loop that is split; "None" for the one that follows from the others."""
    if value != "None":
        _count(1, _MAX_EXTENT)(value, defined)


def _index_map(value: Any, _defined: _Variables) -> None:
    if not isinstance(value, str):
        raise UntrustedTraceError(f"{shown(value)} is no index map")
    check_index_map(value)


def _any(_value: Any, _defined: _Variables) -> None:
    """Checked together with others."""


def _count(low: int, high: int) -> _Check:
    """A number, or a variable that was sampled."""
    is_integer, is_sampled = _integer(low, high), _variable(_NUMBER)

    def check(value: Any, defined: _Variables) -> None:
        (is_sampled if isinstance(value, str) else is_integer)(value, defined)

    return check


def _list_of(check_item: _Check, least: int, most: int) -> _Check:
    def check(value: Any, defined: _Variables) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise UntrustedTraceError(f"{shown(value)} is no list of {least} to {most} items")
        for item in value:
            check_item(item, defined)

    return check


def _these(*checks: _Check, rest: _Check | None = None) -> _Check:
    """A list with one item for each check; further ones, up to a limit, where `rest` checks them."""
    most, further = (len(checks), _any) if rest is None else (_MAX_INPUTS, rest)

    def check(values: list[Any], defined: _Variables) -> None:
        if not len(checks) <= len(values) <= most:
            raise UntrustedTraceError(
                f"it has {len(values)} arguments of a sort, not {len(checks)} to {most}"
            )
        for number, value in enumerate(values):
            (checks[number] if number < len(checks) else further)(value, defined)

    return check


# What arguments say about each other.


def _check_annotation(inputs: list[Any], attrs: list[Any], _outputs: list[Any], defined: _Variables) -> None:
    (key,) = attrs
    if not isinstance(key, str) or key not in _ANNOTATIONS:
        raise UntrustedTraceError(f"the annotation {shown(key)} is not allowed")
    _ANNOTATIONS[key](inputs[1], defined)


def _check_split(inputs: list[Any], _attrs: list[Any], outputs: list[Any], _defined: _Variables) -> None:
    factors = inputs[1:]
    if len(factors) != len(outputs) or factors.count("None") > 1:
        raise UntrustedTraceError(f"{len(factors)} factors do not make {len(outputs)} loops")


def _check_tile(_inputs: list[Any], attrs: list[Any], outputs: list[Any], _defined: _Variables) -> None:
    if attrs[0] != len(outputs):
        raise UntrustedTraceError(f"a tile of {attrs[0]} factors does not make {len(outputs)} variables")


def _check_choice(_inputs: list[Any], attrs: list[Any], _outputs: list[Any], _defined: _Variables) -> None:
    if len(attrs[0]) != len(attrs[1]):
        raise UntrustedTraceError(f"{len(attrs[0])} choices do not have {len(attrs[1])} probabilities")


def _tile_decision(value: Any, attrs: list[Any]) -> None:
    _list_of(_integer(1, _MAX_EXTENT), attrs[0], attrs[0])(value, {})


def _choice_decision(value: Any, attrs: list[Any]) -> None:
    _integer(0, len(attrs[0]) - 1)(value, {})


def _location_decision(value: Any, _attrs: list[Any]) -> None:
    _integer(-2, _MAX_LOCATION)(value, {})


_block, _loop, _block_or_loop = _variable(_BLOCK), _variable(_LOOP), _variable(_BLOCK, _LOOP)
_buffer = _integer(0, _MAX_BUFFERS)
_scope = _one_of("global", "shared", "local")
_stages = _list_of(_integer(0, _MAX_STAGES), 1, _MAX_STAGES)

_ANNOTATIONS: Mapping[str, _Check] = {
    "meta_schedule.cooperative_fetch": _count(1, _MAX_THREADS),
    "meta_schedule.layout_rewrite_preproc": _flag,
    "meta_schedule.parallel": _integer(1, _MAX_JOBS),
    "meta_schedule.random_compute_producer": _flag,
    "meta_schedule.thread_extent_high_inclusive": _integer(1, _MAX_THREADS),
    "meta_schedule.thread_extent_low_inclusive": _integer(1, _MAX_THREADS),
    "meta_schedule.tiling_structure": _tiling_structure,
    "meta_schedule.unroll_explicit": _count(0, _MAX_STEPS),
    "meta_schedule.unroll_implicit": _count(0, _MAX_STEPS),
    "meta_schedule.vectorize": _integer(1, _MAX_STEPS),
    "pragma_auto_unroll_max_step": _integer(0, _MAX_STEPS),
    "pragma_loop_partition_hint": _flag,
    "pragma_unroll_explicit": _flag,
    "software_pipeline_async_stages": _stages,
    "software_pipeline_order": _stages,
    "software_pipeline_stage": _stages,
}

_NOTHING = _these()
_AT = _Rule(_these(_block, _variable(_LOOP, _LOCATION)), _these(_flag, _integer(-1, -1)))
_OF_LOOP = _Rule(_these(_loop), _NOTHING)
_OF_BLOCK = _Rule(_these(_block), _NOTHING)
_BLOCKS_OF = _Rule(_these(_block), _NOTHING, _BLOCK, 0, _MAX_OUTPUTS)
_CACHE = _Rule(_these(_block, _list_of(_block, 0, _MAX_INPUTS)), _these(_buffer, _scope), _BLOCK, 1, 1)

_RULES: Mapping[str, _Rule] = {
    "Annotate": _Rule(_these(_block_or_loop, _any), _these(_any), together=_check_annotation),
    "Bind": _Rule(_these(_loop), _these(_one_of("blockIdx.x", "threadIdx.x", "vthread.x"))),
    "CacheRead": _CACHE,
    "CacheWrite": _CACHE,
    "ComputeAt": _AT,
    "ComputeInline": _OF_BLOCK,
    "DecomposeReduction": _Rule(_these(_block, _loop), _NOTHING, _BLOCK, 1, 1),
    "EnterPostproc": _Rule(_NOTHING, _NOTHING),
    "Fuse": _Rule(_these(_loop, rest=_loop), _these(_flag), _LOOP, 1, 1),
    "GetChildBlocks": _Rule(_these(_block_or_loop), _NOTHING, _BLOCK, 0, _MAX_OUTPUTS),
    "GetConsumers": _BLOCKS_OF,
    "GetLoops": _Rule(_these(_block), _NOTHING, _LOOP, 0, _MAX_OUTPUTS),
    "GetProducers": _BLOCKS_OF,
    "GetSBlock": _Rule(_NOTHING, _these(_name, _one_of("main")), _BLOCK, 1, 1),
    "PadEinsum": _Rule(_these(_block), _these(_list_of(_integer(1, _MAX_STEPS), 1, _MAX_AXES))),
    "Parallel": _OF_LOOP,
    "RFactor": _Rule(_these(_loop), _these(_integer(0, _MAX_AXES)), _BLOCK, 1, 1),
    "Reorder": _Rule(_these(_loop, rest=_loop), _NOTHING),
    "ReverseComputeAt": _AT,
    "ReverseComputeInline": _OF_BLOCK,
    "SampleCategorical": _Rule(
        _NOTHING,
        _these(_list_of(_integer(0, _MAX_STEPS), 1, _MAX_CHOICES), _list_of(_probability, 1, _MAX_CHOICES)),
        *(_NUMBER, 1, 1),
        together=_check_choice,
        decision=_choice_decision,
    ),
    "SampleComputeLocation": _Rule(_these(_block), _NOTHING, _LOCATION, 1, 1, decision=_location_decision),
    "SamplePerfectTile": _Rule(
        _these(_loop),
        _these(_integer(2, _MAX_FACTORS), _integer(1, _MAX_EXTENT)),
        *(_NUMBER, 2, _MAX_FACTORS),
        together=_check_tile,
        decision=_tile_decision,
    ),
    "SetScope": _Rule(_these(_block), _these(_buffer, _scope)),
    # `disable_predication`: without it, a factor that does not divide leads beyond the buffer.
    "Split": _Rule(
        _these(_loop, _factor, rest=_factor),
        _these(_flag, _off),
        _LOOP,
        1,
        _MAX_INPUTS,
        together=_check_split,
    ),
    "Tensorize": _Rule(_these(_block_or_loop), _these(_one_of(*INTRINSICS), _flag)),
    # The buffer is one that is read (0), without padding (null), and the map is proved to lose nothing.
    "TransformLayout": _Rule(_these(_block, _index_map), _these(_buffer, _integer(0, 0), _null, _off)),
    "Unannotate": _Rule(_these(_block_or_loop), _these(_one_of(*_ANNOTATIONS, "schedule_rule"))),
    "Unroll": _OF_LOOP,
    # Only as our sketches use it, to widen a copy of an operand; any other type loses digits.
    "UnsafeSetDType": _Rule(_these(_block), _these(_buffer, _one_of("float32"))),
    "Vectorize": _OF_LOOP,
}
