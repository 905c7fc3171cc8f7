"""The writing half of the tuning log: what a session stores. Every function takes an open `Session`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from tunewright.core.errors import RecordNotFoundError
from tunewright.core.types import (
    FEATURE_VERSION,
    FloatArray,
    RecordedTrial,
    SessionInfo,
    TuningRecord,
    TuningTask,
)
from tunewright.tuning_logs import codec, queries, shared_rows
from tunewright.tuning_logs.shared_rows import SharedRows, chunks, ids_by_key
from tunewright.tuning_logs.summaries import SessionState
from tunewright.tuning_logs.tables import (
    FeatureRow,
    SessionRow,
    SessionTaskRow,
    TaskRow,
    TrialRow,
    WorkloadRow,
)

_TRACE = "trace"

NewTrial = tuple[TuningRecord, FloatArray | None]
CandidateOfSession = tuple[int, str]
"""Row id of a session, key of a candidate: what a trial is known by."""


def add_tasks(session: Session, tasks: Sequence[TuningTask]) -> None:
    workloads = {task.workload.key: task.workload for task in tasks}
    workload_ids = shared_rows.ensure_ids(
        session, WorkloadRow.workload_key, map(codec.workload_fields, workloads.values())
    )
    target_ids = shared_rows.target_ids(session, {task.target for task in tasks})
    rows = [
        {
            "task_key": task.key,
            "workload_id": workload_ids[task.workload.key],
            "target_id": target_ids[task.target],
        }
        for task in tasks
    ]
    shared_rows.ensure_ids(session, TaskRow.task_key, rows)


def start_session(session: Session, info: SessionInfo) -> SessionState:
    known = session.scalar(select(SessionRow).where(SessionRow.session_id == info.session_id))
    if known is not None:
        num_trials = session.scalar(select(func.count()).where(TrialRow.session_id == known.id))
        return SessionState(num_trials or 0, known.elapsed_secs, is_new=False)
    row = SessionRow(
        session_id=info.session_id,
        model_name=info.model_name,
        target_id=shared_rows.target_ids(session, [info.target])[info.target],
        strategy=info.strategy,
        seed=info.seed,
        machine_id=shared_rows.machine_ids(session, [info.machine])[info.machine],
        created_at=info.created_at,
        elapsed_secs=0.0,
    )
    session.add(row)
    session.flush()
    task_ids = ids_by_key(session, TaskRow.task_key, info.task_weights)
    session.add_all(
        SessionTaskRow(
            session_id=row.id, task_id=_known(task_ids, task_key, "task"), position=position, weight=weight
        )
        for position, (task_key, weight) in enumerate(info.task_weights.items())
    )
    return SessionState(num_trials=0, elapsed_secs=0.0, is_new=True)


def append(session: Session, shared: SharedRows, trials: Sequence[NewTrial]) -> list[RecordedTrial]:
    """Store those trials whose candidate its session has not yet; one stored trial for each, in order."""
    session_ids = _locked_sessions(session, {record.session_id for record, _ in trials})
    keys = [(_known(session_ids, record.session_id, "session"), record.candidate.key) for record, _ in trials]
    stored_ids = ids_of_candidates(session, keys)
    new: dict[CandidateOfSession, NewTrial] = {}
    for key, trial in zip(keys, trials, strict=True):
        if key not in stored_ids:
            new.setdefault(key, trial)
    found = dict(zip(new, _insert(session, shared, new), strict=True)) if new else {}
    earlier = queries.trials_by_id(session, shared, stored_ids.values()) if stored_ids else {}
    found |= {key: earlier[record_id] for key, record_id in stored_ids.items()}
    return [found[key] for key in keys]


def _locked_sessions(session: Session, session_ids: set[str]) -> dict[str, int]:
    """Row ids of sessions, which no other writer on a server adds to before the transaction ends."""
    query = select(SessionRow.session_id, SessionRow.id).where(SessionRow.session_id.in_(session_ids))
    rows = session.execute(query.order_by(SessionRow.id).with_for_update(key_share=True))
    return {session_id: row_id for session_id, row_id in rows}


def _insert(
    session: Session, shared: SharedRows, new: Mapping[CandidateOfSession, NewTrial]
) -> list[RecordedTrial]:
    records = [record for record, _ in new.values()]
    task_ids = ids_by_key(session, TaskRow.task_key, (record.task_key for record in records))
    for record in records:
        _known(task_ids, record.task_key, "task")
    machine_ids = shared_rows.machine_ids(session, {record.machine for record in records})
    setups = [codec.setup_of(record) for record in records]
    setup_ids = shared_rows.setup_ids(session, dict.fromkeys(setups))
    first_traces = {
        task_ids[record.task_key]: codec.trace_bytes(record) for record in reversed(records)
    }  # reversed: the first of a task is the last to be put in
    dictionaries = shared.task_dictionaries(session, first_traces, kind=_TRACE)
    rows = [
        codec.trial_fields(
            record,
            machine_row_id=machine_ids[record.machine],
            dictionary=dictionaries[task_ids[record.task_key]],
        )
        | {
            "session_id": session_id,
            "candidate_key": candidate_key,
            "task_id": task_ids[record.task_key],
            "setup_id": setup_ids[setup],
        }
        for (session_id, candidate_key), record, setup in zip(new, records, setups, strict=True)
    ]
    record_ids = _new_trial_ids(session, len(rows))
    for row, record_id in zip(rows, record_ids, strict=True):
        row["id"] = record_id
    # Straight into the table: the mapper would take longer than everything else together.
    table: Any = TrialRow.__table__
    session.connection().execute(insert(table), rows)
    features = [values for _, values in new.values()]
    insert_features(session, shared, record_ids, [row["task_id"] for row in rows], features)
    return [
        RecordedTrial(record_id, codec.stored(record), None if values is None else _frozen(values))
        for record_id, record, values in zip(record_ids, records, features, strict=True)
    ]


def insert_features(
    session: Session,
    shared: SharedRows,
    record_ids: Sequence[int],
    task_ids: Sequence[int],
    features: Sequence[FloatArray | None],
) -> None:
    given = [
        (record_id, task_id, values)
        for record_id, task_id, values in zip(record_ids, task_ids, features, strict=True)
        if values is not None
    ]
    if not given:
        return
    first = {task_id: codec.feature_bytes(values) for _, task_id, values in reversed(given)}
    dictionaries = shared.task_dictionaries(session, first, kind=FEATURE_VERSION)
    table: Any = FeatureRow.__table__
    session.connection().execute(
        insert(table),
        [
            codec.feature_fields(record_id, values, dictionaries[task_id])
            for record_id, task_id, values in given
        ],
    )


def _new_trial_ids(session: Session, count: int) -> list[int]:
    """Numbers that no trial has had. To be told them by the database, rows would have to go in one by one."""
    if session.get_bind().dialect.name == "postgresql":
        numbers = "SELECT nextval(pg_get_serial_sequence('tw_trials', 'id')) FROM generate_series(1, :count)"
        return list(session.scalars(text(numbers), {"count": count}))
    # The write lock is ours since the transaction began.
    last = session.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'tw_trials'")) or 0
    return list(range(last + 1, last + count + 1))


def _frozen(features: FloatArray) -> FloatArray:
    """A copy of one's own, as reading it again would give."""
    return codec.features_from_bytes(codec.feature_bytes(features), *features.shape)


def ids_of_candidates(session: Session, keys: Iterable[CandidateOfSession]) -> dict[CandidateOfSession, int]:
    """Row ids of the stored trials among `keys`."""
    found: dict[CandidateOfSession, int] = {}
    by_session: dict[int, list[str]] = {}
    for session_id, candidate_key in keys:
        by_session.setdefault(session_id, []).append(candidate_key)
    for session_id, candidate_keys in by_session.items():
        for some in chunks(candidate_keys):
            query = select(TrialRow.candidate_key, TrialRow.id).where(
                TrialRow.session_id == session_id, TrialRow.candidate_key.in_(some)
            )
            found.update(((session_id, key), row_id) for key, row_id in session.execute(query))
    return found


def _known(ids: Mapping[str, int], key: str, what: str) -> int:
    if key not in ids:
        raise not_found(what, key)
    return ids[key]


def not_found(what: str, key: str) -> RecordNotFoundError:
    return RecordNotFoundError(
        f"the tuning log has no {what} {key}: add it first, or open the log that has it"
    )
