"""What queries of the tuning log return beyond the shared vocabulary; all frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunewright.core.types import (
    FailureKind,
    MachineInfo,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    TensorSpec,
    WorkloadKey,
)


@dataclass(frozen=True, slots=True)
class SessionState:
    """How far a session was when it was started or continued. `elapsed_secs`: tuning time spent before."""

    num_trials: int
    elapsed_secs: float
    is_new: bool


@dataclass(frozen=True, slots=True)
class RankedTrial:
    """A verified success. `secs` per call is the median of its newest race where `is_raced`, else its own."""

    trial: RecordedTrial
    secs: float
    is_raced: bool


@dataclass(frozen=True, slots=True)
class StoredCandidate:
    """A trial of a candidate that was asked for, whatever came of it.

    `secs` is what it ranks by, None of a failure; `unusable_reason` says why it is in quarantine, if it is.
    """

    trial: RecordedTrial
    secs: float | None
    unusable_reason: str | None


@dataclass(frozen=True, slots=True)
class Race:
    """Samples, mean seconds per call each, of one interleaved race against the task's other contenders."""

    run_secs: tuple[float, ...]
    raced_at: datetime


@dataclass(frozen=True, slots=True)
class Verification:
    """One time that a record was replayed and its outputs were compared again.

    `failure_kind` and `message` are None where they were right; `machine` says with which software.
    """

    machine: MachineInfo
    failure_kind: FailureKind | None
    message: str | None
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What came into a log from another; `num_known` trials were there already."""

    num_tasks: int
    num_sessions: int
    num_trials: int
    num_known: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning deleted, or would delete."""

    num_trials: int
    num_kept: int
    num_models: int


@dataclass(frozen=True, slots=True)
class LogStats:
    """How much a log holds. `device_secs`: what running candidates took, building not included."""

    schema: str
    engine: str
    size_bytes: int
    num_machines: int
    num_targets: int
    num_workloads: int
    num_tasks: int
    num_sessions: int
    num_trials: int
    num_usable: int
    num_quarantined: int
    num_models: int
    failures: Mapping[FailureKind, int]
    build_secs: float
    device_secs: float
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredSuccess:
    """As much of a timed trial as tells whether to verify it. `secs` per call is what it ranks by.

    `may_return`: it is in quarantine, and leaves it when its outputs are found right. `is_checked`: the
    software that asks has given its verdict on it.
    """

    record_id: int
    secs: float
    is_verified: bool
    is_duplicate: bool
    is_in_quarantine: bool
    may_return: bool
    is_checked: bool


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One tuning session and how much it has measured."""

    session_id: str
    model_name: str
    target: TargetSpec
    strategy: str
    seed: int
    machine_fingerprint: str
    created_at: datetime
    elapsed_secs: float
    num_tasks: int
    num_trials: int


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task and how much is known about it, over all sessions and machines.

    `num_failed` counts trials without a time; pruned ones are counted apart. `best_secs` is that of the best
    usable trial: verified and not in quarantine.
    """

    task_key: TaskKey
    workload_key: WorkloadKey
    name: str
    args: tuple[TensorSpec, ...]
    target: TargetSpec
    flop: float
    num_trials: int
    num_failed: int
    num_pruned: int
    num_usable: int
    best_secs: float | None

    @property
    def best_gflops(self) -> float | None:
        """GFLOP/s of the best usable trial."""
        return None if self.best_secs is None else self.flop / self.best_secs / 1e9
