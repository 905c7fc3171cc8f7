"""Schedules in words, and what changed from one to another: "tile i 64x16 -> 32x32", "unroll 64 -> off".

A trace is read like a program, without TVM: tiles have the factors that were decided, loops the names of the
axes that they are parts of, `i.0` the outermost. What postprocessing adds follows from the rest, and is left
out.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.core.keys import canonical_json, digest, short_key

NONE = "none"
_AXES = "ijklmnopqrstuvw"
_LOCATIONS = {-1: "at the root", -2: "inlined"}


@dataclass(frozen=True, slots=True)
class ScheduleFact:
    """One thing that a schedule does. `block`: whose loops; "" for the block that is tiled most, and all."""

    block: str
    what: str
    value: str

    def __str__(self) -> str:
        return f"{_subject(self.block, self.what)} {self.value}"


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What one schedule does otherwise than another; "none" where one of them does not do it."""

    block: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{_subject(self.block, self.what)} {self.before} -> {self.after}"


def schedule_facts(trace_json: str) -> list[ScheduleFact]:
    """What the schedule of a trace does: tiles first, then all else in the order of the trace.

    Of a text that is no trace, the only fact is that, with a digest that tells it from others.
    """
    try:
        instructions, decisions = json.loads(trace_json)
        reader = _Reader({int(index): decision for index, decision in decisions})
        for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
            if kind == "EnterPostproc":
                break
            reader.read(index, kind, inputs, attributes, outputs)
        said: dict[tuple[str, str], list[str]] = {}
        for fact in reader.facts():
            said.setdefault((fact.block, fact.what), []).append(fact.value)
        return [ScheduleFact(block, what, ", ".join(values)) for (block, what), values in said.items()]
    except (ValueError, TypeError, LookupError, AttributeError):
        return [ScheduleFact("", "schedule", f"that cannot be read ({short_key(digest(trace_json))})")]


def schedule_words(trace_json: str) -> list[str]:
    """`schedule_facts` as text."""
    return [str(fact) for fact in schedule_facts(trace_json)]


def schedule_changes(before_json: str, after_json: str) -> list[ScheduleChange]:
    """What the second schedule does otherwise; none where they do the same but for their postprocessing."""
    before, after = (
        {(fact.block, fact.what): fact.value for fact in schedule_facts(trace_json)}
        for trace_json in (before_json, after_json)
    )
    return [
        ScheduleChange(block, what, before.get((block, what), NONE), after.get((block, what), NONE))
        for block, what in before | after
        if before.get((block, what)) != after.get((block, what))
    ]


def schedule_diff(before_json: str, after_json: str) -> list[str]:
    """`schedule_changes` as text."""
    return [str(change) for change in schedule_changes(before_json, after_json)]


def _subject(block: str, what: str) -> str:
    return f"{block}: {what}" if block else what


@dataclass(slots=True, eq=False)
class _Loop:
    """A loop, or several that were fused. `extent`: None where the trace does not tell it."""

    extent: int | None = None
    axis: "_Axis | None" = None
    fused: "list[_Loop]" = field(default_factory=list)

    @property
    def name(self) -> str:
        """The axis, with the place among its parts where there are several; "" where that is not known."""
        if self.fused:
            return "*".join(loop.name for loop in self.fused)
        if self.axis is None:
            return ""
        parts = self.axis.parts
        # A loop that was split after it was named is no part any more.
        is_part = len(parts) > 1 and self in parts
        return f"{self.axis.name}.{parts.index(self)}" if is_part else self.axis.name


@dataclass(slots=True, eq=False)
class _Axis:
    """A loop of a block as it was at first, and its parts now, outermost first."""

    name: str
    parts: list[_Loop]


@dataclass(slots=True, eq=False)
class _Block:
    """`is_settled`: it was moved or made, so that the trace does not say which of its loops are its own."""

    name: str
    axes: list[_Axis] = field(default_factory=list)
    loops: list[_Loop] = field(default_factory=list)
    is_settled: bool = False
    is_initial: bool = False
    vectors: list[_Loop] = field(default_factory=list)
    unrolled: list[_Loop] = field(default_factory=list)


class _Reader:
    """Follows a trace: what its variables stand for, and what it has said so far."""

    def __init__(self, decisions: Mapping[int, Any]) -> None:
        self._decisions = decisions
        self._numbers: dict[str, int] = {}
        self._locations: dict[str, int] = {}
        self._loops: dict[str, tuple[_Loop, _Block]] = {}
        self._blocks: dict[str, _Block] = {}
        self._by_name: dict[str, _Block] = {}
        self._facts: list[tuple[_Block | None, str, Callable[[], str]]] = []

    def read(
        self, index: int, kind: str, inputs: list[Any], attributes: list[Any], outputs: list[str]
    ) -> None:
        """Raises: one of the errors of indexing where it is no instruction of TVM's."""
        match kind:
            case "SamplePerfectTile":
                self._numbers |= dict(zip(outputs, self._decisions[index], strict=True))
            case "SampleCategorical":
                self._numbers[outputs[0]] = attributes[0][self._decisions[index]]
            case "SampleComputeLocation":
                self._locations[outputs[0]] = self._decisions[index]
            case "GetSBlock":
                self._blocks[outputs[0]] = self._named(attributes[0])
            case "GetProducers" | "GetConsumers" | "GetChildBlocks":
                of = self._blocks[inputs[0]].name if inputs[0] in self._blocks else "a loop"
                for place, output in enumerate(outputs):
                    noun = {"GetProducers": "producer", "GetConsumers": "consumer"}.get(kind, "child")
                    number = f" {place}" if len(outputs) > 1 else ""
                    self._blocks[output] = _Block(f"{noun}{number} of {of}", is_settled=True)
            case "GetLoops":
                self._get_loops(self._blocks[inputs[0]], outputs)
            case "Split":
                self._split(inputs[0], inputs[1:], outputs)
            case "Fuse":
                self._fuse(inputs, outputs[0])
            case "Reorder":
                self._reorder(inputs)
            case "Parallel":
                loop, block = self._loops[inputs[0]]
                self._say(block, "parallel", lambda: _loop_text(loop))
            case "Vectorize" | "Unroll":
                loop, block = self._loops[inputs[0]]
                (block.vectors if kind == "Vectorize" else block.unrolled).append(loop)
            case "Bind":
                loop, block = self._loops[inputs[0]]
                self._say(block, attributes[0], lambda: _loop_text(loop))
            case "DecomposeReduction" | "RFactor" | "CacheRead" | "CacheWrite":
                self._make_block(kind, inputs, attributes, outputs)
            case _:
                self._change_block(kind, inputs, attributes)

    def facts(self) -> Iterator[ScheduleFact]:
        """The tiles of each block, then all else as it was said, then vectors and unrolling."""
        blocks = [block for block in self._known_blocks() if not block.is_initial]
        main = max(blocks, key=lambda block: sum(len(axis.parts) for axis in block.axes), default=None)
        for block in blocks:
            for axis in block.axes:
                if len(axis.parts) > 1:
                    yield self._fact(block, main, f"tile {axis.name}", _tile_text(axis))
        for of, what, value in self._facts:
            if of is None or not of.is_initial:
                yield self._fact(of, main, what, value())
        for block in blocks:
            if block.vectors:
                yield self._fact(block, main, "vectorize", ", ".join(map(_extent_text, block.vectors)))
            if block.unrolled:
                yield self._fact(block, main, "unroll", _unrolled_text(block.unrolled))

    def _known_blocks(self) -> list[_Block]:
        """Each once, in the order of the trace."""
        return list(dict.fromkeys(self._blocks.values()))

    def _fact(self, block: _Block | None, main: _Block | None, what: str, value: str) -> ScheduleFact:
        return ScheduleFact("" if block is None or block is main else block.name, what, value)

    def _say(self, block: _Block | None, what: str, value: Callable[[], str]) -> None:
        """Values are made at the end: only then are all splits known."""
        self._facts.append((block, what, value))

    def _named(self, name: str) -> _Block:
        """The same block for the same name, however often it is asked for."""
        return self._by_name.setdefault(name, _Block(name))

    def _get_loops(self, block: _Block, outputs: Sequence[str]) -> None:
        if not block.loops and not block.is_settled:
            for place, _ in enumerate(outputs):
                loop = _Loop()
                name = _AXES[place] if place < len(_AXES) else f"i{place}"
                loop.axis = _Axis(name, [loop])
                block.axes.append(loop.axis)
                block.loops.append(loop)
        # The loops of a block that was moved begin with those around its new place.
        known = block.loops if len(block.loops) == len(outputs) and not block.is_settled else None
        for output, loop in zip(outputs, known or [_Loop() for _ in outputs], strict=True):
            self._loops[output] = (loop, block)

    def _split(self, split: str, factors: Sequence[Any], outputs: Sequence[str]) -> None:
        loop, block = self._loops[split]
        extents = [None if factor in ("None", None) else self._number(factor) for factor in factors]
        parts = [_Loop(extent, loop.axis) for extent in extents]
        if loop.axis is not None:
            _replace(loop.axis.parts, loop, parts)
        _replace(block.loops, loop, parts)
        for output, part in zip(outputs, parts, strict=True):
            self._loops[output] = (part, block)

    def _fuse(self, inputs: Sequence[str], output: str) -> None:
        loops = [self._loops[name][0] for name in inputs]
        block = self._loops[inputs[0]][1]
        extents = [loop.extent for loop in loops if loop.extent is not None]
        fused = _Loop(math.prod(extents) if len(extents) == len(loops) else None, fused=loops)
        if all(loop in block.loops for loop in loops):
            _replace(block.loops, loops[0], [fused])
            block.loops = [loop for loop in block.loops if loop not in loops[1:]]
        self._loops[output] = (fused, block)

    def _reorder(self, inputs: Sequence[str]) -> None:
        loops = [self._loops[name][0] for name in inputs]
        block = self._loops[inputs[0]][1]
        moved = [loop for loop in loops if loop in block.loops]
        places = sorted(block.loops.index(loop) for loop in moved)
        for place, loop in zip(places, moved, strict=True):
            block.loops[place] = loop
        if all(loop.name for loop in loops):
            self._say(block, "order", lambda: " ".join(loop.name for loop in loops))

    def _make_block(
        self, kind: str, inputs: list[Any], attributes: list[Any], outputs: Sequence[str]
    ) -> None:
        block = self._loops[inputs[0]][1] if kind == "RFactor" else self._blocks[inputs[0]]
        match kind:
            case "DecomposeReduction":
                made = _Block(f"start of {block.name}", is_settled=True, is_initial=True)
            case "RFactor":
                made = _Block(f"parts of {block.name}", is_settled=True)
                loop = self._loops[inputs[0]][0]
                self._say(block, "reduced in parts", lambda: _loop_text(loop))
            case _:
                operand, scope = attributes
                of = "result" if kind == "CacheWrite" else f"operand {operand}"
                made = _Block(f"copy of {of}", is_settled=True)
                self._say(block, f"copy of {of}", lambda: f"in {scope} memory")
        self._blocks[outputs[0]] = made

    def _change_block(self, kind: str, inputs: list[Any], attributes: list[Any]) -> None:
        match kind:
            case "ComputeAt" | "ReverseComputeAt":
                block = self._blocks[inputs[0]]
                block.is_settled = True
                self._say(None, f"compute {block.name}", self._place(inputs[1]))
            case "ComputeInline" | "ReverseComputeInline":
                self._say(None, f"compute {self._blocks[inputs[0]].name}", lambda: "inlined")
            case "PadEinsum":
                self._say(self._blocks[inputs[0]], "pad to multiples of", lambda: _times(attributes[0]))
            case "Tensorize":
                block = self._loops[inputs[0]][1] if inputs[0] in self._loops else self._blocks[inputs[0]]
                self._say(block, "tensorize", lambda: str(attributes[0]))
            case "SetScope":
                self._say(None, f"keep {self._blocks[inputs[0]].name}", lambda: f"in {attributes[1]} memory")
            case "UnsafeSetDType":
                self._say(None, f"keep {self._blocks[inputs[0]].name}", lambda: f"as {attributes[1]}")
            case "TransformLayout":
                of = f"operand {attributes[0]}" if attributes[1] == 0 else "result"
                self._say(self._blocks[inputs[0]], f"layout of {of}", lambda: "changed")
            case "Annotate":
                self._annotate(inputs, attributes[0])
            case "Unannotate":
                pass
            case _:
                of = self._blocks[inputs[0]].name if inputs and inputs[0] in self._blocks else ""
                self._say(None, f"{kind} {of}".strip(), lambda: canonical_json(attributes))

    def _annotate(self, inputs: list[Any], key: str) -> None:
        value = self._number(inputs[1]) if isinstance(inputs[1], int | str) and key in _LIMITS else inputs[1]
        if key in _LIMITS:
            what, unit = _LIMITS[key]
            self._say(None, what, lambda: f"up to {value} {unit}" if value else "off")
        elif key == "meta_schedule.cooperative_fetch":
            block = self._blocks[inputs[0]]
            fetched = self._number(inputs[1])
            self._say(None, f"fetch {block.name}", lambda: f"{fetched} at a time")
        elif key not in _HINTS:
            short = key.removeprefix("meta_schedule.").replace("_", " ")
            self._say(
                None, short, lambda: value.strip('"') if isinstance(value, str) else canonical_json(value)
            )

    def _place(self, name: str) -> Callable[[], str]:
        if name in self._locations:
            location = self._locations[name]
            return lambda: _LOCATIONS.get(location, f"at loop {location}")
        loop, _ = self._loops[name]
        return lambda: f"at {loop.name}" if loop.name else "at a loop"

    def _number(self, value: Any) -> int:
        """A number, or what was sampled."""
        return self._numbers[value] if isinstance(value, str) else int(value)


_LIMITS = {
    "meta_schedule.parallel": ("parallel", "jobs"),
    "meta_schedule.vectorize": ("vectorize", "lanes"),
    "meta_schedule.unroll_explicit": ("unroll", "steps"),
    "meta_schedule.unroll_implicit": ("unroll", "steps, left to LLVM"),
}
# For TVM's own use: they say nothing that the rest does not say.
_HINTS = {
    "meta_schedule.layout_rewrite_preproc",
    "meta_schedule.random_compute_producer",
    "meta_schedule.thread_extent_high_inclusive",
    "meta_schedule.thread_extent_low_inclusive",
}


def _replace(loops: list[_Loop], old: _Loop, new: Sequence[_Loop]) -> None:
    if old in loops:
        place = loops.index(old)
        loops[place : place + 1] = new


def _times(factors: Sequence[int | None]) -> str:
    return "x".join("?" if factor is None else str(factor) for factor in factors)


def _tile_text(axis: _Axis) -> str:
    return _times([part.extent for part in axis.parts])


def _extent_text(loop: _Loop) -> str:
    if loop.extent is not None:
        return str(loop.extent)
    return f"all of {loop.name}" if loop.name else "a whole loop"


def _loop_text(loop: _Loop) -> str:
    name = loop.name or "a loop"
    return name if loop.extent is None else f"{name} ({loop.extent})"


def _unrolled_text(loops: Sequence[_Loop]) -> str:
    names = [loop.name for loop in loops]
    return " ".join(names) if all(names) else f"{len(loops)} loop{'' if len(loops) == 1 else 's'}"
