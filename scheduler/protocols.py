"""What a tuning session needs of its parts, which `workers`, `tuning_logs` and `cost_model` provide."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from tunewright.core.types import (
    AppliedCandidate,
    FloatArray,
    MachineInfo,
    MeasureInput,
    MeasureResult,
    ModelSnapshot,
    Prediction,
    RecordedTrial,
    SessionInfo,
    TaskKey,
    TuningRecord,
    TuningTask,
)


class MeasureStats(Protocol):
    """Cumulative wall seconds that a measurer spent, split in two."""

    @property
    def build_wall_secs(self) -> float: ...

    @property
    def run_wall_secs(self) -> float: ...


class Measurer(Protocol):
    """Builds and times candidates elsewhere; a candidate that fails is a result, never an exception.

    Raises:
        WorkerUnavailableError: no worker answers any more.
    """

    @property
    def machine(self) -> MachineInfo: ...

    @property
    def stats(self) -> MeasureStats: ...

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """Exactly one result per input, in order."""
        ...

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        """Time all inputs again, interleaved in random order: `rounds` samples each.

        Those far behind may get fewer, but for the first, which the others are compared with.
        """
        ...


class SessionState(Protocol):
    """What the store knows of a session that is starting."""

    @property
    def num_trials(self) -> int: ...

    @property
    def elapsed_secs(self) -> float: ...

    @property
    def is_new(self) -> bool: ...


class RankedTrial(Protocol):
    """A verified success in the order of the store's ranking; `secs` per call, from its race if it raced."""

    @property
    def trial(self) -> RecordedTrial: ...

    @property
    def secs(self) -> float: ...

    @property
    def is_raced(self) -> bool: ...


class RecordStore(Protocol):
    """The tuning log as a session uses it; what is returned from `append` is committed."""

    def add_tasks(self, tasks: Sequence[TuningTask]) -> None: ...

    def start_session(self, info: SessionInfo) -> SessionState: ...

    def append(self, trials: Sequence[tuple[TuningRecord, FloatArray | None]]) -> list[RecordedTrial]: ...

    def add_elapsed(self, session_id: str, secs: float) -> None: ...

    def trials(
        self, task_key: TaskKey, *, machine_fingerprint: str | None = None, with_features: bool = False
    ) -> list[RecordedTrial]: ...

    def training_trials(self, *, mcpu: str | None, limit: int) -> list[RecordedTrial]: ...

    def count_trials(self, session_id: str) -> Mapping[TaskKey, int]: ...

    def add_race(
        self, record_id: int, run_secs: Sequence[float], raced_at: datetime, *, is_verified: bool = False
    ) -> None: ...

    def best(
        self, task_key: TaskKey, *, k: int = 1, machine_fingerprint: str | None = None
    ) -> Sequence[RankedTrial]: ...

    def best_of_all_tasks(self, *, mcpu: str, k: int) -> Mapping[TaskKey, Sequence[RankedTrial]]: ...

    def mark_unusable(self, record_id: int, reason: str) -> None: ...

    def save_model(self, snapshot: ModelSnapshot) -> None: ...


class LearnedModel(Protocol):
    """The cost model as the session drives it; strategies only predict with it."""

    @property
    def is_fitted(self) -> bool: ...

    def fit_trials(self, trials: Sequence[RecordedTrial]) -> ModelSnapshot:
        """Forget the last such call, learn from trials, failures included."""
        ...

    def online_accuracy(self, trials: Sequence[RecordedTrial]) -> float | None:
        """Pairwise accuracy of the scores that trials had before they were measured; None for too few."""
        ...

    def predict(self, candidates: Sequence[AppliedCandidate]) -> Prediction: ...
