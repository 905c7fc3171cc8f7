"""The reading half of the tuning log: SQL in, frozen values out. Every function takes an open `Session`."""

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from tunewright.core.errors import RecordNotFoundError
from tunewright.core.types import (
    FEATURE_VERSION,
    FailureKind,
    MachinePeak,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    WorkloadKey,
)
from tunewright.tuning_logs import codec
from tunewright.tuning_logs.summaries import RankedTrial, SessionSummary, TaskSummary
from tunewright.tuning_logs.tables import (
    FeatureRow,
    MachineRow,
    PeakRow,
    RaceRow,
    SessionRow,
    SessionTaskRow,
    TaskRow,
    TrialRow,
    WorkloadRow,
)

# What may be called best: a verified success that is not in quarantine.
_IS_USABLE = and_(TrialRow.is_verified, TrialRow.failure_kind.is_(None), TrialRow.unusable_reason.is_(None))


def ids_by_key(
    session: Session, key_column: InstrumentedAttribute[str], keys: Iterable[str]
) -> dict[str, int]:
    """Row ids of those keys that are stored."""
    query = select(key_column, key_column.class_.id).where(key_column.in_(set(keys)))
    return {key: row_id for key, row_id in session.execute(query)}


def trials(
    session: Session,
    *conditions: ColumnElement[bool],
    with_features: bool = False,
    newest_first_limit: int | None = None,
) -> list[RecordedTrial]:
    """Trials that meet all conditions, oldest first; with a limit, only the newest so many."""
    query = _select_trials(with_features=with_features).where(*conditions)
    if newest_first_limit is None:
        rows = session.execute(query.order_by(TrialRow.id)).all()
    else:
        rows = session.execute(query.order_by(TrialRow.id.desc()).limit(newest_first_limit)).all()[::-1]
    return [_trial(*row) for row in rows]


def best(
    session: Session, *conditions: ColumnElement[bool], k: int
) -> defaultdict[TaskKey, list[RankedTrial]]:
    """The `k` fastest usable trials of each task among those that meet all conditions, fastest first."""
    rank = func.row_number().over(partition_by=TrialRow.task_id, order_by=(TrialRow.ranked_secs, TrialRow.id))
    ranked = select(TrialRow.id, rank.label("rank")).join(TaskRow, TaskRow.id == TrialRow.task_id)
    top = ranked.where(_IS_USABLE, *conditions).subquery()
    is_raced = exists().where(RaceRow.trial_id == TrialRow.id)
    query = (
        _select_trials(with_features=False)
        .add_columns(is_raced)
        .join(top, top.c.id == TrialRow.id)
        .where(top.c.rank <= k)
        .order_by(TrialRow.task_id, top.c.rank)
    )
    found: defaultdict[TaskKey, list[RankedTrial]] = defaultdict(list)
    for row, session_id, task_key, machine, features, was_raced in session.execute(query):
        trial = _trial(row, session_id, task_key, machine, features)
        found[TaskKey(task_key)].append(RankedTrial(trial, row.ranked_secs, was_raced))
    return found


def newest_peak(session: Session, target: TargetSpec, machine_fingerprint: str) -> MachinePeak | None:
    """None where it has not been measured."""
    query = (
        select(PeakRow, MachineRow)
        .join(MachineRow, MachineRow.id == PeakRow.machine_id)
        .where(MachineRow.fingerprint == machine_fingerprint, PeakRow.target_json == str(target))
        .order_by(PeakRow.id.desc())
        .limit(1)
    )
    row = session.execute(query).first()
    return None if row is None else codec.peak_from_row(*row)


def has_fingerprint(machine_fingerprint: str) -> ColumnElement[bool]:
    """Measured on a machine of that fingerprint, with whatever software."""
    return TrialRow.machine_id.in_(select(MachineRow.id).where(MachineRow.fingerprint == machine_fingerprint))


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
    query = (
        select(
            TaskRow.task_key,
            TaskRow.target_json,
            WorkloadRow.workload_key,
            WorkloadRow.name,
            WorkloadRow.args_json,
            WorkloadRow.flop,
            func.count(TrialRow.task_id),
            func.count(case((has_failed, 1))),
            func.count(case((is_pruned, 1))),
            func.count(case((_IS_USABLE, 1))),
            func.min(case((_IS_USABLE, TrialRow.ranked_secs))),
        )
        .join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id)
        .outerjoin(TrialRow, TrialRow.task_id == TaskRow.id)
        .where(*conditions)
        .group_by(TaskRow.id, WorkloadRow.id)
        .order_by(TaskRow.id)
    )
    return [
        TaskSummary(
            task_key=TaskKey(task_key),
            workload_key=WorkloadKey(workload_key),
            name=name,
            args=codec.args_from_json(args_json),
            target=codec.target_from_json(target_json),
            flop=flop,
            num_trials=num_trials,
            num_failed=num_failed,
            num_pruned=num_pruned,
            num_usable=num_usable,
            best_secs=best_secs,
        )
        for (
            task_key,
            target_json,
            workload_key,
            name,
            args_json,
            flop,
            num_trials,
            num_failed,
            num_pruned,
            num_usable,
            best_secs,
        ) in session.execute(query)
    ]


def session_summaries(session: Session) -> list[SessionSummary]:
    """Oldest first."""
    num_tasks = _count(SessionTaskRow.session_id == SessionRow.id)
    num_trials = _count(TrialRow.session_id == SessionRow.id)
    query = (
        select(SessionRow, MachineRow.fingerprint, num_tasks, num_trials)
        .join(MachineRow, MachineRow.id == SessionRow.machine_id)
        .order_by(SessionRow.id)
    )
    return [
        SessionSummary(
            session_id=row.session_id,
            model_name=row.model_name,
            target=codec.target_from_json(row.target_json),
            strategy=row.strategy,
            seed=row.seed,
            machine_fingerprint=fingerprint,
            created_at=row.created_at,
            elapsed_secs=row.elapsed_secs,
            num_tasks=tasks,
            num_trials=measured,
        )
        for row, fingerprint, tasks, measured in session.execute(query)
    ]


def failure_counts(session: Session, *conditions: ColumnElement[bool]) -> dict[FailureKind, int]:
    """Number of trials of each kind of failure that occurred, most frequent first."""
    count = func.count()
    query = (
        select(TrialRow.failure_kind, count)
        .join(TaskRow, TaskRow.id == TrialRow.task_id)
        .join(SessionRow, SessionRow.id == TrialRow.session_id)
        .where(TrialRow.failure_kind.is_not(None), *conditions)
        .group_by(TrialRow.failure_kind)
        .order_by(count.desc(), TrialRow.failure_kind)
    )
    return {FailureKind(kind): number for kind, number in session.execute(query) if kind is not None}


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).where(condition).correlate(SessionRow).scalar_subquery()


def _select_trials(*, with_features: bool) -> Select[TrialRow, str, str, MachineRow, FeatureRow | None]:
    return (
        select(TrialRow, SessionRow.session_id, TaskRow.task_key, MachineRow, FeatureRow)
        .join(SessionRow, SessionRow.id == TrialRow.session_id)
        .join(TaskRow, TaskRow.id == TrialRow.task_id)
        .join(MachineRow, MachineRow.id == TrialRow.machine_id)
        .outerjoin(
            FeatureRow,
            and_(
                literal(with_features),
                FeatureRow.trial_id == TrialRow.id,
                FeatureRow.feature_version == FEATURE_VERSION,
            ),
        )
    )


def _trial(
    row: TrialRow, session_id: str, task_key: str, machine: MachineRow, features: FeatureRow | None
) -> RecordedTrial:
    return codec.trial_from_row(
        row, session_id=session_id, task_key=task_key, machine=machine, features=features
    )
