"""Two records, two sessions or two compiled models against each other: what differs, beside the times."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunewright.core.keys import short_key
from tunewright.core.task_shares import TaskPair
from tunewright.core.text import printable
from tunewright.core.units import format_ms
from tunewright.explore import trial_facts
from tunewright.explore.frames import COUNT, FACT, NUMBER, TEXT, Column, make_frame
from tunewright.explore.html import (
    Html,
    block,
    count,
    facts,
    heading,
    paragraph,
    short_name,
    table,
)
from tunewright.explore.schedule_words import ScheduleChange, schedule_changes
from tunewright.explore.tir import ScheduledTir, scheduled_tir, tir_diff_html
from tunewright.explore.trial_view import Trial, read_trial

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.scheduler.manifest import Manifest
    from tunewright.tuning_logs import SessionSummary, TuningLog

_SHOWN_CHARS = 12
_MAX_ROWS = 40
_OTHER_MACHINES = "they were timed on different machines: their times do not compare"


@dataclass(frozen=True, slots=True)
class RecordComparison:
    """Record B against record A: what its schedule does otherwise, and what came of it.

    `tir` has both scheduled functions, None where they were not asked for.
    """

    a: Trial
    b: Trial
    changes: tuple[ScheduleChange, ...]
    tir: tuple[ScheduledTir, ScheduledTir] | None = field(default=None, repr=False)

    @property
    def ratio(self) -> float | None:
        """Time of B / time of A, medians; None where one has no time, or they are of different machines."""
        spreads = self.a.spread, self.b.spread
        if None in spreads or not self.is_same_machine:
            return None
        before, after = (spread.median_secs for spread in spreads if spread is not None)
        return after / before

    @property
    def notes(self) -> list[str]:
        """What a reader must know before he compares."""
        notes = []
        if self.a.task.key != self.b.task.key:
            notes.append("they are of different tasks: loops of the same name may be other axes")
        if not self.is_same_machine:
            notes.append(_OTHER_MACHINES)
        if not self.changes:
            is_same = self.a.trace_json == self.b.trace_json
            notes.append(
                "the same schedule" if is_same else "no difference but in what postprocessing made of them"
            )
        return notes

    def to_frame(self) -> "pd.DataFrame":
        """One row per change of the schedule; "none" where one of the two does not do it."""
        return make_frame(self.changes, _CHANGE_COLUMNS)

    def __repr__(self) -> str:
        return (
            f"<RecordComparison of {self.a.record_id} and {self.b.record_id}: "
            f"{count(len(self.changes), 'change')}, {self._ratio_text()}>"
        )

    def _repr_html_(self) -> Html:
        heads = ("record", "workload", "result", "*median", "*quartile", "*quartile", "*samples", "origin")
        rows = [_side_cells(trial) for trial in (self.a, self.b)]
        changes = [(change.block or "-", change.what, change.before, change.after) for change in self.changes]
        titles = ("block", "what", f"record {self.a.record_id}", f"record {self.b.record_id}")
        parts = [
            heading("Records", f"{self.a.record_id} and {self.b.record_id}"),
            paragraph(self._ratio_text()),
            *(paragraph(note) for note in self.notes),
            table("Times per call", heads, rows),
        ]
        if changes:
            parts.append(table("What changed in the schedule", titles, changes))
        if self.tir is not None:
            parts.append(tir_diff_html(*self.tir))
        return block(parts)

    @property
    def is_same_machine(self) -> bool:
        machines = [trial.recorded.record.machine.fingerprint for trial in (self.a, self.b)]
        return machines[0] == machines[1]

    def _ratio_text(self) -> str:
        if self.ratio is None or self.a.spread is None or self.b.spread is None:
            return "times that do not compare" if not self.is_same_machine else "not both have a time"
        a, b = self.a.spread, self.b.spread
        apart = "apart" if b.low_secs > a.high_secs or b.high_secs < a.low_secs else "overlap"
        return (
            f"{format_ms(a.median_secs)} -> {format_ms(b.median_secs)}, {self.ratio:.3g}x the time"
            f" (quartiles {apart})"
        )


@dataclass(frozen=True, slots=True)
class SessionComparison:
    """Session B against session A, by the best records that each measured itself; not interleaved."""

    a: "SessionSummary"
    b: "SessionSummary"
    pairs: tuple[TaskPair, ...] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Time of B / time of A of the tasks that both have, with their calls; NaN where there is none."""
        return self.b_secs / self.a_secs if self.pairs else math.nan

    @property
    def a_secs(self) -> float:
        return math.fsum(pair.weight * float(np.median(pair.a_secs)) for pair in self.pairs)

    @property
    def b_secs(self) -> float:
        return math.fsum(pair.weight * float(np.median(pair.b_secs)) for pair in self.pairs)

    def to_frame(self) -> "pd.DataFrame":
        """One row per task that both have a time of, what changes the sum most first."""
        return make_frame(self.pairs, _PAIR_COLUMNS)

    def __repr__(self) -> str:
        return f"<SessionComparison of {printable(self._names())}: {self._text()}>"

    def _repr_html_(self) -> Html:
        sides = [
            f"{name}: {short_name(side.model_name)}, {side.strategy}, seed {side.seed}, "
            f"{count(side.num_trials, 'trial')}"
            for name, side in (("A", self.a), ("B", self.b))
        ]
        parts = [
            heading("Sessions", self._names()),
            *(facts((side,)) for side in sides),
            paragraph(self._text()),
        ]
        if self.pairs:
            heads = ("workload", "*calls", "*A", "*B", "*B / A", "*from", "*to")
            rows = [_pair_cells(pair) for pair in self.pairs[:_MAX_ROWS]]
            is_cut = len(rows) < len(self.pairs)
            title = f"The first {len(rows)} of {len(self.pairs)} tasks" if is_cut else "Tasks"
            parts.append(table(title, heads, rows))
        parts.append(
            paragraph("The sessions were not interleaved: what a busy machine adds is in the ratios.")
        )
        return block(parts)

    def _names(self) -> str:
        return " and ".join(side.session_id[:_SHOWN_CHARS] for side in (self.a, self.b))

    def _text(self) -> str:
        if not self.pairs:
            return "no task has a verified time in both"
        return (
            f"{count(len(self.pairs), 'task')}, {format_ms(self.a_secs)} -> {format_ms(self.b_secs)}, "
            f"{self.ratio:.3g}x the time"
        )


@dataclass(frozen=True, slots=True)
class KernelPair:
    """One kernel of two compiled models: what each took ("" where it has no such kernel), and its time."""

    name: str
    task_key: str | None
    calls: int
    a_from: str
    b_from: str
    a_secs: float | None
    b_secs: float | None
    is_same: bool


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Compiled model B against compiled model A, by their manifests; times are those of the records."""

    a: "Manifest" = field(repr=False)
    b: "Manifest" = field(repr=False)
    kernels: tuple[KernelPair, ...] = field(repr=False)

    @property
    def changed(self) -> tuple[KernelPair, ...]:
        return tuple(kernel for kernel in self.kernels if not kernel.is_same)

    def to_frame(self) -> "pd.DataFrame":
        """One row per kernel, those that differ first."""
        return make_frame(self.kernels, _KERNEL_COLUMNS)

    def __repr__(self) -> str:
        return f"<ModelComparison of {printable(self._names())}: {self._text()}>"

    def _repr_html_(self) -> Html:
        sides = [
            f"{name}: {short_name(side.model_name)}, {side.target.mcpu}, "
            f"{count(side.target.num_threads, 'thread')}, TVM {side.machine.tvm_version}, "
            f"Tunewright {side.tunewright_version}"
            for name, side in (("A", self.a), ("B", self.b))
        ]
        parts = [
            heading("Compiled models", self._names()),
            *(facts((side,)) for side in sides),
            paragraph(self._text()),
        ]
        if self.changed:
            heads = ("kernel", "task", "*calls", "A", "B", "*A", "*B")
            rows = [_kernel_cells(kernel) for kernel in self.changed[:_MAX_ROWS]]
            parts.append(table("What differs", heads, rows))
        return block(parts)

    def _names(self) -> str:
        return " and ".join(short_name(side.model_name) for side in (self.a, self.b))

    def _text(self) -> str:
        return f"{count(len(self.kernels), 'kernel')}, {len(self.changed)} scheduled otherwise"


def compare_records(log: "TuningLog", a: int, b: int, *, tir: bool) -> RecordComparison:
    """Raises: RecordNotFoundError; with `tir` also what `scheduled_tir` raises."""
    before, after = read_trial(log, a), read_trial(log, b)
    functions = None
    if tir:
        first, second = scheduled_tir([before, after])
        functions = (first, second)
    changes = schedule_changes(before.trace_json, after.trace_json)
    return RecordComparison(before, after, tuple(changes), functions)


def compare_sessions(log: "TuningLog", a: "SessionSummary", b: "SessionSummary") -> SessionComparison:
    """Raises: ConfigError: they were timed on different machines."""
    from tunewright.tuning_logs.session_pairs import session_pairs

    pairs = sorted(
        session_pairs(log, a, b),
        key=lambda pair: -abs(pair.weight * (np.median(pair.b_secs) - np.median(pair.a_secs))),
    )
    return SessionComparison(a, b, tuple(pairs))


def compare_models(a: Path, b: Path) -> ModelComparison:
    """Raises: ConfigError: one of the folders is no compiled model."""
    from tunewright.scheduler.manifest import read_manifest

    before, after = read_manifest(a), read_manifest(b)
    sides = [_by_task(side) for side in (before, after)]
    pairs = [_kernel_pair(sides[0].get(key), sides[1].get(key)) for key in sides[0] | sides[1]]
    pairs.sort(key=lambda pair: pair.is_same)
    return ModelComparison(before, after, tuple(pairs))


@dataclass(frozen=True, slots=True)
class _Kernel:
    """All functions of a compiled model that are of one task."""

    name: str
    task_key: str | None
    calls: int
    source: str
    schedule: str
    secs: float | None


def _by_task(manifest: "Manifest") -> dict[str, _Kernel]:
    kernels: dict[str, _Kernel] = {}
    for entry in manifest.kernels:
        key = entry.task_key or f"function {entry.function}"
        calls = entry.num_calls + (kernels[key].calls if key in kernels else 0)
        source = entry.source.value if entry.record_id is None else f"record {entry.record_id}"
        # The numbers of records are those of one log; schedules are told apart by their keys.
        schedule = entry.candidate_key or entry.source.value
        kernels[key] = _Kernel(entry.name, entry.task_key, calls, source, schedule, entry.measured_secs)
    return kernels


def _kernel_pair(a: _Kernel | None, b: _Kernel | None) -> KernelPair:
    known = a or b
    assert known is not None, "a key of neither side"
    return KernelPair(
        name=known.name,
        task_key=known.task_key,
        calls=max(side.calls for side in (a, b) if side is not None),
        a_from="" if a is None else a.source,
        b_from="" if b is None else b.source,
        a_secs=None if a is None else a.secs,
        b_secs=None if b is None else b.secs,
        is_same=a is not None and b is not None and a.schedule == b.schedule,
    )


def _side_cells(trial: Trial) -> tuple[str, ...]:
    spread = trial.spread
    times = ("-",) * 3 if spread is None else (spread.median_secs, spread.low_secs, spread.high_secs)
    return (
        str(trial.record_id),
        short_name(trial.workload),
        trial_facts.status(trial.recorded),
        *(time if isinstance(time, str) else format_ms(time) for time in times),
        "0" if spread is None else str(spread.num_samples),
        trial.recorded.record.candidate.origin.value,
    )


def _pair_cells(pair: TaskPair) -> tuple[str, ...]:
    low, high = pair.ratio_range
    return (
        short_name(pair.name),
        f"{pair.weight:,}",
        format_ms(float(np.median(pair.a_secs))),
        format_ms(float(np.median(pair.b_secs))),
        f"{pair.ratio:.3g}",
        f"{low:.3g}",
        f"{high:.3g}",
    )


def _kernel_cells(kernel: KernelPair) -> tuple[str, ...]:
    return (
        short_name(kernel.name),
        "-" if kernel.task_key is None else short_key(kernel.task_key),
        f"{kernel.calls:,}",
        kernel.a_from or "-",
        kernel.b_from or "-",
        format_ms(kernel.a_secs),
        format_ms(kernel.b_secs),
    )


_CHANGE_COLUMNS: list[Column[ScheduleChange]] = [
    Column("block", TEXT, lambda c: c.block),
    Column("what", TEXT, lambda c: c.what),
    Column("before", TEXT, lambda c: c.before),
    Column("after", TEXT, lambda c: c.after),
]
_PAIR_COLUMNS: list[Column[TaskPair]] = [
    Column("workload", TEXT, lambda p: p.name),
    Column("calls", COUNT, lambda p: p.weight),
    Column("a_secs", NUMBER, lambda p: float(np.median(p.a_secs))),
    Column("b_secs", NUMBER, lambda p: float(np.median(p.b_secs))),
    Column("ratio", NUMBER, lambda p: p.ratio),
    Column("low_ratio", NUMBER, lambda p: p.ratio_range[0]),
    Column("high_ratio", NUMBER, lambda p: p.ratio_range[1]),
]
_KERNEL_COLUMNS: list[Column[KernelPair]] = [
    Column("kernel", TEXT, lambda k: k.name),
    Column("task_key", TEXT, lambda k: k.task_key),
    Column("calls", COUNT, lambda k: k.calls),
    Column("a_from", TEXT, lambda k: k.a_from or None),
    Column("b_from", TEXT, lambda k: k.b_from or None),
    Column("a_secs", NUMBER, lambda k: k.a_secs),
    Column("b_secs", NUMBER, lambda k: k.b_secs),
    Column("is_same", FACT, lambda k: k.is_same),
]
