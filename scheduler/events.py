"""What a tuning session tells whoever watches it: a terminal, a log file, a program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.core.types import CandidateKey, FailureKind, TaskKey


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task at one moment. `default_secs` and `best_secs` are per call, None until measured."""

    key: TaskKey
    name: str
    weight: int
    flop: float
    num_trials: int
    num_failures: int
    default_secs: float | None
    best_secs: float | None
    is_done: bool

    @property
    def best_gflops(self) -> float | None:
        return self.flop / self.best_secs / 1e9 if self.best_secs else None


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A session at one moment.

    `latency_secs`: sum over tasks of weight x best seconds; None until every task has a time.
    `remaining_secs`: estimate from the budget, None where the budget does not tell.
    """

    tasks: Sequence[TaskStatus]
    num_trials: int
    num_resumed: int
    elapsed_secs: float
    latency_secs: float | None
    default_latency_secs: float | None
    remaining_secs: float | None


@dataclass(frozen=True, slots=True)
class SessionStarted:
    session_id: str
    is_resumed: bool
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class DefaultsMeasured:
    """The default schedules of some tasks are in the log, candidate 0 of each. `failures` counts by kind."""

    num_measured: int
    failures: Mapping[FailureKind, int]
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class BatchMeasured:
    """A batch of one task is in the log. `failures` counts by kind, pruned candidates included."""

    task_name: str
    task_key: TaskKey
    num_measured: int
    failures: Mapping[FailureKind, int]
    improved_secs: float | None
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class ModelRefit:
    """The cost model has learnt from all trials so far."""

    model_id: str
    num_records: int


@dataclass(frozen=True, slots=True)
class RaceFinished:
    """The best candidates of a task were timed again, interleaved."""

    task_name: str
    task_key: TaskKey
    winner: CandidateKey
    winner_secs: float
    num_raced: int


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Wall seconds of a session by what it was doing; `other` is the rest."""

    search_secs: float
    build_secs: float
    run_secs: float
    log_secs: float
    model_secs: float
    total_secs: float

    @property
    def other_secs(self) -> float:
        known = self.search_secs + self.build_secs + self.run_secs + self.log_secs + self.model_secs
        return max(0.0, self.total_secs - known)

    @property
    def overhead_ratio(self) -> float:
        """Share of the wall time outside building and running, in [0, 1]."""
        if self.total_secs <= 0:
            return 0.0
        return max(0.0, 1.0 - (self.build_secs + self.run_secs) / self.total_secs)


@dataclass(frozen=True, slots=True)
class SessionFinished:
    """`reason`: why it ended, for people. `num_new_trials` excludes what an earlier run recorded.

    `model_accuracy`: share of the pairs of trials whose order the cost model knew before they were measured,
    earlier runs of the session included; None where it chose too few.
    """

    session_id: str
    reason: str
    num_new_trials: int
    split: TimeSplit
    model_accuracy: float | None
    status: SessionStatus


SessionEvent = SessionStarted | DefaultsMeasured | BatchMeasured | ModelRefit | RaceFinished | SessionFinished
