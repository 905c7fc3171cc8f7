"""The reading half of the tuning log: SQL in, frozen values out. Every function takes an open `Session`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, true
from sqlalchemy.orm import Session

from tunewright.core.errors import RecordNotFoundError
from tunewright.core.types import (
    FEATURE_VERSION,
    CandidateKey,
    FailureKind,
    MachineInfo,
    MachinePeak,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    WorkloadKey,
)
from tunewright.tuning_logs import codec
from tunewright.tuning_logs.shared_rows import SharedRows, chunks
from tunewright.tuning_logs.summaries import SessionSummary, StoredCandidate, TaskSummary
from tunewright.tuning_logs.tables import (
    FeatureRow,
    MachineRow,
    PeakRow,
    SessionRow,
    SessionTaskRow,
    TargetRow,
    TaskRow,
    TrialRow,
    WorkloadRow,
)


def is_usable(trial: type[TrialRow]) -> ColumnElement[bool]:
    """What may be called best: a verified success that is not in quarantine. An index has just these."""
    return and_(trial.failure_kind.is_(None), trial.unusable_reason.is_(None), trial.is_verified)


_IS_USABLE = is_usable(TrialRow)
_TRIALS: Any = TrialRow.__table__


def trials(
    session: Session,
    shared: SharedRows,
    *conditions: ColumnElement[bool],
    with_features: bool = False,
    newest_first_limit: int | None = None,
    oldest_first_limit: int | None = None,
) -> list[RecordedTrial]:
    """Trials that meet all conditions, oldest first; with a limit, only the newest or oldest so many."""
    query = _select_trials(with_features=with_features).where(*conditions)
    if newest_first_limit is None:
        rows = session.execute(query.order_by(TrialRow.id).limit(oldest_first_limit)).all()
    else:
        rows = session.execute(query.order_by(TrialRow.id.desc()).limit(newest_first_limit)).all()[::-1]
    return trials_from_rows(session, shared, rows)


def trials_by_id(session: Session, shared: SharedRows, ids: Collection[int]) -> dict[int, RecordedTrial]:
    """Those of the trials that exist, with their features."""
    found: dict[int, RecordedTrial] = {}
    for some in chunks(ids):
        for trial in trials(session, shared, TrialRow.id.in_(some), with_features=True):
            found[trial.record_id] = trial
    return found


def stored_candidates(
    session: Session, shared: SharedRows, candidates: Mapping[TaskKey, CandidateKey]
) -> dict[TaskKey, list[StoredCandidate]]:
    """The trials of one candidate of each task: verified ones out of quarantine first, then the fastest."""
    found: dict[TaskKey, list[StoredCandidate]] = {}
    order = (is_usable(TrialRow).desc(), TrialRow.ranked_secs, TrialRow.id)
    for task_keys in chunks(candidates):
        is_wanted = TrialRow.candidate_key.in_([candidates[task_key] for task_key in task_keys])
        query = _select_trials(with_features=False).where(TaskRow.task_key.in_(task_keys), is_wanted)
        rows = session.execute(query.order_by(*order)).all()
        for row, trial in zip(rows, trials_from_rows(session, shared, rows), strict=True):
            stored = StoredCandidate(trial, row.ranked_secs, row.unusable_reason)
            found.setdefault(trial.record.task_key, []).append(stored)
    return found


def quarantine_counts(session: Session, *conditions: ColumnElement[bool]) -> dict[str, int]:
    """Number of trials in quarantine by reason, most frequent first."""
    count = func.count()
    query = (
        select(TrialRow.unusable_reason, count)
        .where(TrialRow.unusable_reason.is_not(None), *conditions)
        .group_by(TrialRow.unusable_reason)
        .order_by(count.desc(), TrialRow.unusable_reason)
    )
    return {reason: number for reason, number in session.execute(query) if reason is not None}


def all_machines(session: Session, shared: SharedRows) -> dict[int, MachineInfo]:
    """All machines of the log: some dozens."""
    ids = list(session.scalars(select(MachineRow.id)))
    known = shared.machines(session, ids)
    return {row_id: known[row_id] for row_id in ids}


def fastest_peak(
    session: Session, shared: SharedRows, target: TargetSpec, machine_fingerprint: str
) -> MachinePeak | None:
    """None where it has not been measured."""
    query = (
        select(PeakRow)
        .join(MachineRow, MachineRow.id == PeakRow.machine_id)
        .join(TargetRow, TargetRow.id == PeakRow.target_id)
        .where(MachineRow.fingerprint == machine_fingerprint, TargetRow.target_json == str(target))
        .order_by(PeakRow.id)
    )
    rows = session.scalars(query).all()
    machines = shared.machines(session, {row.machine_id for row in rows})
    peaks = [codec.peak_from_row(row, machines[row.machine_id], target) for row in rows]
    return MachinePeak.fastest_of(peaks) if peaks else None


def has_fingerprint(machine_fingerprint: str) -> ColumnElement[bool]:
    """Measured on a machine of that fingerprint, with whatever software."""
    return TrialRow.machine_id.in_(select(MachineRow.id).where(MachineRow.fingerprint == machine_fingerprint))


def of_session(session_id: str) -> ColumnElement[bool]:
    return (
        TrialRow.session_id
        == select(SessionRow.id).where(SessionRow.session_id == session_id).scalar_subquery()
    )


def of_task(task_key: TaskKey) -> ColumnElement[bool]:
    return TrialRow.task_id == select(TaskRow.id).where(TaskRow.task_key == task_key).scalar_subquery()


def of_task_and_session(task_key: TaskKey | None, session_id: str | None) -> list[ColumnElement[bool]]:
    """The conditions for trials of a task, of a session, of a task in a session; none where both are None."""
    conditions = [] if task_key is None else [of_task(task_key)]
    return conditions if session_id is None else [*conditions, of_session(session_id)]


def for_mcpu(mcpu: str) -> ColumnElement[bool]:
    """Tasks whose target has that `mcpu`."""
    return TaskRow.target_id.in_(select(TargetRow.id).where(TargetRow.mcpu == mcpu))


def trial_row(session: Session, record_id: int) -> TrialRow:
    """Raises: RecordNotFoundError."""
    row = session.get(TrialRow, record_id)
    if row is None:
        raise RecordNotFoundError(
            f"the tuning log has no record {record_id}: `tunewright db best` shows the ids"
        )
    return row


def task_summaries(session: Session, *conditions: ColumnElement[bool]) -> list[TaskSummary]:
    """In the order in which the tasks were first stored."""
    is_pruned = TrialRow.failure_kind == FailureKind.PRUNED.value
    has_failed = and_(TrialRow.failure_kind.is_not(None), ~is_pruned)
    chosen = select(TaskRow.id).join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id).where(*conditions)
    is_chosen = TrialRow.task_id.in_(chosen) if conditions else true()
    # Both read an index alone, never the wide rows.
    measured = (
        select(
            TrialRow.task_id,
            func.count().label("num_trials"),
            func.count(case((has_failed, 1))).label("num_failed"),
            func.count(case((is_pruned, 1))).label("num_pruned"),
        )
        .where(is_chosen)
        .group_by(TrialRow.task_id)
        .subquery()
    )
    usable = (
        select(
            TrialRow.task_id,
            func.count().label("num_usable"),
            func.min(TrialRow.ranked_secs).label("best_secs"),
        )
        .where(_IS_USABLE, is_chosen)
        .group_by(TrialRow.task_id)
        .subquery()
    )
    columns = (TaskRow.task_key, WorkloadRow.workload_key, WorkloadRow.name, WorkloadRow.args_json)
    query = (
        select(*columns, WorkloadRow.flop, TargetRow.target_json, *measured.c[1:], *usable.c[1:])
        .join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id)
        .join(TargetRow, TargetRow.id == TaskRow.target_id)
        .outerjoin(measured, measured.c.task_id == TaskRow.id)
        .outerjoin(usable, usable.c.task_id == TaskRow.id)
        .where(*conditions)
        .order_by(TaskRow.id)
    )
    return [
        TaskSummary(
            task_key=TaskKey(row.task_key),
            workload_key=WorkloadKey(row.workload_key),
            name=row.name,
            args=codec.args_from_json(row.args_json),
            target=codec.target_from_json(row.target_json),
            flop=row.flop,
            num_trials=row.num_trials or 0,
            num_failed=row.num_failed or 0,
            num_pruned=row.num_pruned or 0,
            num_usable=row.num_usable or 0,
            best_secs=row.best_secs,
        )
        for row in session.execute(query)
    ]


def session_summaries(session: Session) -> list[SessionSummary]:
    """Oldest first."""
    num_tasks = _count(SessionTaskRow.session_id == SessionRow.id)
    num_trials = _count(TrialRow.session_id == SessionRow.id)
    query = (
        select(SessionRow, MachineRow.fingerprint, TargetRow.target_json, num_tasks, num_trials)
        .join(MachineRow, MachineRow.id == SessionRow.machine_id)
        .join(TargetRow, TargetRow.id == SessionRow.target_id)
        .order_by(SessionRow.id)
    )
    return [
        SessionSummary(
            session_id=row.session_id,
            model_name=row.model_name,
            target=codec.target_from_json(target_json),
            strategy=row.strategy,
            seed=row.seed,
            machine_fingerprint=fingerprint,
            created_at=row.created_at,
            elapsed_secs=row.elapsed_secs,
            num_tasks=tasks,
            num_trials=measured,
        )
        for row, fingerprint, target_json, tasks, measured in session.execute(query)
    ]


def failure_counts(session: Session, *conditions: ColumnElement[bool]) -> dict[FailureKind, int]:
    """Number of trials of each kind of failure that occurred, most frequent first."""
    count = func.count()
    query = (
        select(TrialRow.failure_kind, count)
        .where(TrialRow.failure_kind.is_not(None), *conditions)
        .group_by(TrialRow.failure_kind)
        .order_by(count.desc(), TrialRow.failure_kind)
    )
    return {FailureKind(kind): number for kind, number in session.execute(query) if kind is not None}


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).where(condition).correlate(SessionRow).scalar_subquery()


def trial_columns(*, with_features: bool) -> list[Any]:
    """What `codec.trial_from_row` reads."""
    columns = [column for column in _TRIALS.c if column.name not in ("session_id", "task_id", "ranked_secs")]
    columns += [TrialRow.ranked_secs, SessionRow.session_id.label("session_name"), TaskRow.task_key]
    if with_features:
        columns += [FeatureRow.n_rows, FeatureRow.n_features, FeatureRow.values_zlib]
        columns.append(FeatureRow.dictionary_id.label("feature_dictionary_id"))
    else:
        columns.append(literal(None).label("values_zlib"))
    return columns


def _select_trials(*, with_features: bool) -> Select[Any]:
    query = (
        select(*trial_columns(with_features=with_features))
        .select_from(TrialRow)
        .join(SessionRow, SessionRow.id == TrialRow.session_id)
        .join(TaskRow, TaskRow.id == TrialRow.task_id)
    )
    if with_features:
        is_current = FeatureRow.feature_version == FEATURE_VERSION
        query = query.outerjoin(FeatureRow, and_(FeatureRow.trial_id == TrialRow.id, is_current))
    return query


def trials_from_rows(session: Session, shared: SharedRows, rows: Sequence[Any]) -> list[RecordedTrial]:
    machines = shared.machines(session, {row.machine_id for row in rows})
    setups = shared.setups(session, {row.setup_id for row in rows})
    dictionary_ids = {row.dictionary_id for row in rows}
    dictionary_ids |= {row.feature_dictionary_id for row in rows if row.values_zlib is not None}
    dictionaries = shared.dictionaries(session, dictionary_ids)
    return [
        codec.trial_from_row(
            row, machine=machines[row.machine_id], setup=setups[row.setup_id], dictionaries=dictionaries
        )
        for row in rows
    ]
