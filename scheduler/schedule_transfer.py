"""Carry schedules between logs: the records of a model into a bundle, a bundle into a log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from tunewright.core.errors import ConfigError, TunewrightError
from tunewright.core.types import (
    FloatArray,
    MeasureSuccess,
    RecordedTrial,
    SessionInfo,
    TaskKey,
    TuningRecord,
    TuningTask,
    Workload,
)
from tunewright.scheduler.kernel_choice import KernelChoice, Replayer, ReplayProblem
from tunewright.scheduler.partition import Partition
from tunewright.scheduler.schedule_bundle import BundledSession, BundledWorkload, ScheduleBundle
from tunewright.scheduler.schedule_lock import make_lock
from tunewright.scheduler.schedule_log import Match, ScheduleLog

_RECORDS_PER_CALL = 32


class KnownSession(Protocol):
    """A session of the log that records come from."""

    @property
    def session_id(self) -> str: ...

    @property
    def model_name(self) -> str: ...

    @property
    def strategy(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...


class SourceLog(ScheduleLog, Protocol):
    """The log that records are taken from."""

    def sessions(self) -> Sequence[KnownSession]: ...

    def session_weights(self, session_id: str) -> Mapping[TaskKey, int]: ...


class DestinationLog(Protocol):
    """The log that records are stored in."""

    def add_tasks(self, tasks: Sequence[TuningTask]) -> None: ...

    def start_session(self, info: SessionInfo) -> Any: ...

    def append(self, trials: Sequence[tuple[TuningRecord, FloatArray | None]]) -> list[RecordedTrial]: ...

    def count_trials(self, session_id: str) -> Mapping[TaskKey, int]: ...


Canonicalise = Callable[[Sequence[tuple[str, str]]], Sequence[Workload | ReplayProblem]]
"""Makes workloads of (module JSON, name) pairs in a process that may die; or says why one is none."""

Check = Callable[[str], None]
"""Raises a TunewrightError for a text that TVM must not see."""


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle whose `records` may be stored; `left_out` has a sentence for each other one."""

    bundle: ScheduleBundle
    tasks: Mapping[TaskKey, TuningTask]
    records: tuple[TuningRecord, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a bundle's records; `left_out` has a sentence for each that was not stored."""

    num_stored: int
    num_known: int
    left_out: tuple[str, ...]


def make_bundle(
    model_name: str,
    tasks: Partition,
    choices: Iterable[KernelChoice],
    log: SourceLog,
    *,
    match: Match | None = None,
    k: int = 1,
) -> ScheduleBundle:
    """The lock of what was chosen for a model, and the `k` best records of each of its tasks.

    Raises:
        ConfigError: no task of the model has a record.
    """
    choices = list(choices)
    lock = make_lock(model_name, tasks, choices)
    by_key = {choice.task.key: choice for choice in choices}
    ordered = [by_key[locked.task_key] for locked in lock.tasks]
    ranked = log.best_many([choice.task.key for choice in ordered], k, match=match)
    records: dict[int, TuningRecord] = {}
    for choice in ordered:
        chosen = [choice.record] if choice.record is not None else []
        for record in (*chosen, *ranked[choice.task.key]):
            records.setdefault(record.trial.record_id, record.trial.record)
    if not records:
        raise ConfigError(
            f"the log has no record of {model_name} to export: tune it, or see tunewright db explain"
        )
    used = {record.task_key for record in records.values()}
    kept = [choice.task for choice in ordered if choice.task.key in used]
    return ScheduleBundle(
        lock=lock,
        workloads=tuple(
            BundledWorkload(task.workload.key, task.workload.name, task.workload.mod_json) for task in kept
        ),
        sessions=tuple(_sessions(log, list(records.values()), used)),
        records=tuple(records.values()),
    )


def check_bundle(
    bundle: ScheduleBundle,
    *,
    check_module: Check,
    check_trace: Check,
    canonicalise: Canonicalise,
    replay: Replayer,
) -> CheckedBundle:
    """What of a bundle from anybody may be stored. Its records count as verified by nobody.

    A record that does not replay here is left out; one that must not be replayed, or a workload that is not
    what its key says, is a reason to take nothing at all.

    Raises:
        ConfigError: something in the bundle is refused.
    """
    workloads = _recognised(bundle, check_module, canonicalise)
    tasks = {task.key: task for task in (TuningTask(known, bundle.target) for known in workloads)}
    for record in bundle.records:
        name = tasks[record.task_key].workload.name
        _checked(check_trace, record.candidate.trace_json, f"a record of {name}")
    ready: list[TuningRecord] = []
    left_out: list[str] = []
    # Every item of a call carries its module: not too many in one message.
    for first in range(0, len(bundle.records), _RECORDS_PER_CALL):
        some = bundle.records[first : first + _RECORDS_PER_CALL]
        pairs = [(tasks[r.task_key].workload.mod_json, r.candidate.trace_json) for r in some]
        for record, result in zip(some, replay(pairs), strict=True):
            if isinstance(result, str):
                ready.append(_unverified(record))
            else:
                name = tasks[record.task_key].workload.name
                left_out.append(f"a record of {name} does not replay: {result.message}")
    return CheckedBundle(bundle, tasks, tuple(ready), tuple(left_out))


def store_bundle(checked: CheckedBundle, log: DestinationLog) -> ImportReport:
    """Store the records that passed; none is best before its outputs have been compared.

    They keep their sessions, so that the same records are stored once however often they come.
    """
    wanted = {record.session_id for record in checked.records}
    used = [session for session in checked.bundle.sessions if session.session_id in wanted]
    log.add_tasks(list(checked.tasks.values()))
    for session in used:
        log.start_session(
            SessionInfo(
                session_id=session.session_id,
                model_name=session.model_name,
                target=checked.bundle.target,
                strategy=session.strategy,
                seed=session.seed,
                machine=session.machine,
                task_weights=dict(session.task_weights),
                created_at=session.created_at,
            )
        )
    before = _num_trials(log, used)
    log.append([(record, None) for record in checked.records])
    num_stored = _num_trials(log, used) - before
    return ImportReport(num_stored, len(checked.records) - num_stored, checked.left_out)


def _recognised(bundle: ScheduleBundle, check: Check, canonicalise: Canonicalise) -> list[Workload]:
    """The workloads, their keys computed again from their modules."""
    for known in bundle.workloads:
        _checked(check, known.mod_json, f"the workload {known.name}")
    workloads = []
    pairs = [(known.mod_json, known.name) for known in bundle.workloads]
    for known, found in zip(bundle.workloads, canonicalise(pairs), strict=True):
        if not isinstance(found, Workload):
            raise ConfigError(f"the workload {known.name} of the bundle cannot be loaded: {found.message}")
        if found.key != known.key:
            raise ConfigError(
                f"the workload {known.name} of the bundle is not the one that its key names: do not use the "
                "bundle, or export it again with this version"
            )
        workloads.append(found)
    return workloads


def _checked(check: Check, text: str, what: str) -> None:
    try:
        check(text)
    except TunewrightError as exc:
        raise ConfigError(f"{what} in the bundle is refused, and nothing was stored: {exc}") from exc


def _unverified(record: TuningRecord) -> TuningRecord:
    result = record.result
    if isinstance(result, MeasureSuccess):
        return replace(record, result=replace(result, is_verified=False))
    return record


def _num_trials(log: DestinationLog, sessions: Sequence[BundledSession]) -> int:
    return sum(sum(log.count_trials(session.session_id).values()) for session in sessions)


def _sessions(
    log: SourceLog, records: Sequence[TuningRecord], used: set[TaskKey]
) -> Iterable[BundledSession]:
    """The sessions of the records, oldest first."""
    machines = {record.session_id: record.machine for record in reversed(records)}
    for session in log.sessions():
        if session.session_id in machines:
            weights = log.session_weights(session.session_id)
            yield BundledSession(
                session_id=session.session_id,
                model_name=session.model_name,
                strategy=session.strategy,
                seed=session.seed,
                machine=machines[session.session_id],
                created_at=session.created_at,
                task_weights=tuple((key, weight) for key, weight in weights.items() if key in used),
            )
