"""What the log has for a model, kernel by kernel: for an ONNX file, or for one that has been compiled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.keys import short_key
from tunewright.core.text import printable
from tunewright.core.types import TaskKey
from tunewright.core.units import format_ms
from tunewright.explore.frames import COUNT, FACT, NUMBER, TEXT, Column, make_frame
from tunewright.explore.html import (
    Html,
    bar,
    block,
    count,
    facts,
    heading,
    short_name,
    table,
)

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.core.types import MachineInfo
    from tunewright.scheduler.manifest import KernelEntry
    from tunewright.tuning_logs import Match, RankedTrial, TuningLog

_MAX_KERNELS = 40


@dataclass(frozen=True, slots=True)
class CoveredKernel:
    """One kernel of a model: `record_id` is the record that compiling would take now, None of a miss.

    `share` of the model's predicted time, in [0, 1]. `used` says what a compiled model took, "" of a model
    that is not compiled; `why` what stands behind the record, or why there is none.
    """

    name: str
    task_key: str | None
    calls: int
    share: float
    record_id: int | None
    secs: float | None
    why: str
    used: str = ""

    @property
    def is_hit(self) -> bool:
        return self.record_id is not None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a log has for a model, `kernels` by their share of its predicted time."""

    model: str
    target: str
    kernels: tuple[CoveredKernel, ...] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Share of the predicted time whose kernels have a record, in [0, 1]."""
        return sum(kernel.share for kernel in self.kernels if kernel.is_hit)

    @property
    def misses(self) -> tuple[CoveredKernel, ...]:
        return tuple(kernel for kernel in self.kernels if not kernel.is_hit)

    def to_frame(self) -> "pd.DataFrame":
        """One row per kernel, the largest share of the predicted time first."""
        return make_frame(self.kernels, _COLUMNS)

    def __repr__(self) -> str:
        return f"<Coverage of {printable(short_name(self.model))}: {self._text()}>"

    def _repr_html_(self) -> Html:
        parts = [
            heading("Coverage of", short_name(self.model)),
            facts((self.target,)),
            bar(self.ratio, self._text()),
        ]
        if self.kernels:
            some = self.kernels[:_MAX_KERNELS]
            title = "Kernels" if len(some) == len(self.kernels) else f"The first {len(some)} kernels"
            heads = ["kernel", "task", "*calls", "*predicted", "log", "*record", "*best"]
            heads += ["compiled from"] * any(kernel.used for kernel in self.kernels)
            rows = [(*_cells(kernel)[: len(heads)], kernel.why) for kernel in some]
            parts.append(table(title, (*heads, "why"), rows))
        return block(parts)

    def _text(self) -> str:
        hits = len(self.kernels) - len(self.misses)
        return (
            f"{hits} of {count(len(self.kernels), 'kernel')}, "
            f"{100 * self.ratio:.1f} % of the predicted time, have a record"
        )


def read_coverage(
    log: "TuningLog",
    path: Path,
    *,
    target: str,
    num_threads: int | None,
    input_shapes: Mapping[str, Sequence[int]] | None,
    match: str,
) -> Coverage:
    """As `OpenLog.coverage` says."""
    if path.suffix != ".onnx" and (path.is_dir() or path.name == "manifest.json"):
        return _of_manifest(log, path if path.is_dir() else path.parent, match)
    return _of_model(log, path, target, num_threads, input_shapes or {}, match)


def _of_model(
    log: "TuningLog",
    path: Path,
    target: str,
    num_threads: int | None,
    input_shapes: Mapping[str, Sequence[int]],
    match: str,
) -> Coverage:
    # TVM reads the model: it is loaded here, and only here.
    from tunewright.core.tvm_adapter.target import available_cpus, machine_info, parse_target
    from tunewright.scheduler.explain import explain
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.partition import partition

    spec = parse_target(target, num_threads=num_threads or len(available_cpus()))
    shapes = {name: tuple(shape) for name, shape in input_shapes.items()}
    tasks = partition(import_model(path, target=spec, input_shapes=shapes))
    kernels = tuple(
        CoveredKernel(
            name=one.task.workload.name,
            task_key=one.task.key,
            calls=one.task.weight,
            share=one.share,
            record_id=None if one.record is None else one.record.trial.record_id,
            secs=None if one.record is None else one.record.secs,
            why=one.why,
        )
        for one in explain(tasks, log, _match(match, machine_info()))
    )
    return Coverage(path.name, f"{spec.mcpu}, {count(spec.num_threads, 'thread')}", kernels)


def _of_manifest(log: "TuningLog", folder: Path, match: str) -> Coverage:
    from tunewright.scheduler.manifest import read_manifest

    manifest = read_manifest(folder)
    asked = _match(match, manifest.machine)
    keys = [TaskKey(kernel.task_key) for kernel in manifest.kernels if kernel.task_key is not None]
    best = log.best_many(keys, match=asked)
    costs = [kernel.num_calls * (kernel.predicted_secs or 0.0) for kernel in manifest.kernels]
    total = sum(costs)
    found = [
        _covered(log, kernel, cost / total if total else 0.0, best, asked)
        for kernel, cost in zip(manifest.kernels, costs, strict=True)
    ]
    found.sort(key=lambda kernel: -kernel.share)
    spec = manifest.target
    return Coverage(manifest.model_name, f"{spec.mcpu}, {count(spec.num_threads, 'thread')}", tuple(found))


def _covered(
    log: "TuningLog",
    kernel: "KernelEntry",
    share: float,
    best: "Mapping[TaskKey, Sequence[RankedTrial]]",
    match: "Match | None",
) -> CoveredKernel:
    record = None if kernel.task_key is None else next(iter(best[TaskKey(kernel.task_key)]), None)
    used = f"record {kernel.record_id}" if kernel.record_id is not None else kernel.source.value
    if record is None:
        why = "cannot be tuned" if kernel.task_key is None else _why_missed(log, kernel.task_key, match)
    elif kernel.candidate_key == record.trial.record.candidate.key:
        why = "compiled from it"
    else:
        why = "compiled from another schedule"
    return CoveredKernel(
        name=kernel.name,
        task_key=kernel.task_key,
        calls=kernel.num_calls,
        share=share,
        record_id=None if record is None else record.trial.record_id,
        secs=None if record is None else record.secs,
        why=why,
        used=used,
    )


def _why_missed(log: "TuningLog", task_key: str, match: "Match | None") -> str:
    from tunewright.scheduler.explain import NO_RECORD, why_missed

    try:
        task = log.task(TaskKey(task_key))
    except RecordNotFoundError:
        return NO_RECORD
    return why_missed(task, log, match)


def _match(policy: str, machine: "MachineInfo") -> "Match":
    from tunewright.tuning_logs import Match, MatchPolicy

    try:
        return Match(MatchPolicy(policy), machine)
    except ValueError:
        known = ", ".join(MatchPolicy)
        raise ConfigError(f"match is {policy!r}: choose one of {known}") from None


def _cells(kernel: CoveredKernel) -> tuple[str, ...]:
    return (
        short_name(kernel.name),
        "-" if kernel.task_key is None else short_key(kernel.task_key),
        f"{kernel.calls:,}",
        f"{100 * kernel.share:.1f} %",
        "hit" if kernel.is_hit else "miss",
        "-" if kernel.record_id is None else str(kernel.record_id),
        format_ms(kernel.secs),
        kernel.used,
    )


_COLUMNS: list[Column[CoveredKernel]] = [
    Column("kernel", TEXT, lambda k: k.name),
    Column("task_key", TEXT, lambda k: k.task_key),
    Column("calls", COUNT, lambda k: k.calls),
    Column("predicted_time_ratio", NUMBER, lambda k: k.share),
    Column("is_hit", FACT, lambda k: k.is_hit),
    Column("record_id", "Int64", lambda k: k.record_id),
    Column("best_secs", NUMBER, lambda k: k.secs),
    Column("compiled_from", TEXT, lambda k: k.used or None),
    Column("why", TEXT, lambda k: k.why),
]
