"""What tables and pictures are made of: trials without their schedules and features, which take most of the
bytes of a log, and most of the time to read it.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from tunewright.core.types import CandidateKey, FailureKind, MachineInfo, Origin, TaskKey
from tunewright.tuning_logs import codec
from tunewright.tuning_logs.shared_rows import SharedRows, chunks
from tunewright.tuning_logs.tables import SessionRow, TaskRow, TrialRow

# A page is one transaction, over before anybody waits for it; larger ones take longer for garbage collection.
PAGE_SIZE = 2_000


# A named tuple is made in a third of the time that a frozen dataclass of so many fields takes.
class TrialFacts(NamedTuple):
    """A trial without its schedule and features, and what became of it since.

    `failure_kind` and `message` are None of a success. `ranked_secs` per call is the median of its newest
    race, else of its samples; None of a failure. `steal_ratio` is None of a failure, and where an old log has
    none. `setup` has what the trials of a batch share. All else is as in `TuningRecord` and `MeasureResult`.
    """

    session_id: str
    task_key: TaskKey
    machine: MachineInfo
    setup: codec.Setup
    origin: Origin
    failure_kind: FailureKind | None
    record_id: int
    trial_index: int
    candidate_key: CandidateKey
    parent_key: CandidateKey | None
    message: str | None
    run_secs_json: str
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


def pages(
    reading: Callable[[], AbstractContextManager[Session]],
    shared: SharedRows,
    conditions: Sequence[ColumnElement[bool]],
) -> Iterator[TrialFacts]:
    """The trials that meet all conditions, oldest first; `reading` opens a transaction for each page."""
    with reading() as session:
        # From an index alone where there is one.
        ids = list(session.scalars(select(TrialRow.id).where(*conditions).order_by(TrialRow.id)))
    for some in chunks(ids, PAGE_SIZE):
        with reading() as session:
            page = read(session, shared, some)
        yield from page


def read(session: Session, shared: SharedRows, ids: Sequence[int]) -> list[TrialFacts]:
    """Those of the trials that still exist, oldest first."""
    rows = session.execute(select(*_COLUMNS).where(_TRIALS.id.in_(ids)).order_by(_TRIALS.id)).all()
    session_ids, task_ids, machine_ids, setup_ids = ({row[column] for row in rows} for column in range(4))
    of_sessions = select(SessionRow.id, SessionRow.session_id).where(SessionRow.id.in_(session_ids))
    of_tasks = select(TaskRow.id, TaskRow.task_key).where(TaskRow.id.in_(task_ids))
    sessions = {row_id: session_id for row_id, session_id in session.execute(of_sessions)}
    tasks = {row_id: task_key for row_id, task_key in session.execute(of_tasks)}
    machines, setups = shared.machines(session, machine_ids), shared.setups(session, setup_ids)
    return [
        TrialFacts._make(
            (
                sessions[of],
                tasks[task],
                machines[machine],
                setups[setup],
                _ORIGINS[origin],
                _KINDS[kind],
                *own,
            )
        )
        for of, task, machine, setup, origin, kind, *own in rows
    ]


_TRIALS: Any = TrialRow.__table__.c
# In the order of the fields of `TrialFacts`. A picture may need a hundred thousand rows: by name, through the
# object-relational mapper and with joins, they take twice as long.
_COLUMNS: tuple[Any, ...] = (
    *(_TRIALS.session_id, _TRIALS.task_id, _TRIALS.machine_id, _TRIALS.setup_id, _TRIALS.origin),
    *(_TRIALS.failure_kind, _TRIALS.id, _TRIALS.trial_index, _TRIALS.candidate_key, _TRIALS.parent_key),
    *(_TRIALS.failure_message, _TRIALS.run_secs_json, _TRIALS.ranked_secs, _TRIALS.is_verified),
    *(_TRIALS.unusable_reason.is_not(None), _TRIALS.is_duplicate, _TRIALS.is_noisy, _TRIALS.build_secs),
    *(_TRIALS.wall_secs, _TRIALS.steal_ratio, _TRIALS.yardstick_secs, _TRIALS.predicted_score),
    _TRIALS.finished_at,
)
_ORIGINS = {origin.value: origin for origin in Origin}
_KINDS: dict[str | None, FailureKind | None] = {None: None, **{kind.value: kind for kind in FailureKind}}
