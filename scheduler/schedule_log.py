"""What compiling, explaining and locking read of the tuning log, which `tuning_logs` provides."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunewright.core.types import (
    CandidateKey,
    FailureKind,
    MachineInfo,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    TensorSpec,
    WorkloadKey,
)


class Match(Protocol):
    """Whose records may be used: "exact", "compatible" or "any", as seen from a machine and its software."""

    @property
    def policy(self) -> str: ...

    @property
    def machine(self) -> MachineInfo: ...


class RankedRecord(Protocol):
    """A verified success of the log; `secs` per call is what it is ranked by."""

    @property
    def trial(self) -> RecordedTrial: ...

    @property
    def secs(self) -> float: ...


class StoredCandidate(Protocol):
    """One trial of a candidate. `secs` is None of a failure, `unusable_reason` outside of quarantine."""

    @property
    def trial(self) -> RecordedTrial: ...

    @property
    def secs(self) -> float | None: ...

    @property
    def unusable_reason(self) -> str | None: ...


class KnownTask(Protocol):
    """A task of the log; `best_secs` is that of its best usable trial."""

    @property
    def task_key(self) -> TaskKey: ...

    @property
    def name(self) -> str: ...

    @property
    def args(self) -> tuple[TensorSpec, ...]: ...

    @property
    def target(self) -> TargetSpec: ...

    @property
    def num_trials(self) -> int: ...

    @property
    def num_failed(self) -> int: ...

    @property
    def num_pruned(self) -> int: ...

    @property
    def num_usable(self) -> int: ...

    @property
    def best_secs(self) -> float | None: ...


class ScheduleLog(Protocol):
    """The log as a reader of schedules sees it. A `match` is handed over as it came."""

    def best_many(
        self, task_keys: Sequence[TaskKey], k: int = 1, *, match: Any = None
    ) -> Mapping[TaskKey, Sequence[RankedRecord]]: ...

    def near_misses(self, workload_key: WorkloadKey) -> Sequence[KnownTask]: ...

    def tasks(self) -> Sequence[KnownTask]: ...

    def failure_counts(self, *, task_key: TaskKey) -> Mapping[FailureKind, int]: ...

    def quarantine_counts(self, task_key: TaskKey) -> Mapping[str, int]: ...

    def trials_of_candidates(
        self, candidates: Mapping[TaskKey, CandidateKey]
    ) -> Mapping[TaskKey, Sequence[StoredCandidate]]: ...
