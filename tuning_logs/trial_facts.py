"""What tables and pictures are made of: trials without their schedules and features, which take most of the
bytes of a log, and most of the time to read it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tunewright.core.types import CandidateKey, FailureKind, MachineInfo, Origin, TaskKey
from tunewright.tuning_logs import codec
from tunewright.tuning_logs.shared_rows import SharedRows
from tunewright.tuning_logs.tables import SessionRow, TaskRow, TrialRow

# A page is one transaction: it should end before anybody waits for it.
PAGE_SIZE = 5_000


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """A trial without its schedule and features, and what became of it since.

    `failure_kind` and `message` are None of a success. `ranked_secs` per call is the median of its newest
    race, else of its samples; None of a failure. `steal_ratio` is None of a failure, and where an old log has
    none. `setup` has what the trials of a batch share. All else is as in `TuningRecord` and `MeasureResult`.
    """

    record_id: int
    session_id: str
    task_key: TaskKey
    trial_index: int
    candidate_key: CandidateKey
    parent_key: CandidateKey | None
    origin: Origin
    failure_kind: FailureKind | None
    message: str | None
    run_secs_json: str = field(repr=False)
    ranked_secs: float | None
    is_verified: bool
    is_in_quarantine: bool
    is_duplicate: bool
    is_noisy: bool
    build_secs: float
    wall_secs: float
    steal_ratio: float | None
    yardstick_secs: float | None
    predicted_score: float | None
    finished_at: datetime
    machine: MachineInfo
    setup: codec.Setup

    @property
    def status(self) -> str:
        """ "ok" or the kind of failure."""
        return "ok" if self.failure_kind is None else self.failure_kind.value

    @property
    def usable_secs(self) -> float | None:
        """Seconds per call where this trial may be called best: verified, and not in quarantine."""
        return self.ranked_secs if self.is_verified and not self.is_in_quarantine else None

    @property
    def run_secs(self) -> tuple[float, ...]:
        """The raw samples; of a pruned candidate the censored one."""
        return codec.samples_from_json(self.run_secs_json)

    @property
    def median_secs(self) -> float | None:
        """Of its own samples, whatever its races said; None of a failure."""
        return None if self.failure_kind is not None else statistics.median(self.run_secs)

    @property
    def min_secs(self) -> float | None:
        """The shortest sample; None of a failure."""
        return None if self.failure_kind is not None else min(self.run_secs)

    @property
    def device_secs(self) -> float:
        """What running took beside building: 0 where the candidate was not run."""
        return self.wall_secs - self.build_secs


def ids(session: Session, *conditions: ColumnElement[bool]) -> list[int]:
    """Of the trials that meet all conditions, oldest first; from an index alone where there is one."""
    return list(session.scalars(select(TrialRow.id).where(*conditions).order_by(TrialRow.id)))


def read(session: Session, shared: SharedRows, ids: Sequence[int]) -> list[TrialFacts]:
    """Those of the trials that still exist, oldest first."""
    rows = session.execute(select(*_COLUMNS).where(_TRIALS.id.in_(ids)).order_by(_TRIALS.id)).all()
    session_row_ids, task_row_ids, machine_ids, setup_ids = (
        {row[column] for row in rows} for column in (1, 2, -2, -1)
    )
    sessions = session.execute(
        select(SessionRow.id, SessionRow.session_id).where(SessionRow.id.in_(session_row_ids))
    )
    tasks = session.execute(select(TaskRow.id, TaskRow.task_key).where(TaskRow.id.in_(task_row_ids)))
    references = _References(
        {row_id: session_id for row_id, session_id in sessions},
        {row_id: TaskKey(task_key) for row_id, task_key in tasks},
        shared.machines(session, machine_ids),
        shared.setups(session, setup_ids),
    )
    return [_facts(row, references) for row in rows]


_TRIALS: Any = TrialRow.__table__.c
# In the order of the fields of `TrialFacts`. One picture may need a hundred thousand rows: by name, through
# the object-relational mapper and with joins, they take twice as long.
_COLUMNS: tuple[Any, ...] = (
    *(_TRIALS.id, _TRIALS.session_id, _TRIALS.task_id, _TRIALS.trial_index, _TRIALS.candidate_key),
    *(_TRIALS.parent_key, _TRIALS.origin, _TRIALS.failure_kind, _TRIALS.failure_message),
    *(_TRIALS.run_secs_json, _TRIALS.ranked_secs, _TRIALS.is_verified),
    *(_TRIALS.unusable_reason.is_not(None), _TRIALS.is_duplicate, _TRIALS.is_noisy, _TRIALS.build_secs),
    *(_TRIALS.wall_secs, _TRIALS.steal_ratio, _TRIALS.yardstick_secs, _TRIALS.predicted_score),
    *(_TRIALS.finished_at, _TRIALS.machine_id, _TRIALS.setup_id),
)
_ORIGINS = {origin.value: origin for origin in Origin}
_KINDS = {kind.value: kind for kind in FailureKind}


@dataclass(frozen=True, slots=True)
class _References:
    """What trials refer to, by row id."""

    sessions: Mapping[int, str]
    tasks: Mapping[int, TaskKey]
    machines: Mapping[int, MachineInfo]
    setups: Mapping[int, codec.Setup]


def _facts(row: Any, to: _References) -> TrialFacts:
    record_id, session_id, task_id, index, key, parent, origin, kind, message, *rest, machine, setup = row
    values: tuple[Any, ...] = (
        *(record_id, to.sessions[session_id], to.tasks[task_id], index, key, parent, _ORIGINS[origin]),
        *(None if kind is None else _KINDS[kind], message, *rest, to.machines[machine], to.setups[setup]),
    )
    return TrialFacts(*values)
