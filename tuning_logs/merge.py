"""Take everything of another log over. Merging twice, or the other way round, gives the same content.

A trial is known by its session and its candidate. Where two copies of one log went on apart and measured the
same candidate, the earlier measurement stays; races, verifications and quarantines of both are kept.
"""

import statistics
from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import MachinePeak, ModelSnapshot, SessionInfo, TaskKey, TuningTask
from tunewright.tuning_logs import codec, ingest, queries, shared_rows
from tunewright.tuning_logs.history import TrialHistory, histories, read_histories
from tunewright.tuning_logs.shared_rows import SharedRows, chunks, ids_by_key
from tunewright.tuning_logs.summaries import Race, Verification
from tunewright.tuning_logs.tables import (
    MachineRow,
    ModelRow,
    PeakRow,
    RaceRow,
    SessionRow,
    SessionTaskRow,
    TargetRow,
    TaskRow,
    TrialRow,
    VerificationRow,
    WorkloadRow,
)

_TRIALS_AT_ONCE = 500


# ---- reading the other log


def all_tasks(session: Session) -> list[TuningTask]:
    query = (
        select(WorkloadRow, TargetRow.target_json)
        .select_from(TaskRow)
        .join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id)
        .join(TargetRow, TargetRow.id == TaskRow.target_id)
        .order_by(TaskRow.id)
    )
    return [
        TuningTask(codec.workload_from_row(workload), codec.target_from_json(target_json))
        for workload, target_json in session.execute(query)
    ]


def all_sessions(session: Session, shared: SharedRows) -> list[tuple[int, SessionInfo, float]]:
    """(row id, session, seconds that it took) each, oldest first."""
    weights = (
        select(SessionTaskRow.session_id, TaskRow.task_key, SessionTaskRow.weight)
        .join(TaskRow, TaskRow.id == SessionTaskRow.task_id)
        .order_by(SessionTaskRow.session_id, SessionTaskRow.position)
    )
    by_session: dict[int, dict[TaskKey, int]] = {}
    for row_id, task_key, weight in session.execute(weights):
        by_session.setdefault(row_id, {})[TaskKey(task_key)] = weight
    rows = session.execute(
        select(SessionRow, TargetRow.target_json)
        .join(TargetRow, TargetRow.id == SessionRow.target_id)
        .order_by(SessionRow.id)
    ).all()
    machines = shared.machines(session, {row.machine_id for row, _ in rows})
    return [
        (
            row.id,
            SessionInfo(
                session_id=row.session_id,
                model_name=row.model_name,
                target=codec.target_from_json(target_json),
                strategy=row.strategy,
                seed=row.seed,
                machine=machines[row.machine_id],
                task_weights=by_session.get(row.id, {}),
                created_at=row.created_at,
            ),
            row.elapsed_secs,
        )
        for row, target_json in rows
    ]


def pages_of_trials(
    session: Session, shared: SharedRows, session_row_id: int
) -> Iterator[list[TrialHistory]]:
    """All trials of a session, oldest first, so many at once as fit in memory with ease."""
    after_id = 0
    while True:
        page = read_histories(
            session, shared, session_row_id=session_row_id, after_id=after_id, limit=_TRIALS_AT_ONCE
        )
        if not page:
            return
        after_id = page[-1][0]
        yield [history for _, history in page]


def all_peaks(session: Session, shared: SharedRows) -> list[MachinePeak]:
    query = (
        select(PeakRow, TargetRow.target_json)
        .join(TargetRow, TargetRow.id == PeakRow.target_id)
        .order_by(PeakRow.measured_at, PeakRow.id)
    )
    rows = session.execute(query).all()
    machines = shared.machines(session, {row.machine_id for row, _ in rows})
    return [
        codec.peak_from_row(row, machines[row.machine_id], codec.target_from_json(target_json))
        for row, target_json in rows
    ]


# ---- writing this one


def add_tasks(session: Session, tasks: Sequence[TuningTask]) -> int:
    """Store tasks; the number of new ones. Of two labels of a workload the lesser stays, in any order."""
    known = ids_by_key(session, TaskRow.task_key, (task.key for task in tasks))
    ingest.add_tasks(session, tasks)
    for workload in {task.workload.key: task.workload for task in tasks}.values():
        renamed = update(WorkloadRow).where(
            WorkloadRow.workload_key == workload.key, WorkloadRow.name > workload.name
        )
        session.execute(renamed.values(name=workload.name))
    return len({task.key for task in tasks} - known.keys())


def add_session(session: Session, info: SessionInfo, elapsed_secs: float) -> bool:
    """Store a session, or what it says beyond the stored one; whether it is new."""
    is_new = ingest.start_session(session, info).is_new
    row = session.scalars(select(SessionRow).where(SessionRow.session_id == info.session_id)).one()
    row.elapsed_secs = max(row.elapsed_secs, elapsed_secs)
    row.created_at = min(row.created_at, info.created_at)
    row.model_name = min(row.model_name, info.model_name)
    machine_ids = shared_rows.machine_ids(session, [info.machine])
    row.machine_id = _lesser_machine(session, row.machine_id, machine_ids[info.machine])
    return is_new


def add_trials(session: Session, shared: SharedRows, incoming: Sequence[TrialHistory]) -> int:
    """Store trials with their histories; the number of new ones."""
    keys = [history.record.candidate.key for history in incoming]
    session_ids = ids_by_key(session, SessionRow.session_id, (h.record.session_id for h in incoming))
    known = ingest.ids_of_candidates(
        session,
        [(session_ids[h.record.session_id], key) for h, key in zip(incoming, keys, strict=True)],
    )
    # A race that is stored meanwhile waits for this transaction, or is seen by it.
    for some in chunks(known.values()):
        session.execute(select(TrialRow.id).where(TrialRow.id.in_(some)).with_for_update())
    stored = ingest.append(session, shared, [(h.record, h.features) for h in incoming])
    known_ids = set(known.values())
    known_trials = [trial for trial in stored if trial.record_id in known_ids]
    known_histories = histories(session, shared, known_trials)
    presents = {
        trial.record_id: present for trial, present in zip(known_trials, known_histories, strict=True)
    }
    for history, trial in zip(incoming, stored, strict=True):
        present = presents.get(trial.record_id)
        if present is None:
            if not history.is_plain:
                _add_history(session, trial.record_id, history, history.races, history.verifications)
        elif present != history or (present.features is None) != (history.features is None):
            _reconcile(session, shared, trial.record_id, present, history)
    return len(incoming) - len(known)


def add_peaks(session: Session, shared: SharedRows, peaks: Sequence[MachinePeak]) -> None:
    known = set(all_peaks(session, shared))
    new = [peak for peak in peaks if peak not in known]
    machine_ids = shared_rows.machine_ids(session, {peak.machine for peak in new})
    target_ids = shared_rows.target_ids(session, {peak.target for peak in new})
    session.add_all(
        codec.peak_to_row(
            peak, machine_row_id=machine_ids[peak.machine], target_row_id=target_ids[peak.target]
        )
        for peak in new
    )


def add_models(session: Session, models: Sequence[ModelSnapshot]) -> None:
    if models:
        shared_rows.insert_or_ignore(session, ModelRow, [codec.model_fields(model) for model in models])


def _reconcile(
    session: Session, shared: SharedRows, record_id: int, present: TrialHistory, incoming: TrialHistory
) -> None:
    """Two copies of a trial become one, whichever of them was there first."""
    winner = min(present, incoming, key=_rank_of_copy)
    races = tuple(sorted({*present.races, *incoming.races}, key=lambda race: (race.raced_at, race.run_secs)))
    verifications = tuple(
        sorted({*present.verifications, *incoming.verifications}, key=lambda v: (v.verified_at, repr(v)))
    )
    if winner is incoming:
        _replace_record(session, shared, record_id, incoming)
    if present.features is None and incoming.features is not None:
        task_id = session.scalars(select(TrialRow.task_id).where(TrialRow.id == record_id)).one()
        ingest.insert_features(session, shared, [record_id], [task_id], [incoming.features])
    session.execute(delete(RaceRow).where(RaceRow.trial_id == record_id))
    session.execute(delete(VerificationRow).where(VerificationRow.trial_id == record_id))
    reasons = [h.unusable_reason for h in (present, incoming) if h.unusable_reason is not None]
    is_verified = any(_is_verified(history) for history in (present, incoming))
    _add_history(session, record_id, winner, races, verifications, min(reasons, default=None), is_verified)


def _rank_of_copy(history: TrialHistory) -> tuple[datetime, str]:
    record = history.record
    fields = {key: value for key, value in codec.result_fields(record.result).items() if key != "is_verified"}
    return record.finished_at, digest(canonical_json(fields), str(record.trial_index), repr(record.machine))


def _replace_record(session: Session, shared: SharedRows, record_id: int, history: TrialHistory) -> None:
    """The stored trial becomes another measurement of the same candidate; its schedule and features stay."""
    record = history.record
    setup = codec.setup_of(record)
    values = codec.result_fields(record.result) | {
        "machine_id": shared_rows.machine_ids(session, [record.machine])[record.machine],
        "setup_id": shared_rows.setup_ids(session, [setup])[setup],
        "trial_index": record.trial_index,
        "parent_key": record.candidate.parent_key,
        "origin": record.candidate.origin.value,
        "predicted_score": record.predicted_score,
        "finished_at": record.finished_at,
    }
    session.execute(update(TrialRow).where(TrialRow.id == record_id).values(**values))


def _add_history(
    session: Session,
    record_id: int,
    history: TrialHistory,
    races: Sequence[Race],
    verifications: Sequence[Verification],
    unusable_reason: str | None = None,
    is_verified: bool = False,
) -> None:
    """What happened to a stored trial, and what follows from it."""
    machine_ids = shared_rows.machine_ids(session, {v.machine for v in verifications})
    session.add_all(
        RaceRow(trial_id=record_id, run_secs_json=canonical_json(list(race.run_secs)), raced_at=race.raced_at)
        for race in races
    )
    session.add_all(
        VerificationRow(
            trial_id=record_id,
            machine_id=machine_ids[v.machine],
            failure_kind=None if v.failure_kind is None else v.failure_kind.value,
            message=v.message,
            verified_at=v.verified_at,
        )
        for v in verifications
    )
    session.flush()
    row = queries.trial_row(session, record_id)
    row.unusable_reason = unusable_reason or history.unusable_reason
    row.is_verified = is_verified or _is_verified(history)
    right = [v.machine for v in verifications if v.failure_kind is None]
    if right:
        row.verified_machine_id = machine_ids[right[-1]]
    else:
        row.verified_machine_id = row.machine_id if row.is_verified else None
    if races and row.failure_kind is None:
        row.ranked_secs = statistics.median(races[-1].run_secs)


def _is_verified(history: TrialHistory) -> bool:
    return bool(codec.result_fields(history.record.result)["is_verified"])


def _lesser_machine(session: Session, row_id: int, other_id: int) -> int:
    """Of two machines of one session, the same for every order of merging."""
    if row_id == other_id:
        return row_id
    query = select(MachineRow.id).where(MachineRow.id.in_((row_id, other_id)))
    return session.scalars(query.order_by(MachineRow.machine_key).limit(1)).one()
