"""Choose a schedule for every task: the best record that replays, else our default, else none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from tunewright.core.types import Candidate, CandidateKey, Origin, TaskKey, TuningTask
from tunewright.scheduler.explain import why_missed
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.schedule_log import Match, RankedRecord, ScheduleLog

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


class ReplayProblem(Protocol):
    """Why a trace gave no scheduled module."""

    @property
    def message(self) -> str: ...


class Replayer(Protocol):
    """Applies (module JSON, trace JSON) pairs in a process that may die: scheduled module JSON or why not."""

    def __call__(self, items: Sequence[tuple[str, str]], /) -> Sequence[str | ReplayProblem]: ...


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The schedule of one task. `scheduled_json` and `candidate_key` are None where it stays unscheduled.

    `miss`: why it does not come from the log; empty where it does.
    """

    task: TuningTask
    source: KernelSource
    scheduled_json: str | None = field(repr=False)
    record: RankedRecord | None = None
    miss: str = ""
    candidate_key: CandidateKey | None = None


def choose_kernels(
    tasks: Sequence[TuningTask],
    *,
    variant: Variant,
    log: ScheduleLog | None,
    replay: Replayer,
    match: Match | None = None,
) -> list[KernelChoice]:
    """One choice per task, in order. A record for another target is never used: the key holds the target.

    Args:
        match: whose records may be used; None: everybody's.
    """
    if variant is Variant.UNSCHEDULED:
        return [KernelChoice(task, KernelSource.UNSCHEDULED, None, miss=NOT_ASKED_FOR) for task in tasks]
    records: Mapping[TaskKey, Sequence[RankedRecord]] = {}
    if variant is Variant.TUNED and log is not None:
        records = log.best_many([task.key for task in tasks], k=NUM_RECORDS_TRIED, match=match)
    attempts = {task.key: _attempts(task, records.get(task.key, ())) for task in tasks}
    choices: dict[TaskKey, KernelChoice] = {}
    problems: dict[TaskKey, str] = {}
    open_tasks = list(tasks)
    while open_tasks:
        batch = [(task, *attempt) for task in open_tasks if (attempt := next(attempts[task.key], None))]
        results = replay([(task.workload.mod_json, c.trace_json) for task, c, _ in batch]) if batch else ()
        for (task, candidate, record), result in zip(batch, results, strict=True):
            if isinstance(result, str):
                source = KernelSource.DEFAULT if record is None else KernelSource.RECORD
                choices[task.key] = KernelChoice(task, source, result, record, candidate_key=candidate.key)
            elif record is not None:
                problems.setdefault(
                    task.key, f"replay of record {record.trial.record_id} failed: {result.message}"
                )
        tried = {task.key for task, _, _ in batch}
        for task in open_tasks:
            if task.key not in tried:
                choices[task.key] = KernelChoice(task, KernelSource.UNSCHEDULED, None)
        open_tasks = [task for task in open_tasks if task.key not in choices]
    misses = _misses(choices, problems, variant, log, match)
    return [replace(choices[task.key], miss=misses.get(task.key, "")) for task in tasks]


def default_candidate(task: TuningTask) -> Candidate:
    """Our default schedule, which needs no log."""
    from tunewright.core.tvm_adapter.default_schedule import default_trace

    return Candidate(task.key, default_trace(task.workload.mod_json, task.target), Origin.SEED)


def _attempts(
    task: TuningTask, records: Sequence[RankedRecord]
) -> Iterator[tuple[Candidate, RankedRecord | None]]:
    for record in records:
        yield record.trial.record.candidate, record
    yield default_candidate(task), None


def _misses(
    choices: Mapping[TaskKey, KernelChoice],
    problems: Mapping[TaskKey, str],
    variant: Variant,
    log: ScheduleLog | None,
    match: Match | None,
) -> dict[TaskKey, str]:
    """Why those that do not come from the log do not."""
    missed = [choice.task for choice in choices.values() if choice.source is not KernelSource.RECORD]
    if variant is not Variant.TUNED:
        return {task.key: NOT_ASKED_FOR for task in missed}
    if log is None:
        return {task.key: NO_LOG for task in missed}
    return {task.key: problems.get(task.key) or why_missed(task, log, match) for task in missed}
