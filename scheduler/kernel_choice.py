"""Choose a schedule for every task: the best record that replays, else our default, else none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tunewright.core.types import RecordedTrial, TargetSpec, TaskKey, TuningTask, WorkloadKey
from tunewright.scheduler.manifest import KernelSource

# How many records of a task are tried before its default schedule.
NUM_RECORDS_TRIED = 3
NO_LOG = "there is no tuning log"
NOT_ASKED_FOR = "records were not asked for"
# Reasons that hold for every task of a model alike: nothing to tell people task by task.
UNREMARKABLE_MISSES = (NO_LOG, NOT_ASKED_FOR)


class Variant(StrEnum):
    """How to schedule a model's kernels."""

    TUNED = "tuned"
    DEFAULT = "default"
    UNSCHEDULED = "unscheduled"


class RankedRecord(Protocol):
    """A verified success of the log; `secs` per call is what it is ranked by."""

    @property
    def trial(self) -> RecordedTrial: ...

    @property
    def secs(self) -> float: ...


class KnownTask(Protocol):
    """A task that the log has trials of."""

    @property
    def target(self) -> TargetSpec: ...

    @property
    def num_trials(self) -> int: ...


class LogReader(Protocol):
    """What compiling reads of the tuning log."""

    def best_many(
        self, task_keys: Sequence[TaskKey], k: int = 1
    ) -> Mapping[TaskKey, Sequence[RankedRecord]]: ...

    def near_misses(self, workload_key: WorkloadKey) -> Sequence[KnownTask]: ...


class ReplayProblem(Protocol):
    """Why a trace gave no scheduled module."""

    @property
    def message(self) -> str: ...


class Replayer(Protocol):
    """Applies (module JSON, trace JSON) pairs in a process that may die: scheduled module JSON or why not."""

    def __call__(self, items: Sequence[tuple[str, str]], /) -> Sequence[str | ReplayProblem]: ...


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The schedule of one task. `scheduled_json` is None where it stays unscheduled.

    `miss`: why it does not come from the log; empty where it does.
    """

    task: TuningTask
    source: KernelSource
    scheduled_json: str | None = field(repr=False)
    record: RankedRecord | None = None
    miss: str = ""


def choose_kernels(
    tasks: Sequence[TuningTask], *, variant: Variant, log: LogReader | None, replay: Replayer
) -> list[KernelChoice]:
    """One choice per task, in order. A record for another target is never used: the key holds the target."""
    if variant is Variant.UNSCHEDULED:
        return [KernelChoice(task, KernelSource.UNSCHEDULED, None, miss=NOT_ASKED_FOR) for task in tasks]
    records: Mapping[TaskKey, Sequence[RankedRecord]] = {}
    if variant is Variant.TUNED and log is not None:
        records = log.best_many([task.key for task in tasks], k=NUM_RECORDS_TRIED)
    attempts = {task.key: _attempts(task, records.get(task.key, ())) for task in tasks}
    choices: dict[TaskKey, KernelChoice] = {}
    problems: dict[TaskKey, str] = {}
    open_tasks = list(tasks)
    while open_tasks:
        batch = [(task, *attempt) for task in open_tasks if (attempt := next(attempts[task.key], None))]
        results = replay([(task.workload.mod_json, trace) for task, trace, _ in batch]) if batch else ()
        for (task, _, record), result in zip(batch, results, strict=True):
            if isinstance(result, str):
                source = KernelSource.DEFAULT if record is None else KernelSource.RECORD
                choices[task.key] = KernelChoice(task, source, result, record)
            elif record is not None:
                problems.setdefault(
                    task.key, f"replay of record {record.trial.record_id} failed: {result.message}"
                )
        tried = {task.key for task, _, _ in batch}
        for task in open_tasks:
            if task.key not in tried:
                choices[task.key] = KernelChoice(task, KernelSource.UNSCHEDULED, None)
        open_tasks = [task for task in open_tasks if task.key not in choices]
    return [_explained(choices[task.key], problems, variant, log) for task in tasks]


def _attempts(task: TuningTask, records: Sequence[RankedRecord]) -> Iterator[tuple[str, RankedRecord | None]]:
    from tunewright.core.tvm_adapter.default_schedule import default_trace

    for record in records:
        yield record.trial.record.candidate.trace_json, record
    yield default_trace(task.workload.mod_json, task.target), None


def _explained(
    choice: KernelChoice, problems: Mapping[TaskKey, str], variant: Variant, log: LogReader | None
) -> KernelChoice:
    if choice.source is KernelSource.RECORD:
        return choice
    if variant is not Variant.TUNED:
        miss = NOT_ASKED_FOR
    elif log is None:
        miss = NO_LOG
    else:
        miss = problems.get(choice.task.key) or _why_missed(choice.task, log)
    return KernelChoice(choice.task, choice.source, choice.scheduled_json, choice.record, miss)


def _why_missed(task: TuningTask, log: LogReader) -> str:
    known = log.near_misses(task.workload.key)
    for other in known:
        if other.target == task.target:
            return f"none of its {other.num_trials} trials is a verified success"
    if known:
        targets = "; ".join(_describe(other.target) for other in known)
        return f"only for another target: {targets} (asked: {_describe(task.target)})"
    return "no record for this workload"


def _describe(target: TargetSpec) -> str:
    features = f" mattr={','.join(target.mattr)}" if target.mattr else ""
    return f"mcpu={target.mcpu}{features} threads={target.num_threads}"
