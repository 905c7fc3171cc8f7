"""All about one trial: what it did, how fast it was, with what, and what became of it since."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from tunewright.core.keys import short_key
from tunewright.core.text import printable
from tunewright.core.trace_text import trace_lines
from tunewright.core.types import FailureKind, MeasureSuccess, RecordedTrial, TuningTask
from tunewright.core.units import format_ms
from tunewright.explore import trial_facts
from tunewright.explore.frames import COUNT, MOMENT, NUMBER, TEXT, Column, make_frame
from tunewright.explore.html import (
    Html,
    block,
    count,
    details,
    facts,
    heading,
    lines_html,
    paragraph,
    short_name,
    table,
)
from tunewright.explore.schedule_words import schedule_words

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.tuning_logs import Race, TuningLog, Verification


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds per call: the median of some samples, and how far they spread."""

    num_samples: int
    min_secs: float
    low_secs: float
    median_secs: float
    high_secs: float
    max_secs: float

    @classmethod
    def of(cls, run_secs: Sequence[float]) -> "Spread":
        """Args: run_secs: one or more; their quartiles are `low_secs` and `high_secs`."""
        low, median, high = np.quantile(run_secs, (0.25, 0.5, 0.75)).tolist()
        return cls(len(run_secs), min(run_secs), low, median, high, max(run_secs))

    def __str__(self) -> str:
        return (
            f"{format_ms(self.median_secs)} "
            f"(quartiles {format_ms(self.low_secs)} to {format_ms(self.high_secs)}, n = {self.num_samples})"
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    source: str
    moment: datetime
    number: int
    secs: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial with its workload, races and verifications; `quarantine` says why nobody may use it."""

    recorded: RecordedTrial = field(repr=False)
    task: TuningTask = field(repr=False)
    races: "tuple[Race, ...]" = field(repr=False)
    verifications: "tuple[Verification, ...]" = field(repr=False)
    quarantine: str | None

    @property
    def record_id(self) -> int:
        return self.recorded.record_id

    @property
    def workload(self) -> str:
        return self.task.workload.name

    @property
    def run_secs(self) -> tuple[float, ...]:
        """What it ranks by: the samples of its newest race, else its own; one, censored, of a pruned one."""
        return self.races[-1].run_secs if self.races else self.recorded.record.result.run_secs

    @property
    def spread(self) -> Spread | None:
        """None of a trial that was not timed."""
        return Spread.of(self.run_secs) if self.run_secs else None

    @property
    def trace_json(self) -> str:
        return self.recorded.record.candidate.trace_json

    @property
    def words(self) -> list[str]:
        """What its schedule does: "tile i 8x2x1x32", "vectorize 16"."""
        return schedule_words(self.trace_json)

    def to_frame(self) -> "pd.DataFrame":
        """One row per sample, those of the trial first, then race by race."""
        return make_frame(self._samples(), _COLUMNS)

    def __repr__(self) -> str:
        name = printable(short_name(self.workload))
        return f"<Trial {self.record_id} of {name}: {printable(self._result_text())}>"

    def _repr_html_(self) -> Html:
        record, words = self.recorded.record, self.words
        result = record.result
        num_threads = self.task.target.num_threads
        score = "" if record.predicted_score is None else f", predicted score {record.predicted_score:.3g}"
        parts = [
            heading(f"Trial {self.record_id} of", short_name(self.workload)),
            facts((self._result_text(), f"{record.candidate.origin.value}{score}")),
            facts(
                (
                    f"task {short_key(self.task.key)}",
                    trial_facts.args_text(self.task.workload.args),
                    f"{self.task.target.mcpu}, {count(num_threads, 'thread')}",
                )
            ),
            facts(
                (
                    f"session {record.session_id}, trial {record.trial_index}",
                    f"{record.strategy}, seed {record.seed}",
                    f"finished {record.finished_at:%Y-%m-%d %H:%M:%S} UTC",
                    f"built in {result.build_secs:.2f} s, {result.wall_secs:.2f} s in all",
                )
            ),
        ]
        if self.run_secs:
            heads = ("times", "*samples", "*min", "*quartile", "*median", "*quartile", "*max")
            parts.append(table("Times per call", heads, list(self._time_rows())))
        parts.append(details("Schedule in words", lines_html(words or ["nothing"]), is_open=True))
        parts.append(details("Trace", lines_html(trace_lines(self.trace_json))))
        parts.append(table("Machine and versions", ("what", "which"), self._version_rows()))
        if self.verifications:
            parts.append(table("Verified again", ("when (UTC)", "with", "result"), self._verification_rows()))
        if (message := trial_facts.message(self.recorded)) is not None:
            parts.append(paragraph(f"Message: {message}"))
        return block(parts)

    def _result_text(self) -> str:
        result = self.recorded.record.result
        if not isinstance(result, MeasureSuccess):
            is_censored = result.kind is FailureKind.PRUNED and result.run_secs
            after = f" after {format_ms(result.run_secs[0])}" if is_censored else ""
            return f"{result.kind.value}{after}"
        marks = ["verified" if result.is_verified else "not verified"]
        marks += ["duplicate"] * result.is_duplicate + ["noisy"] * result.is_noisy
        marks += ["raced"] * bool(self.races)
        if self.quarantine is not None:
            marks.append(f"in quarantine: {self.quarantine}")
        return f"{self.spread}, {', '.join(marks)}"

    def _time_rows(self) -> Iterator[tuple[str, ...]]:
        sources = [("trial", self.recorded.record.result.run_secs)]
        sources += [(f"race {number}", race.run_secs) for number, race in enumerate(self.races, start=1)]
        for source, run_secs in sources:
            if run_secs:
                spread = Spread.of(run_secs)
                times = (
                    spread.min_secs,
                    spread.low_secs,
                    spread.median_secs,
                    spread.high_secs,
                    spread.max_secs,
                )
                yield (source, str(spread.num_samples), *map(format_ms, times))

    def _version_rows(self) -> list[tuple[str, str]]:
        record = self.recorded.record
        machine = record.machine
        return [
            ("machine", f"{machine.cpu_model}, {count(machine.num_cpus, 'CPU')} ({machine.fingerprint})"),
            ("TVM, LLVM", f"{machine.tvm_version}, {machine.llvm_version}"),
            ("Tunewright", record.code_version),
            ("cost model", "none" if record.model_id is None else short_key(record.model_id)),
        ]

    def _verification_rows(self) -> list[tuple[str, str, str]]:
        return [
            (
                f"{one.verified_at:%Y-%m-%d %H:%M}",
                f"TVM {one.machine.tvm_version}, LLVM {one.machine.llvm_version}",
                "right" if one.failure_kind is None else f"{one.failure_kind.value}: {one.message}",
            )
            for one in self.verifications
        ]

    def _samples(self) -> Iterator[_Sample]:
        record = self.recorded.record
        for number, secs in enumerate(record.result.run_secs):
            yield _Sample("trial", record.finished_at, number, secs)
        for place, race in enumerate(self.races, start=1):
            for number, secs in enumerate(race.run_secs):
                yield _Sample(f"race {place}", race.raced_at, number, secs)


def read_trial(log: "TuningLog", record_id: int) -> Trial:
    """Raises: RecordNotFoundError."""
    recorded = log.record(record_id)
    return Trial(
        recorded,
        log.task(recorded.record.task_key),
        tuple(log.races(record_id)),
        tuple(log.verifications(record_id)),
        log.unusable_reason(record_id),
    )


_COLUMNS: list[Column[_Sample]] = [
    Column("source", TEXT, lambda s: s.source),
    Column("measured_at", MOMENT, lambda s: s.moment),
    Column("sample", COUNT, lambda s: s.number),
    Column("run_secs", NUMBER, lambda s: s.secs),
]
