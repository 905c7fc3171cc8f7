"""Stored records whose outputs were compared again: what came out, and what it means for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewright.core.errors import StoreError
from tunewright.core.types import FailureKind, MachineInfo, MeasureFailure, TaskKey
from tunewright.tuning_logs import queries, shared_rows
from tunewright.tuning_logs.matching import software
from tunewright.tuning_logs.shared_rows import SharedRows
from tunewright.tuning_logs.summaries import StoredSuccess, Verification
from tunewright.tuning_logs.tables import MachineRow, TrialRow, VerificationRow

# The program ran and did wrong: once is enough, whatever other software makes of the same schedule.
_CONVICTING = (FailureKind.WRONG_RESULT, FailureKind.RUN)
# Nothing ran: software that can build it may show that it is right.
_UNBUILDABLE = (FailureKind.REPLAY, FailureKind.INVALID, FailureKind.BUILD)
# All other kinds (time-outs, memory, lost workers) tell of the machine and the moment, not of the record.
_VERDICTS = (*_CONVICTING, *_UNBUILDABLE)
# What the reasons of our own quarantines begin with. Those of others are never lifted.
_PREFIX = "verification failed: "


def add(
    session: Session,
    record_id: int,
    machine: MachineInfo,
    failure: MeasureFailure | None,
    verified_at: datetime,
) -> str | None:
    """Store it, do to the record what follows from it, and return why that is in quarantine now, if it is."""
    row = queries.trial_row(session, record_id)
    session.refresh(row, with_for_update=True)
    if row.failure_kind is not None:
        raise StoreError(
            f"record {record_id} failed ({row.failure_kind}): only a timed one can be verified again"
        )
    machine_id = shared_rows.machine_ids(session, [machine])[machine]
    session.add(
        VerificationRow(
            trial_id=record_id,
            machine_id=machine_id,
            failure_kind=None if failure is None else failure.kind.value,
            message=None if failure is None else failure.message,
            verified_at=verified_at,
        )
    )
    session.flush()
    kinds = session.scalars(
        select(VerificationRow.failure_kind).where(VerificationRow.trial_id == record_id)
    ).all()
    if failure is None:
        row.is_verified, row.verified_machine_id = True, machine_id
        if _may_return(row.unusable_reason, kinds):
            row.unusable_reason = None
    elif failure.kind in _VERDICTS and (row.unusable_reason or _PREFIX).startswith(_PREFIX):
        row.unusable_reason = _reason(failure, machine)
    return row.unusable_reason


def of_records(
    session: Session, shared: SharedRows, record_ids: Sequence[int]
) -> dict[int, list[Verification]]:
    """Of each record, oldest first."""
    query = select(VerificationRow).where(VerificationRow.trial_id.in_(record_ids))
    rows = session.scalars(query.order_by(VerificationRow.id)).all()
    machines = shared.machines(session, {row.machine_id for row in rows})
    found: dict[int, list[Verification]] = {record_id: [] for record_id in record_ids}
    for row in rows:
        kind = None if row.failure_kind is None else FailureKind(row.failure_kind)
        found[row.trial_id].append(Verification(machines[row.machine_id], kind, row.message, row.verified_at))
    return found


def successes(session: Session, task_key: TaskKey, machine: MachineInfo) -> list[StoredSuccess]:
    """The timed trials of a task, fastest first."""
    like_here = _with_software_of(session, machine)
    columns = (VerificationRow.trial_id, VerificationRow.machine_id, VerificationRow.failure_kind)
    query = select(*columns).join(TrialRow, TrialRow.id == VerificationRow.trial_id)
    checks: dict[int, list[_Check]] = {}
    is_timed = (queries.of_task(task_key), TrialRow.failure_kind.is_(None))
    for row in session.execute(query.where(*is_timed).order_by(VerificationRow.id)):
        kind = None if row.failure_kind is None else FailureKind(row.failure_kind)
        checks.setdefault(row.trial_id, []).append(_Check(row.machine_id in like_here, kind))
    trials = select(
        TrialRow.id,
        TrialRow.ranked_secs,
        TrialRow.is_verified,
        TrialRow.is_duplicate,
        TrialRow.unusable_reason,
        TrialRow.verified_machine_id,
    ).where(*is_timed)
    return [
        StoredSuccess(
            record_id=row.id,
            secs=row.ranked_secs,
            is_verified=row.is_verified,
            is_duplicate=row.is_duplicate,
            is_in_quarantine=row.unusable_reason is not None,
            may_return=_may_return(row.unusable_reason, [check.kind for check in known]),
            is_checked=_is_checked(
                known,
                is_verified_here=row.verified_machine_id in like_here,
                is_in_quarantine=row.unusable_reason is not None,
            ),
        )
        for row in session.execute(trials.order_by(TrialRow.ranked_secs, TrialRow.id))
        for known in (checks.get(row.id, []),)
    ]


@dataclass(frozen=True, slots=True)
class _Check:
    """One verification; `kind` is None where the outputs were right."""

    is_here: bool  # with the software that asks
    kind: FailureKind | None


def _may_return(reason: str | None, kinds: Iterable[str | None]) -> bool:
    """Whether outputs that are right end a quarantine: one of our own, of what never ran and did wrong."""
    is_ours = reason is not None and reason.startswith(_PREFIX)
    return is_ours and not any(kind in _CONVICTING for kind in kinds)


def _is_checked(checks: Sequence[_Check], *, is_verified_here: bool, is_in_quarantine: bool) -> bool:
    """Whether this software has given its verdict, and there is nothing to win by asking it again."""
    verdicts = [check for check in checks if check.kind is None or check.kind in _VERDICTS]
    if is_in_quarantine:  # by whom? Only if it was other software, this one may lift it
        return bool(verdicts) and verdicts[-1].is_here
    return is_verified_here or any(check.is_here for check in verdicts)


def _reason(failure: MeasureFailure, machine: MachineInfo) -> str:
    tvm, tvm_ffi, llvm = software(machine)
    return f"{_PREFIX}{failure.kind} with TVM {tvm}, tvm-ffi {tvm_ffi}, LLVM {llvm}: {failure.message}"


def _with_software_of(session: Session, machine: MachineInfo) -> frozenset[int]:
    columns = (MachineRow.tvm_version, MachineRow.tvm_ffi_version, MachineRow.llvm_version)
    query = select(MachineRow.id)
    for column, version in zip(columns, software(machine), strict=True):
        query = query.where(column == version)
    return frozenset(session.scalars(query))
