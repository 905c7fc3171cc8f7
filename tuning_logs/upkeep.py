"""Prune a log, count what it holds, copy it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import ColumnElement, Select, delete, func, select, text
from sqlalchemy.orm import Session

from tunewright.core.errors import ConfigError, StoreError
from tunewright.tuning_logs import queries
from tunewright.tuning_logs.engine import journal_mode
from tunewright.tuning_logs.shared_rows import chunks
from tunewright.tuning_logs.store_errors import file_remedy
from tunewright.tuning_logs.summaries import LogStats, PruneReport
from tunewright.tuning_logs.tables import (
    Base,
    FeatureRow,
    MachineRow,
    ModelRow,
    RaceRow,
    SessionRow,
    TargetRow,
    TaskRow,
    TrialRow,
    VerificationRow,
    WorkloadRow,
)

_NUM_MODELS_KEPT = 1


def prune(session: Session, *, num_kept: int, is_dry_run: bool) -> PruneReport:
    """Keep the `num_kept` fastest trials of each task, usable ones first, and the last cost model."""
    doomed = list(session.scalars(_slower_trials(num_kept)))
    models = list(session.scalars(_older_models()))
    num_trials = session.scalar(select(func.count()).select_from(TrialRow)) or 0
    if not is_dry_run:
        for some in chunks(doomed):
            for table in (FeatureRow, RaceRow, VerificationRow):
                session.execute(delete(table).where(table.trial_id.in_(some)))
            session.execute(delete(TrialRow).where(TrialRow.id.in_(some)))
        for some in chunks(models):
            session.execute(delete(ModelRow).where(ModelRow.id.in_(some)))
    return PruneReport(len(doomed), num_trials - len(doomed), len(models))


def _slower_trials(num_kept: int) -> Select[int]:
    is_usable = queries.is_usable(TrialRow)
    order = (is_usable.desc(), TrialRow.ranked_secs.is_(None), TrialRow.ranked_secs, TrialRow.id)
    rank = func.row_number().over(partition_by=TrialRow.task_id, order_by=order).label("rank")
    ranked = select(TrialRow.id, rank).subquery()
    return select(ranked.c.id).where(ranked.c.rank > num_kept)


def _older_models() -> Select[int]:
    rank = func.row_number().over(partition_by=ModelRow.kind, order_by=ModelRow.trained_at.desc())
    ranked = select(ModelRow.id, rank.label("rank")).subquery()
    return select(ranked.c.id).where(ranked.c.rank > _NUM_MODELS_KEPT)


def stats(session: Session, *, schema: str) -> LogStats:
    """Counts of everything; reads indexes where it can."""
    build_secs, wall_secs, first_at, last_at = session.execute(
        select(
            func.coalesce(func.sum(TrialRow.build_secs), 0.0),
            func.coalesce(func.sum(TrialRow.wall_secs), 0.0),
            func.min(TrialRow.finished_at),
            func.max(TrialRow.finished_at),
        )
    ).one()
    return LogStats(
        schema=schema,
        engine=_engine(session),
        size_bytes=_size_bytes(session),
        num_machines=_count(session, MachineRow),
        num_targets=_count(session, TargetRow),
        num_workloads=_count(session, WorkloadRow),
        num_tasks=_count(session, TaskRow),
        num_sessions=_count(session, SessionRow),
        num_trials=_count(session, TrialRow),
        num_usable=_count(session, TrialRow, queries.is_usable(TrialRow)),
        num_quarantined=_count(session, TrialRow, TrialRow.unusable_reason.is_not(None)),
        num_models=_count(session, ModelRow),
        failures=queries.failure_counts(session),
        build_secs=build_secs,
        device_secs=wall_secs - build_secs,
        first_at=first_at,
        last_at=last_at,
    )


def _count(session: Session, table: type[Base], *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0


def _engine(session: Session) -> str:
    if session.get_bind().dialect.name == "postgresql":
        return f"PostgreSQL {session.scalar(text('SHOW server_version'))}"
    return f"SQLite {sqlite3.sqlite_version}, journal mode {journal_mode(sqlite3.sqlite_version_info)}"


def _size_bytes(session: Session) -> int:
    if session.get_bind().dialect.name == "postgresql":
        query = (
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^tw_' AND relkind = 'r'"
        )
    else:
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    return int(session.scalar(text(query)) or 0)


def copy_file(source: Path, target: Path) -> None:
    """A copy of a log that may be in use, whole or not at all.

    Raises:
        ConfigError: something stands there already.
        StoreError: it cannot be read or written.
    """
    if target.exists():
        raise ConfigError(f"{target} exists: name a file that does not")
    partial = target.with_name(target.name + ".part")
    try:
        try:
            partial.unlink(missing_ok=True)
            with (
                closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as reader,
                closing(sqlite3.connect(partial)) as writer,
            ):
                reader.backup(writer)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"the copy {target} of the tuning log {source} {file_remedy(exc)}") from exc
