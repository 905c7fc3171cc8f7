"""Trials read as arrays: only the columns that pictures are drawn from, page by page."""

import json
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Integer, String, and_, case, cast, func, select, true, type_coerce
from sqlalchemy.orm import Session

from tunewright.core.trial_columns import (
    FAILURE_KINDS,
    ORIGINS,
    SUCCEEDED,
    Floats,
    TrialColumns,
    encoded,
)
from tunewright.core.types import FailureKind, TaskKey
from tunewright.tuning_logs import queries
from tunewright.tuning_logs.shared_rows import SharedRows, chunks
from tunewright.tuning_logs.tables import RaceRow, TaskRow, TrialRow
from tunewright.tuning_logs.trial_facts import TrialFacts

Reading = Callable[[], AbstractContextManager[Session]]

# A page is one transaction, over before a writer has waited for long.
PAGE_SIZE = 10_000
# Where a selection is one of so many rows or more, these are read from end to end: faster than row by row.
_MAX_SPREAD = 8


def as_columns(trials: TrialColumns | Iterable[TrialFacts]) -> TrialColumns:
    """The same trials as columns; nothing is copied where they are columns already."""
    if isinstance(trials, TrialColumns):
        return trials
    facts = list(trials)
    task_keys, task = encoded([trial.task_key for trial in facts])
    model_ids, model = encoded([trial.setup.model_id for trial in facts])
    moments = [trial.finished_at.replace(tzinfo=None) for trial in facts]
    return TrialColumns(
        task_keys=task_keys,
        model_ids=model_ids,
        record_id=np.array([trial.record_id for trial in facts], dtype=np.int64),
        task=task,
        model=model,
        origin=np.array([ORIGINS.index(trial.origin) for trial in facts], dtype=np.int64),
        failure=np.array([_failure_code(trial.failure_kind) for trial in facts], dtype=np.int64),
        is_verified=np.array([trial.is_verified for trial in facts], dtype=np.bool_),
        is_in_quarantine=np.array([trial.is_in_quarantine for trial in facts], dtype=np.bool_),
        is_duplicate=np.array([trial.is_duplicate for trial in facts], dtype=np.bool_),
        usable_secs=np.array([trial.usable_secs for trial in facts], dtype=np.float64),
        sample_secs=np.array([_sample_secs(trial) for trial in facts], dtype=np.float64),
        build_secs=np.array([trial.build_secs for trial in facts], dtype=np.float64),
        wall_secs=np.array([trial.wall_secs for trial in facts], dtype=np.float64),
        yardstick_secs=np.array([trial.yardstick_secs for trial in facts], dtype=np.float64),
        predicted_score=np.array([trial.predicted_score for trial in facts], dtype=np.float64),
        finished_at=np.array(moments, dtype="datetime64[us]"),
    )


class Selection(TypedDict, total=False):
    """Which trials: those that meet all that is given."""

    session_id: str
    task_keys: Collection[TaskKey]
    machine_fingerprint: str
    is_usable_only: bool
    before_record_id: int


def read(reading: Reading, shared: SharedRows, selection: Selection) -> TrialColumns:
    """Args: reading: opens a transaction for each page."""
    conditions = _conditions(selection)
    with reading() as session:
        spans = list(_spans(session, conditions))
    # Hidden from the planner: SQLite would take the session's index, and go through its rows in no order.
    is_chosen = case((and_(true(), *conditions), 1), else_=0) == 1
    pages = []
    for span in spans:
        with reading() as session:
            query = select(*_COLUMNS).where(span, is_chosen).order_by(_TRIALS.id)
            # The driver's own tuples: nothing of them is kept.
            cursor = session.connection().execute(query).cursor
            assert cursor is not None, "a SELECT has a cursor"
            rows = cursor.fetchall()
        pages.append(_page(rows))
    columns = {name: np.concatenate([_EMPTY[name], *(page[name] for page in pages)]) for name in _EMPTY}
    with reading() as session:
        _correct_raced(session, is_chosen, columns)
        return _named(session, shared, columns)


def _conditions(selection: Selection) -> list[ColumnElement[bool]]:
    conditions = []
    if "session_id" in selection:
        conditions.append(queries.of_session(selection["session_id"]))
    if "task_keys" in selection:
        of_tasks = select(TaskRow.id).where(TaskRow.task_key.in_(list(selection["task_keys"])))
        conditions.append(TrialRow.task_id.in_(of_tasks))
    if "machine_fingerprint" in selection:
        conditions.append(queries.has_fingerprint(selection["machine_fingerprint"]))
    if selection.get("is_usable_only"):
        conditions.append(queries.is_usable(TrialRow))
    if "before_record_id" in selection:
        conditions.append(TrialRow.id < selection["before_record_id"])
    return conditions


def _spans(session: Session, conditions: Sequence[ColumnElement[bool]]) -> Iterator[ColumnElement[bool]]:
    """Conditions for pages of the selection, one after the other."""
    ends = select(func.min(TrialRow.id), func.max(TrialRow.id), func.count()).where(*conditions)
    first, last, number = session.execute(ends).one()
    if not number:
        return
    if last - first < _MAX_SPREAD * number:
        for begin in range(first, last + 1, PAGE_SIZE):
            yield TrialRow.id.between(begin, min(last, begin + PAGE_SIZE - 1))
        return
    ids = session.scalars(select(TrialRow.id).where(*conditions).order_by(TrialRow.id))
    for some in chunks(ids):
        yield TrialRow.id.in_(some)


def _page(rows: Sequence[Any]) -> dict[str, npt.NDArray[Any]]:
    """Rows of `_COLUMNS` as arrays; tasks and models are numbers of rows as yet."""
    if not rows:
        return _EMPTY
    ids, tasks, setups, origins, failures, flags, ranked, samples, *others = zip(*rows, strict=True)
    builds, walls, yardsticks, scores, moments = others
    flag = np.array(flags, dtype=np.int64)
    is_verified, is_in_quarantine = flag & _VERIFIED != 0, flag & _QUARANTINED != 0
    ranked_secs = np.array(ranked, dtype=np.float64)
    is_usable = is_verified & ~is_in_quarantine
    return {
        "record_id": np.array(ids, dtype=np.int64),
        "task": np.array(tasks, dtype=np.int64),
        "model": np.array(setups, dtype=np.int64),
        "origin": np.fromiter(map(_ORIGIN_CODES.__getitem__, origins), np.int64, len(rows)),
        "failure": np.fromiter(map(_FAILURE_CODES.__getitem__, failures), np.int64, len(rows)),
        "is_verified": is_verified,
        "is_in_quarantine": is_in_quarantine,
        "is_duplicate": flag & _DUPLICATE != 0,
        "usable_secs": np.where(is_usable, ranked_secs, np.nan),
        "sample_secs": np.where(np.isnan(ranked_secs), _medians(samples), ranked_secs),
        "build_secs": np.array(builds, dtype=np.float64),
        "wall_secs": np.array(walls, dtype=np.float64),
        "yardstick_secs": np.array(yardsticks, dtype=np.float64),
        "predicted_score": np.array(scores, dtype=np.float64),
        "finished_at": np.array(moments, dtype="datetime64[us]"),
    }


def _medians(samples_json: Sequence[str | None]) -> Floats:
    """Of the samples of each row, NaN where there are none."""
    given = [index for index, text in enumerate(samples_json) if text is not None]
    medians = np.full(len(samples_json), np.nan)
    # One text is parsed in a quarter of the time that thousands of short ones take.
    parsed = json.loads(f"[{','.join(samples_json[index] or '' for index in given)}]")
    medians[given] = [statistics.median(samples) if samples else np.nan for samples in parsed]
    return medians


def _correct_raced(
    session: Session, is_chosen: ColumnElement[bool], columns: dict[str, npt.NDArray[Any]]
) -> None:
    """Of the few that were raced, what they rank by is not the median of their own samples."""
    raced = TrialRow.id.in_(select(RaceRow.trial_id))
    rows = session.execute(select(TrialRow.id, TrialRow.run_secs_json).where(raced, is_chosen)).all()
    if rows:
        ids, samples = zip(*rows, strict=True)
        places = np.searchsorted(columns["record_id"], ids)
        # A session may be adding some right now.
        is_known = np.isin(ids, columns["record_id"])
        columns["sample_secs"][places[is_known]] = _medians(samples)[is_known]


def _named(session: Session, shared: SharedRows, columns: dict[str, npt.NDArray[Any]]) -> TrialColumns:
    """With places in the names of tasks and models in place of numbers of rows."""
    task_ids, columns["task"] = np.unique(columns["task"], return_inverse=True)
    keys: dict[int, TaskKey] = {}
    for some in chunks(task_ids.tolist()):
        query = select(TaskRow.id, TaskRow.task_key).where(TaskRow.id.in_(some))
        keys |= {row_id: TaskKey(key) for row_id, key in session.execute(query)}
    setup_ids, setups = np.unique(columns["model"], return_inverse=True)
    known = shared.setups(session, setup_ids.tolist())
    model_ids, codes = encoded([known[row_id].model_id for row_id in setup_ids.tolist()])
    columns["model"] = codes[setups]
    return TrialColumns(tuple(keys[row_id] for row_id in task_ids.tolist()), model_ids, **columns)


def _failure_code(kind: FailureKind | None) -> int:
    return SUCCEEDED if kind is None else FAILURE_KINDS.index(kind)


def _sample_secs(trial: TrialFacts) -> float | None:
    has_time = trial.failure_kind in (None, FailureKind.PRUNED) and trial.run_secs
    return statistics.median(trial.run_secs) if has_time else None


_VERIFIED, _QUARANTINED, _DUPLICATE = 1, 2, 4
_TRIALS: Any = TrialRow.__table__.c
_COLUMNS: tuple[Any, ...] = (
    *(_TRIALS.id, _TRIALS.task_id, _TRIALS.setup_id, _TRIALS.origin, _TRIALS.failure_kind),
    # One small number in place of three: half of the time goes by the number of values.
    cast(_TRIALS.is_verified, Integer) * _VERIFIED
    + cast(_TRIALS.unusable_reason.is_not(None), Integer) * _QUARANTINED
    + cast(_TRIALS.is_duplicate, Integer) * _DUPLICATE,
    _TRIALS.ranked_secs,
    case((_TRIALS.failure_kind == FailureKind.PRUNED.value, _TRIALS.run_secs_json), else_=None),
    *(_TRIALS.build_secs, _TRIALS.wall_secs, _TRIALS.yardstick_secs, _TRIALS.predicted_score),
    # As the database has it: text, or a naive datetime. NumPy takes both, without a call for each.
    type_coerce(_TRIALS.finished_at, String),
)
_ORIGIN_CODES = {origin.value: code for code, origin in enumerate(ORIGINS)}
_FAILURE_CODES: dict[str | None, int] = {
    None: SUCCEEDED,
    **{kind.value: code for code, kind in enumerate(FAILURE_KINDS)},
}
_EMPTY: dict[str, npt.NDArray[Any]] = {
    **{name: np.empty(0, np.int64) for name in ("record_id", "task", "model", "origin", "failure")},
    **{name: np.empty(0, np.bool_) for name in ("is_verified", "is_in_quarantine", "is_duplicate")},
    **{name: np.empty(0) for name in ("usable_secs", "sample_secs", "build_secs", "wall_secs")},
    **{name: np.empty(0) for name in ("yardstick_secs", "predicted_score")},
    "finished_at": np.empty(0, "datetime64[us]"),
}
