"""`TuningLog`: what has been measured, kept for ever.

Values go in and come out by value; rows of the database stay inside. What a method that writes has returned
from is committed. Errors of the database surface as `StoreError`; one that the caller can simply repeat as
`StoreBusyError`.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeVar, Unpack

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tunewright.core.closeable import Closeable
from tunewright.core.errors import ConfigError, StoreError
from tunewright.core.keys import canonical_json
from tunewright.core.log_url import file_url
from tunewright.core.trial_columns import TrialColumns
from tunewright.core.types import (
    CandidateKey,
    FailureKind,
    FloatArray,
    MachineInfo,
    MachinePeak,
    MeasureFailure,
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
from tunewright.tuning_logs import (
    codec,
    ingest,
    merge,
    queries,
    ranking,
    shared_rows,
    trial_columns,
    trial_facts,
    upkeep,
    verifications,
)
from tunewright.tuning_logs.engine import make_engine, writing
from tunewright.tuning_logs.matching import Match
from tunewright.tuning_logs.place import Place
from tunewright.tuning_logs.schema import HEAD_REVISION, check_writable, ensure_schema
from tunewright.tuning_logs.store_errors import is_conflict, store_errors
from tunewright.tuning_logs.summaries import (
    LogStats,
    MergeReport,
    PruneReport,
    Race,
    RankedTrial,
    SessionState,
    SessionSummary,
    StoredCandidate,
    StoredSuccess,
    TaskSummary,
    Verification,
)
from tunewright.tuning_logs.tables import (
    FeatureRow,
    ModelRow,
    RaceRow,
    SessionRow,
    SessionTaskRow,
    TargetRow,
    TaskRow,
    TrialRow,
    WorkloadRow,
)

_T = TypeVar("_T")

# Writers on a server may meet: each of them repeats its transaction then.
_MAX_CONFLICTS = 5


class TuningLog(Closeable):
    """One tuning log. Open it with `TuningLog.open`; use it from the process that opened it.

    In a file, one writer at a time holds the lock: another process waits for up to `busy_timeout_secs` per
    transaction. On a server, writers do not wait for each other.
    """

    def __init__(self, engine: Engine, place: Place, *, busy_timeout_secs: float) -> None:
        self._reader = engine
        self._writer = writing(engine)
        self._place = place
        self._busy_timeout_secs = busy_timeout_secs
        self._shared = shared_rows.SharedRows()

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, busy_timeout_secs: float = 30.0) -> Self:
        """Open the log at `sqlite:///FILE`, at `postgresql+psycopg://USER@HOST/DATABASE`, or a new one in
        memory with `sqlite://`.

        Without `read_only`, a missing file and its folders are made and an older schema is upgraded, with a
        copy of the file kept beside it. With it, nothing is ever made or changed.

        Raises:
            ConfigError: `url` is not one of those, names a folder, or (`read_only`) no existing file; or
                psycopg is not installed.
            SchemaVersionError: a newer Tunewright wrote the log, or an older one and `read_only`.
            StoreBusyError: another process holds the write lock.
            StoreError: not a database, damaged, not readable or writable.
        """
        place = Place.from_url(url)
        place.prepare(read_only=read_only)
        engine = make_engine(place, read_only=read_only, busy_timeout_secs=busy_timeout_secs)
        try:
            with store_errors(place, busy_timeout_secs=busy_timeout_secs):
                ensure_schema(engine, place, read_only=read_only)
                if not read_only:
                    check_writable(engine, place)
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
        self._write(lambda session: ingest.add_tasks(session, tasks))

    def start_session(self, info: SessionInfo) -> SessionState:
        """Store a new session, or continue the one of the same id, which stays as it was first stored.

        Raises:
            RecordNotFoundError: a task has not been added.
        """
        return self._write(lambda session: ingest.start_session(session, info))

    def append(self, trials: Sequence[tuple[TuningRecord, FloatArray | None]]) -> list[RecordedTrial]:
        """Store a batch in one transaction; returned means committed.

        A candidate that its session has already is not stored again: what was stored first is returned.

        Args:
            trials: records, each with its features, float32 (n_stores, n_features), or None.
        Returns: one per record, in the same order.
        Raises:
            RecordNotFoundError: a session was not started, or a task not added.
        """
        return self._write(lambda session: ingest.append(session, self._shared, trials))

    def add_elapsed(self, session_id: str, secs: float) -> None:
        """Add tuning time to a session, so that a time budget holds across interruptions."""

        def add(session: Session) -> None:
            row = session.scalar(
                select(SessionRow).where(SessionRow.session_id == session_id).with_for_update()
            )
            if row is None:
                raise ingest.not_found("session", session_id)
            row.elapsed_secs += secs

        self._write(add)

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

        def add(session: Session) -> None:
            row = queries.trial_row(session, record_id)
            if row.failure_kind is not None:
                raise StoreError(
                    f"record {record_id} failed ({row.failure_kind}): only a timed one can be raced"
                )
            samples = canonical_json([float(secs) for secs in run_secs])
            session.add(RaceRow(trial_id=record_id, run_secs_json=samples, raced_at=raced_at))
            row.ranked_secs = statistics.median(run_secs)
            if is_verified and not row.is_verified:
                row.is_verified, row.verified_machine_id = True, row.machine_id

        self._write(add)

    def mark_unusable(self, record_id: int, reason: str) -> None:
        """Quarantine: `best` never returns it again; it stays a trial.

        Raises:
            RecordNotFoundError: no such record.
        """

        def mark(session: Session) -> None:
            queries.trial_row(session, record_id).unusable_reason = reason

        self._write(mark)

    def add_verification(
        self,
        record_id: int,
        *,
        machine: MachineInfo,
        failure: MeasureFailure | None,
        verified_at: datetime,
    ) -> str | None:
        """Store that a record was replayed and its outputs were compared again.

        Where they were right, it counts as verified with that machine's software. A result that is wrong, a
        crash, and a schedule that does not apply or build put it in quarantine; the last leave it again when
        a later verification finds the outputs right. Time-outs, exhausted memory and lost workers prove
        nothing: the record stays as it was.

        Args:
            failure: None where all outputs were right.
        Returns: why the record is in quarantine now, None where it is not.
        Raises:
            RecordNotFoundError: no such record.
            StoreError: the record is a failure.
        """
        return self._write(
            lambda session: verifications.add(session, record_id, machine, failure, verified_at)
        )

    def save_model(self, snapshot: ModelSnapshot) -> None:
        """Store a trained cost model once. A metric that is not finite comes back as NaN."""

        row = codec.model_fields(snapshot)
        self._write(lambda session: shared_rows.insert_or_ignore(session, ModelRow, [row]))

    def add_peak(self, peak: MachinePeak) -> None:
        """Store what a machine did at most; the fastest of all measurements counts."""

        def add(session: Session) -> None:
            machine_id = shared_rows.machine_ids(session, [peak.machine])[peak.machine]
            target_id = shared_rows.target_ids(session, [peak.target])[peak.target]
            session.add(codec.peak_to_row(peak, machine_row_id=machine_id, target_row_id=target_id))

        self._write(add)

    def peak(self, target: TargetSpec, *, machine_fingerprint: str) -> MachinePeak | None:
        """The fastest that a machine was seen to be in kernels of a target; None where nobody measured it."""
        with self._reading() as session:
            return queries.fastest_peak(session, self._shared, target, machine_fingerprint)

    # ---- what a tuning session reads

    def trials(
        self, task_key: TaskKey, *, machine_fingerprint: str | None = None, with_features: bool = False
    ) -> list[RecordedTrial]:
        """All trials of a task, failures too, oldest first; one machine's where a fingerprint is given."""
        conditions: list[ColumnElement[bool]] = [queries.of_task(task_key)]
        if machine_fingerprint is not None:
            conditions.append(queries.has_fingerprint(machine_fingerprint))
        with self._reading() as session:
            return queries.trials(session, self._shared, *conditions, with_features=with_features)

    def session_trials(self, session_id: str, *, with_features: bool = False) -> list[RecordedTrial]:
        """All trials of a session, oldest first."""
        with self._reading() as session:
            is_wanted = queries.of_session(session_id)
            return queries.trials(session, self._shared, is_wanted, with_features=with_features)

    def trial_facts(
        self, *, task_key: TaskKey | None = None, session_id: str | None = None
    ) -> Iterator[trial_facts.TrialFacts]:
        """Trials without schedules and features, oldest first: of a task, of a session, of both, or all.

        Read in pages, each in a transaction of its own: whoever takes his time keeps no writer waiting.
        """
        conditions = queries.of_task_and_session(task_key, session_id)
        return trial_facts.pages(self._reading, self._shared, conditions)

    def trial_columns(self, **selection: Unpack[trial_columns.Selection]) -> TrialColumns:
        """The trials that meet all that is given, oldest first, as arrays of what pictures need of them."""
        return trial_columns.read(self._reading, self._shared, selection)

    def count_trials(self, session_id: str) -> dict[TaskKey, int]:
        """Number of trials of each task that the session has measured."""
        query = (
            select(TaskRow.task_key, func.count())
            .join(TrialRow, TrialRow.task_id == TaskRow.id)
            .join(SessionRow, SessionRow.id == TrialRow.session_id)
            .where(SessionRow.session_id == session_id)
            .group_by(TaskRow.task_key)
        )
        with self._reading() as session:
            return {TaskKey(task_key): count for task_key, count in session.execute(query)}

    def training_trials(self, *, mcpu: str | None, limit: int) -> list[RecordedTrial]:
        """The newest `limit` trials that have features of the current version, oldest first.

        Of all tasks, sessions and machines; only of targets with that `mcpu` where one is given.
        """
        conditions: list[ColumnElement[bool]] = [FeatureRow.trial_id.is_not(None)]
        if mcpu is not None:
            conditions.append(queries.for_mcpu(mcpu))
        with self._reading() as session:
            return queries.trials(
                session, self._shared, *conditions, with_features=True, newest_first_limit=limit
            )

    def models(self) -> list[ModelSnapshot]:
        """All cost models, of whatever kind and feature version, those trained last first."""
        query = select(ModelRow).order_by(ModelRow.trained_at.desc(), ModelRow.id.desc())
        with self._reading() as session:
            return [codec.model_from_row(row) for row in session.scalars(query)]

    # ---- the best-schedule database

    def best(
        self,
        task: TuningTask | TaskKey,
        *,
        k: int = 1,
        match: Match | None = None,
        machine_fingerprint: str | None = None,
    ) -> list[RankedTrial]:
        """The `k` fastest usable trials of exactly this task, fastest first.

        Only verified successes that are not in quarantine. Ordered by the median of the newest race where
        there was one, else by the trial's own median. The key holds the target, so a record for another
        target is never returned.

        Args:
            match: which machines' and versions' records may be used; those that match most closely come
                first. None: all, in one order.
            machine_fingerprint: only trials that were timed on such a machine.
        """
        task_key = task.key if isinstance(task, TuningTask) else task
        with self._reading() as session:
            found = ranking.best(
                session,
                self._shared,
                k=k,
                task_keys=[task_key],
                match=match,
                fingerprint=machine_fingerprint,
            )
            return found[task_key]

    def best_many(
        self, task_keys: Sequence[TaskKey], k: int = 1, *, match: Match | None = None
    ) -> dict[TaskKey, list[RankedTrial]]:
        """`best` of many tasks in one query; a task without a usable trial has an empty list."""
        found: dict[TaskKey, list[RankedTrial]] = {}
        with self._reading() as session:
            for some in shared_rows.chunks(task_keys):
                found |= ranking.best(session, self._shared, k=k, task_keys=some, match=match)
        return {task_key: found.get(task_key, []) for task_key in task_keys}

    def best_of_all_tasks(self, *, mcpu: str, k: int = 1) -> dict[TaskKey, list[RankedTrial]]:
        """`best` of every task that has a usable trial for targets with that `mcpu`."""
        with self._reading() as session:
            return dict(ranking.best(session, self._shared, k=k, mcpu=mcpu))

    def trials_of_candidates(
        self, candidates: Mapping[TaskKey, CandidateKey]
    ) -> dict[TaskKey, list[StoredCandidate]]:
        """The trials of one candidate of each task, failures too; those that `best` may return come first."""
        with self._reading() as session:
            found = queries.stored_candidates(session, self._shared, candidates)
        return {task_key: found.get(task_key, []) for task_key in candidates}

    def near_misses(self, workload_key: WorkloadKey) -> list[TaskSummary]:
        """The targets for which this workload has trials: says why a task of it has no record."""
        with self._reading() as session:
            tasks = queries.task_summaries(session, WorkloadRow.workload_key == workload_key)
        return [task for task in tasks if task.num_trials]

    def tasks(self, *, key_prefix: str = "") -> list[TaskSummary]:
        """All tasks, or those whose key begins with `key_prefix`, in the order of their first appearance."""
        with self._reading() as session:
            return queries.task_summaries(session, TaskRow.task_key.startswith(key_prefix, autoescape=True))

    def sessions(self) -> list[SessionSummary]:
        """All sessions, oldest first."""
        with self._reading() as session:
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
        with self._reading() as session:
            return {TaskKey(task_key): weight for task_key, weight in session.execute(query)}

    def failure_counts(
        self, *, task_key: TaskKey | None = None, session_id: str | None = None
    ) -> dict[FailureKind, int]:
        """How often each kind of failure occurred, most frequent first."""
        with self._reading() as session:
            return queries.failure_counts(session, *queries.of_task_and_session(task_key, session_id))

    def quarantine_counts(self, task_key: TaskKey) -> dict[str, int]:
        """How many trials of a task are in quarantine, by reason, most frequent first."""
        with self._reading() as session:
            return queries.quarantine_counts(session, queries.of_task(task_key))

    def record(self, record_id: int) -> RecordedTrial:
        """One trial with its features.

        Raises:
            RecordNotFoundError: no such record.
        """
        with self._reading() as session:
            queries.trial_row(session, record_id)
            return queries.trials_by_id(session, self._shared, [record_id])[record_id]

    def races(self, record_id: int) -> list[Race]:
        """The races of a record, oldest first."""
        query = select(RaceRow).where(RaceRow.trial_id == record_id).order_by(RaceRow.id)
        with self._reading() as session:
            return [
                Race(codec.samples_from_json(row.run_secs_json), row.raced_at)
                for row in session.scalars(query)
            ]

    def verifications(self, record_id: int) -> list[Verification]:
        """The verifications of a record after its measurement, oldest first."""
        with self._reading() as session:
            return verifications.of_records(session, self._shared, [record_id])[record_id]

    def successes(self, task_key: TaskKey, *, machine: MachineInfo) -> list[StoredSuccess]:
        """All timed trials of a task, without their traces, fastest first.

        Args:
            machine: its software is the one that `is_checked` is about.
        """
        with self._reading() as session:
            return verifications.successes(session, task_key, machine)

    def unusable_reason(self, record_id: int) -> str | None:
        """Why a record is in quarantine, None where it is not.

        Raises:
            RecordNotFoundError: no such record.
        """
        with self._reading() as session:
            return queries.trial_row(session, record_id).unusable_reason

    def workload(self, key: WorkloadKey) -> Workload:
        """Raises: RecordNotFoundError."""
        with self._reading() as session:
            row = session.scalar(select(WorkloadRow).where(WorkloadRow.workload_key == key))
            if row is None:
                raise ingest.not_found("workload", key)
            return codec.workload_from_row(row)

    def task(self, task_key: TaskKey) -> TuningTask:
        """A task with weight 1: weights belong to sessions.

        Raises:
            RecordNotFoundError: no such task.
        """
        query = (
            select(TargetRow.target_json, WorkloadRow)
            .select_from(TaskRow)
            .join(WorkloadRow, WorkloadRow.id == TaskRow.workload_id)
            .join(TargetRow, TargetRow.id == TaskRow.target_id)
            .where(TaskRow.task_key == task_key)
        )
        with self._reading() as session:
            row = session.execute(query).one_or_none()
            if row is None:
                raise ingest.not_found("task", task_key)
            target_json, workload_row = row
            return TuningTask(codec.workload_from_row(workload_row), codec.target_from_json(target_json))

    # ---- the log as a whole

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return str(self._place)

    def machines(self) -> list[MachineInfo]:
        """All machines, once with each software that they were seen with, the first seen first."""
        with self._reading() as session:
            return list(queries.all_machines(session, self._shared).values())

    def stats(self) -> LogStats:
        """How much it holds."""
        with self._reading() as session:
            return upkeep.stats(session, schema=HEAD_REVISION)

    def merge_from(self, other: "TuningLog", on_page: Callable[[int], None] = lambda _: None) -> MergeReport:
        """Take over everything that another log has. Interrupted, it is simply done again.

        Merging twice changes nothing, and the content does not depend on which log took over which: where
        both measured the same candidate in the same session, the earlier measurement stays.

        Args:
            on_page: told the number of trials looked at so far.
        """
        with other._reading() as source:
            tasks = merge.all_tasks(source)
            num_tasks = self._write(lambda session: merge.add_tasks(session, tasks))
            num_sessions = num_new = num_seen = 0
            for row_id, info, elapsed_secs in merge.all_sessions(source, other._shared):
                num_sessions += self._write(partial(merge.add_session, info=info, elapsed_secs=elapsed_secs))
                for page in merge.pages_of_trials(source, other._shared, row_id):
                    num_new += self._write(partial(merge.add_trials, shared=self._shared, incoming=page))
                    num_seen += len(page)
                    on_page(num_seen)
            peaks = merge.all_peaks(source, other._shared)
        self._write(partial(merge.add_peaks, shared=self._shared, peaks=peaks))
        models = other.models()
        self._write(lambda session: merge.add_models(session, models))
        return MergeReport(num_tasks, num_sessions, num_new, num_seen - num_new)

    def prune(self, *, num_kept: int, is_dry_run: bool = False) -> PruneReport:
        """Delete all but the `num_kept` fastest trials of each task, usable ones first, and old cost models.

        What is deleted is gone for the cost model too, and a session that goes on measures it again. A file
        becomes smaller.
        """
        report = self._write(lambda session: upkeep.prune(session, num_kept=num_kept, is_dry_run=is_dry_run))
        if not is_dry_run and self._place.server is None:
            with self._engine_errors(), closing(self._reader.raw_connection()) as connection:
                connection.cursor().execute("VACUUM")
        return report

    def back_up(self, path: Path) -> None:
        """Copy the log into a new file of SQLite, which is a log of its own; it may be in use meanwhile.

        Raises:
            ConfigError: the file exists.
            StoreError: it cannot be written.
        """
        if path.exists():
            raise ConfigError(f"{path} exists: name a file that does not")
        if self._place.path is None:
            partial_path = path.with_name(path.name + ".part")
            partial_path.unlink(missing_ok=True)
            with TuningLog.open(file_url(partial_path)) as copy:
                copy.merge_from(self)
            partial_path.replace(path)
            path.with_name(f"{partial_path.name}-journal").unlink(missing_ok=True)  # empty
            return
        upkeep.copy_file(self._place.path, path)

    def as_tvm_database(self, target: TargetSpec) -> AbstractContextManager[object]:
        """A context in which TVM's own passes (`MetaScheduleApplyDatabase`) take the best records from here.

        Enters the target too; a function whose workload or target has no record stays as it is. What to run
        after the pass says `core.tvm_adapter.tvm_database`.
        """
        from tunewright.core.tvm_adapter.tvm_database import tvm_database

        return tvm_database(self, target)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._engine_errors(), Session(self._reader) as session, session.begin():
            yield session

    def _write(self, work: Callable[[Session], _T]) -> _T:
        """Do all of `work` in one transaction, again where another writer came in between."""
        with self._engine_errors():
            for _ in range(_MAX_CONFLICTS):
                try:
                    return self._write_once(work)
                except DBAPIError as exc:
                    if not is_conflict(exc):
                        raise
            return self._write_once(work)

    def _engine_errors(self) -> AbstractContextManager[None]:
        return store_errors(self._place, busy_timeout_secs=self._busy_timeout_secs)

    def _write_once(self, work: Callable[[Session], _T]) -> _T:
        with Session(self._writer) as session, session.begin():
            return work(session)
