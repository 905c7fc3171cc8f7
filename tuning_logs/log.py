"""`TuningLog`: what has been measured, kept for ever.

Values go in and come out by value; rows of the database stay inside. What a method that writes has returned
from is committed. Errors of the database surface as `StoreError`; one that the caller can simply repeat as
`StoreBusyError`.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Self

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from tunewright.core.closeable import Closeable
from tunewright.core.errors import ConfigError, RecordNotFoundError, StoreError
from tunewright.core.keys import canonical_json
from tunewright.core.types import (
    FailureKind,
    FloatArray,
    MachineInfo,
    MachinePeak,
    ModelSnapshot,
    RecordedTrial,
    SessionInfo,
    TargetSpec,
    TaskKey,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.tuning_logs import codec, queries
from tunewright.tuning_logs.engine import Place, make_engine, store_errors, writing
from tunewright.tuning_logs.schema import check_writable, ensure_schema
from tunewright.tuning_logs.summaries import Race, RankedTrial, SessionState, SessionSummary, TaskSummary
from tunewright.tuning_logs.tables import (
    FeatureRow,
    MachineRow,
    ModelRow,
    RaceRow,
    SessionRow,
    SessionTaskRow,
    TaskRow,
    TrialRow,
    WorkloadRow,
)


class TuningLog(Closeable):
    """One tuning log. Open it with `TuningLog.open`; use it from the process that opened it.

    One writer at a time holds the file: another process waits for up to `busy_timeout_secs` per transaction.
    """

    def __init__(self, engine: Engine, place: Place, *, busy_timeout_secs: float) -> None:
        self._reader = engine
        self._writer = writing(engine)
        self._place = place
        self._busy_timeout_secs = busy_timeout_secs

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, busy_timeout_secs: float = 30.0) -> Self:
        """Open the log at `sqlite:///FILE`, or a new one in memory with `sqlite://`.

        Without `read_only`, a missing file and its folders are made and an older schema is upgraded, with a
        copy of the file kept beside it. With it, nothing is ever made or changed.

        Raises:
            ConfigError: `url` is not one of those, names a folder, or (`read_only`) no existing file.
            SchemaVersionError: a newer Tunewright wrote the log, or an older one and `read_only`.
            StoreBusyError: another process holds the write lock.
            StoreError: not a database, damaged, not readable or writable.
        """
        place = Place.from_url(url)
        _check_file(place, read_only=read_only)
        engine = make_engine(place, read_only=read_only, busy_timeout_secs=busy_timeout_secs)
        try:
            with store_errors(place, busy_timeout_secs=busy_timeout_secs):
                ensure_schema(engine, place, read_only=read_only)
                if not read_only:
                    check_writable(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, place, busy_timeout_secs=busy_timeout_secs)

    def close(self) -> None:
        """Give the file back. A log in memory is gone."""
        self._reader.dispose()

    # ---- what a tuning session writes

    def add_tasks(self, tasks: Sequence[TuningTask]) -> None:
        """Store tasks and their workloads; those that are known already stay as they are."""
        unique_tasks = {task.key: task for task in tasks}
        workloads = {task.workload.key: task.workload for task in tasks}
        with self._transaction(self._writer) as session:
            workload_ids = queries.ids_by_key(session, WorkloadRow.workload_key, workloads)
            new_workloads = [
                codec.workload_to_row(workload)
                for key, workload in workloads.items()
                if key not in workload_ids
            ]
            session.add_all(new_workloads)
            session.flush()
            workload_ids.update((row.workload_key, row.id) for row in new_workloads)
            known_tasks = queries.ids_by_key(session, TaskRow.task_key, unique_tasks)
            session.add_all(
                TaskRow(
                    task_key=key,
                    workload_id=workload_ids[task.workload.key],
                    target_json=str(task.target),
                    mcpu=task.target.mcpu,
                    num_threads=task.target.num_threads,
                )
                for key, task in unique_tasks.items()
                if key not in known_tasks
            )

    def start_session(self, info: SessionInfo) -> SessionState:
        """Store a new session, or continue the one of the same id, which stays as it was first stored.

        Raises:
            RecordNotFoundError: a task has not been added.
        """
        with self._transaction(self._writer) as session:
            known = session.scalar(select(SessionRow).where(SessionRow.session_id == info.session_id))
            if known is not None:
                num_trials = session.scalar(select(func.count()).where(TrialRow.session_id == known.id))
                return SessionState(num_trials or 0, known.elapsed_secs, is_new=False)
            row = SessionRow(
                session_id=info.session_id,
                model_name=codec.storable_text(info.model_name),
                target_json=str(info.target),
                strategy=info.strategy,
                seed=info.seed,
                machine_id=_machine_ids(session, [info.machine])[info.machine],
                created_at=info.created_at,
                elapsed_secs=0.0,
            )
            session.add(row)
            session.flush()
            task_ids = queries.ids_by_key(session, TaskRow.task_key, info.task_weights)
            session.add_all(
                SessionTaskRow(
                    session_id=row.id,
                    task_id=_known(task_ids, task_key, "task"),
                    position=position,
                    weight=weight,
                )
                for position, (task_key, weight) in enumerate(info.task_weights.items())
            )
        return SessionState(num_trials=0, elapsed_secs=0.0, is_new=True)

    def append(self, trials: Sequence[tuple[TuningRecord, FloatArray | None]]) -> list[RecordedTrial]:
        """Store a batch in one transaction; returned means committed.

        A candidate that its session has already is not stored again: what was stored first is returned.

        Args:
            trials: records, each with its features, float32 (n_stores, n_features), or None.
        Returns: one per record, in the same order.
        Raises:
            RecordNotFoundError: a session was not started, or a task not added.
        """
        records = [record for record, _ in trials]
        with self._transaction(self._writer) as session:
            session_ids = queries.ids_by_key(session, SessionRow.session_id, (r.session_id for r in records))
            task_ids = queries.ids_by_key(session, TaskRow.task_key, (r.task_key for r in records))
            machine_ids = _machine_ids(session, (r.machine for r in records))
            keys = [(_known(session_ids, r.session_id, "session"), r.candidate.key) for r in records]
            rows = _rows_of_candidates(session, keys)
            new: dict[tuple[int, str], tuple[TrialRow, FloatArray | None]] = {}
            for key, (record, features) in zip(keys, trials, strict=True):
                if key in rows or key in new:
                    continue
                row = codec.trial_to_row(
                    record,
                    session_row_id=key[0],
                    task_row_id=_known(task_ids, record.task_key, "task"),
                    machine_row_id=machine_ids[record.machine],
                )
                new[key] = (row, features)
            session.add_all(row for row, _ in new.values())
            session.flush()
            session.add_all(
                codec.features_to_row(row.id, features)
                for row, features in new.values()
                if features is not None
            )
            record_ids = {key: row.id for key, row in rows.items()} | {
                key: row.id for key, (row, _) in new.items()
            }
            stored = queries.trials(session, TrialRow.id.in_(record_ids.values()), with_features=True)
            by_id = {trial.record_id: trial for trial in stored}
            return [by_id[record_ids[key]] for key in keys]

    def add_elapsed(self, session_id: str, secs: float) -> None:
        """Add tuning time to a session, so that a time budget holds across interruptions."""
        with self._transaction(self._writer) as session:
            row = session.scalar(select(SessionRow).where(SessionRow.session_id == session_id))
            if row is None:
                raise _not_found("session", session_id)
            row.elapsed_secs += secs

    def add_race(
        self, record_id: int, run_secs: Sequence[float], raced_at: datetime, *, is_verified: bool = False
    ) -> None:
        """Store a final race; from now on its median is what the trial ranks by.

        Args:
            is_verified: its outputs were found right in the race, so it may be best even if they had not been
                compared before.

        Raises:
            RecordNotFoundError: no such record.
            StoreError: the record is a failure, so it has no time to race with.
        """
        if not run_secs or not all(math.isfinite(secs) and secs > 0 for secs in run_secs):
            raise ValueError(f"run_secs is {tuple(run_secs)}, expected one or more finite positive numbers")
        with self._transaction(self._writer) as session:
            row = queries.trial_row(session, record_id)
            if row.failure_kind is not None:
                raise StoreError(
                    f"record {record_id} failed ({row.failure_kind}): only a timed one can be raced"
                )
            samples = canonical_json([float(secs) for secs in run_secs])
            session.add(RaceRow(trial_id=record_id, run_secs_json=samples, raced_at=raced_at))
            row.ranked_secs = statistics.median(run_secs)
            row.is_verified = row.is_verified or is_verified

    def mark_unusable(self, record_id: int, reason: str) -> None:
        """Quarantine: `best` never returns it again; it stays a trial.

        Raises:
            RecordNotFoundError: no such record.
        """
        with self._transaction(self._writer) as session:
            queries.trial_row(session, record_id).unusable_reason = codec.storable_text(reason)

    def save_model(self, snapshot: ModelSnapshot) -> None:
        """Store a trained cost model once. A metric that is not finite comes back as NaN."""
        with self._transaction(self._writer) as session:
            if not queries.ids_by_key(session, ModelRow.model_id, [snapshot.model_id]):
                session.add(codec.model_to_row(snapshot))

    def add_peak(self, peak: MachinePeak) -> None:
        """Store what a machine can do at most; from now on it is the one that counts."""
        with self._transaction(self._writer) as session:
            machine_id = _machine_ids(session, [peak.machine])[peak.machine]
            session.add(codec.peak_to_row(peak, machine_row_id=machine_id))

    def peak(self, target: TargetSpec, *, machine_fingerprint: str) -> MachinePeak | None:
        """The newest peak of a machine for kernels of a target, or None where it has not been measured."""
        with self._transaction(self._reader) as session:
            return queries.newest_peak(session, target, machine_fingerprint)

    # ---- what a tuning session reads

    def trials(
        self, task_key: TaskKey, *, machine_fingerprint: str | None = None, with_features: bool = False
    ) -> list[RecordedTrial]:
        """All trials of a task, failures too, oldest first; one machine's where a fingerprint is given."""
        conditions: list[ColumnElement[bool]] = [TaskRow.task_key == task_key]
        if machine_fingerprint is not None:
            conditions.append(queries.has_fingerprint(machine_fingerprint))
        with self._transaction(self._reader) as session:
            return queries.trials(session, *conditions, with_features=with_features)

    def session_trials(self, session_id: str, *, with_features: bool = False) -> list[RecordedTrial]:
        """All trials of a session, oldest first."""
        with self._transaction(self._reader) as session:
            return queries.trials(session, SessionRow.session_id == session_id, with_features=with_features)

    def count_trials(self, session_id: str) -> dict[TaskKey, int]:
        """Number of trials of each task that the session has measured."""
        query = (
            select(TaskRow.task_key, func.count())
            .join(TrialRow, TrialRow.task_id == TaskRow.id)
            .join(SessionRow, SessionRow.id == TrialRow.session_id)
            .where(SessionRow.session_id == session_id)
            .group_by(TaskRow.task_key)
        )
        with self._transaction(self._reader) as session:
            return {TaskKey(task_key): count for task_key, count in session.execute(query)}

    def training_trials(self, *, mcpu: str | None, limit: int) -> list[RecordedTrial]:
        """The newest `limit` trials that have features of the current version, oldest first.

        Of all tasks, sessions and machines; only of targets with that `mcpu` where one is given.
        """
        conditions: list[ColumnElement[bool]] = [FeatureRow.trial_id.is_not(None)]
        if mcpu is not None:
            conditions.append(TaskRow.mcpu == mcpu)
        with self._transaction(self._reader) as session:
            return queries.trials(session, *conditions, with_features=True, newest_first_limit=limit)

    def models(self) -> list[ModelSnapshot]:
        """All cost models, of whatever kind and feature version, those trained last first."""
        query = select(ModelRow).order_by(ModelRow.trained_at.desc(), ModelRow.id.desc())
        with self._transaction(self._reader) as session:
            return [codec.model_from_row(row) for row in session.scalars(query)]

    # ---- the best-schedule database

    def best(
        self, task_key: TaskKey, *, k: int = 1, machine_fingerprint: str | None = None
    ) -> list[RankedTrial]:
        """The `k` fastest usable trials of exactly this task, fastest first.

        Only verified successes that are not in quarantine. Ordered by the median of the newest race where
        there was one, else by the trial's own median. The key holds the target, so a record for another
        target is never returned.
        """
        conditions = [TaskRow.task_key == task_key]
        if machine_fingerprint is not None:
            conditions.append(queries.has_fingerprint(machine_fingerprint))
        with self._transaction(self._reader) as session:
            return queries.best(session, *conditions, k=k)[task_key]

    def best_many(self, task_keys: Sequence[TaskKey], k: int = 1) -> dict[TaskKey, list[RankedTrial]]:
        """`best` of many tasks in one query; a task without a usable trial has an empty list."""
        with self._transaction(self._reader) as session:
            found = queries.best(session, TaskRow.task_key.in_(task_keys), k=k)
            return {task_key: found[task_key] for task_key in task_keys}

    def best_of_all_tasks(self, *, mcpu: str, k: int = 1) -> dict[TaskKey, list[RankedTrial]]:
        """`best` of every task that has a usable trial for targets with that `mcpu`."""
        with self._transaction(self._reader) as session:
            return dict(queries.best(session, TaskRow.mcpu == mcpu, k=k))

    def near_misses(self, workload_key: WorkloadKey) -> list[TaskSummary]:
        """The targets for which this workload has trials: says why a task of it has no record."""
        with self._transaction(self._reader) as session:
            tasks = queries.task_summaries(session, WorkloadRow.workload_key == workload_key)
        return [task for task in tasks if task.num_trials]

    def tasks(self, *, key_prefix: str = "") -> list[TaskSummary]:
        """All tasks, or those whose key begins with `key_prefix`, in the order of their first appearance."""
        with self._transaction(self._reader) as session:
            return queries.task_summaries(session, TaskRow.task_key.startswith(key_prefix, autoescape=True))

    def sessions(self) -> list[SessionSummary]:
        """All sessions, oldest first."""
        with self._transaction(self._reader) as session:
            return queries.session_summaries(session)

    def session_weights(self, session_id: str) -> dict[TaskKey, int]:
        """Calls per run of the model of each task of a session, in the order of the model; empty for none."""
        query = (
            select(TaskRow.task_key, SessionTaskRow.weight)
            .join(SessionTaskRow, SessionTaskRow.task_id == TaskRow.id)
            .join(SessionRow, SessionRow.id == SessionTaskRow.session_id)
            .where(SessionRow.session_id == session_id)
            .order_by(SessionTaskRow.position)
        )
        with self._transaction(self._reader) as session:
            return {TaskKey(task_key): weight for task_key, weight in session.execute(query)}

    def failure_counts(
        self, *, task_key: TaskKey | None = None, session_id: str | None = None
    ) -> dict[FailureKind, int]:
        """How often each kind of failure occurred, most frequent first."""
        conditions: list[ColumnElement[bool]] = []
        if task_key is not None:
            conditions.append(TaskRow.task_key == task_key)
        if session_id is not None:
            conditions.append(SessionRow.session_id == session_id)
        with self._transaction(self._reader) as session:
            return queries.failure_counts(session, *conditions)

    def record(self, record_id: int) -> RecordedTrial:
        """One trial with its features.

        Raises:
            RecordNotFoundError: no such record.
        """
        with self._transaction(self._reader) as session:
            queries.trial_row(session, record_id)
            return queries.trials(session, TrialRow.id == record_id, with_features=True)[0]

    def races(self, record_id: int) -> list[Race]:
        """The races of a record, oldest first."""
        query = select(RaceRow).where(RaceRow.trial_id == record_id).order_by(RaceRow.id)
        with self._transaction(self._reader) as session:
            return [
                Race(codec.samples_from_json(row.run_secs_json), row.raced_at)
                for row in session.scalars(query)
            ]

    def unusable_reason(self, record_id: int) -> str | None:
        """Why a record is in quarantine, None where it is not.

        Raises:
            RecordNotFoundError: no such record.
        """
        with self._transaction(self._reader) as session:
            return queries.trial_row(session, record_id).unusable_reason

    def workload(self, key: WorkloadKey) -> Workload:
        """Raises: RecordNotFoundError."""
        with self._transaction(self._reader) as session:
            row = session.scalar(select(WorkloadRow).where(WorkloadRow.workload_key == key))
            if row is None:
                raise _not_found("workload", key)
            return codec.workload_from_row(row)

    def task(self, task_key: TaskKey) -> TuningTask:
        """A task with weight 1: weights belong to sessions.

        Raises:
            RecordNotFoundError: no such task.
        """
        query = (
            select(TaskRow.target_json, WorkloadRow)
            .join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id)
            .where(TaskRow.task_key == task_key)
        )
        with self._transaction(self._reader) as session:
            row = session.execute(query).one_or_none()
            if row is None:
                raise _not_found("task", task_key)
            target_json, workload_row = row
            return TuningTask(codec.workload_from_row(workload_row), codec.target_from_json(target_json))

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Session]:
        with (
            store_errors(self._place, busy_timeout_secs=self._busy_timeout_secs),
            Session(engine) as session,
            session.begin(),
        ):
            yield session


def _check_file(place: Place, *, read_only: bool) -> None:
    path = place.path
    if path is None:
        return
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, not a tuning log: name a file with --log")
        if read_only and not path.exists():
            raise ConfigError(
                f"there is no tuning log at {path}: name one with --log, or make it with `tunewright tune`"
            )
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(
            f"the tuning log {path} cannot be reached ({exc.strerror}): name another with --log"
        ) from exc


def _machine_ids(session: Session, machines: Iterable[MachineInfo]) -> dict[MachineInfo, int]:
    """Row ids of machines; those that are new are stored."""
    keys = {machine: codec.machine_key(machine) for machine in machines}
    ids = queries.ids_by_key(session, MachineRow.machine_key, keys.values())
    new = [codec.machine_to_row(machine) for machine, key in keys.items() if key not in ids]
    session.add_all(new)
    session.flush()
    ids.update((row.machine_key, row.id) for row in new)
    return {machine: ids[key] for machine, key in keys.items()}


def _rows_of_candidates(session: Session, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], TrialRow]:
    """The stored trials among (row id of the session, candidate key)."""
    query = select(TrialRow).where(
        TrialRow.session_id.in_({session_id for session_id, _ in keys}),
        TrialRow.candidate_key.in_({candidate_key for _, candidate_key in keys}),
    )
    return {(row.session_id, row.candidate_key): row for row in session.scalars(query)}


def _known(ids: Mapping[str, int], key: str, what: str) -> int:
    if key not in ids:
        raise _not_found(what, key)
    return ids[key]


def _not_found(what: str, key: str) -> RecordNotFoundError:
    return RecordNotFoundError(
        f"the tuning log has no {what} {key}: add it first, or open the log that has it"
    )
