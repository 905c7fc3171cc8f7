"""One task of a running session: what has been measured of it, and how that looks to others."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunewright.core.types import (
    Candidate,
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TuningTask,
    calibrated_secs,
)
from tunewright.scheduler.events import TaskStatus
from tunewright.scheduler.task_scheduler import TaskProgress
from tunewright.search.decisions import has_decisions
from tunewright.search.stopping import is_stalled
from tunewright.search.strategy import SearchStrategy

# The more trials, the more of them are within the noise of the best.
_TRIALS_PER_ENTRANT = 16
_MIN_ENTRANTS = 3
_MAX_ENTRANTS = 8
_ENTRANT_SLOWDOWN = 1.2
# Of earlier races, to tell how fast the machine is in the next one: with the default schedule three, for one
# kernel in two processes may well differ.
_NUM_ANCHORS = 2


@dataclass(frozen=True, slots=True)
class SessionTask:
    """A task with the two things its search needs: its strategy and its default schedule's candidate."""

    task: TuningTask
    strategy: SearchStrategy
    default: Candidate


@dataclass(slots=True)
class TaskState:
    """Grows by `add`. `best_curve`: best verified seconds after each trial, infinite until there is one."""

    entry: SessionTask
    best_curve: list[float] = field(default_factory=list)
    timed: list[RecordedTrial] = field(default_factory=list)  # those that ran to the end
    num_failures: int = 0
    num_trials_of_session: int = 0
    has_default: bool = False
    default: RecordedTrial | None = None  # where it is right
    default_secs: float | None = None
    raced: dict[int, tuple[RecordedTrial, float]] = field(default_factory=dict)  # newest times
    raced_secs: float | None = None
    is_exhausted: bool = False

    @property
    def best_secs(self) -> float:
        return self.best_curve[-1] if self.best_curve else float("inf")

    def add(self, trials: Sequence[RecordedTrial]) -> None:
        """Learn of recorded trials of this task, old or new, and tell its strategy."""
        for trial in trials:
            result, best = trial.record.result, self.best_secs
            is_default = trial.record.candidate.key == self.entry.default.key
            self.has_default |= is_default
            if isinstance(result, MeasureSuccess) and result.is_verified:
                best = min(best, result.median_secs)
                if is_default:
                    self.default, self.default_secs = trial, result.median_secs
            if isinstance(result, MeasureSuccess) and not result.is_duplicate:
                self.timed.append(trial)
            if isinstance(result, MeasureFailure) and result.kind is not FailureKind.PRUNED:
                self.num_failures += 1
            self.best_curve.append(best)
        self.entry.strategy.tell(list(filter(_is_point, trials)))

    def incumbent(self) -> MeasureSuccess | None:
        """The fastest verified result, as if the machine had been equally fast for all of them."""
        results = [trial.record.result for trial in self.timed]
        verified = [r for r in results if isinstance(r, MeasureSuccess) and r.is_verified]
        secs = calibrated_secs(verified)
        return verified[secs.index(min(secs))] if verified else None

    def race_entrants(self) -> list[RecordedTrial]:
        """The default schedule, which the others are compared with, and those that may be the fastest.

        Those are verified or not, by the measure of `incumbent`.
        """
        secs = calibrated_secs([trial.record.result for trial in self.timed])
        order = sorted(range(len(secs)), key=secs.__getitem__)
        size = min(_MAX_ENTRANTS, max(_MIN_ENTRANTS, len(self.best_curve) // _TRIALS_PER_ENTRANT))
        fastest = [
            self.timed[index] for index in order[:size] if secs[index] <= _ENTRANT_SLOWDOWN * secs[order[0]]
        ]
        return self.beside_default(fastest)

    def beside_default(self, trials: Sequence[RecordedTrial]) -> list[RecordedTrial]:
        """The default schedule first, if it runs: its speed in the same race tells what has been gained."""
        if self.default is None:
            return list(trials)
        default_id = self.default.record_id
        return [self.default] + [trial for trial in trials if trial.record_id != default_id]

    def race_again(self, leaders: Sequence[RecordedTrial]) -> list[RecordedTrial]:
        """Who races once more: those whom the log ranks first, beside the fastest of the races so far."""
        fastest = sorted(self.raced.values(), key=lambda item: item[1])[:_NUM_ANCHORS]
        entrants = {trial.record_id: trial for trial in [*(trial for trial, _ in fastest), *leaders]}
        return self.beside_default(list(entrants.values()))

    def race_factor(self, results: Sequence[tuple[RecordedTrial, MeasureSuccess]]) -> float:
        """What the times of a race are to be multiplied by: how fast the machine was before, to now.

        For the log ranks the times of races and of trials in one list, and a machine that others use may be
        half as fast in one race as in the next. A later race is compared with the earlier ones, by those who
        were in both, the first one with its entrants' own trials.

        Args:
            results: those of a race, of trials that were timed with weights from as far.
        """
        again = [(trial, result) for trial, result in results if trial.record_id in self.raced]
        factors = [self._known_secs(trial) / result.median_secs for trial, result in again or results]
        return statistics.median(factors) if factors else 1.0

    def add_race(self, trial: RecordedTrial, secs: float) -> None:
        """Learn what a trial takes by its newest race."""
        self.raced[trial.record_id] = (trial, secs)
        if trial is self.default:
            self.default_secs = secs

    def _known_secs(self, trial: RecordedTrial) -> float:
        result = trial.record.result
        assert isinstance(result, MeasureSuccess), "only those that ran race"
        return self.raced.get(trial.record_id, (trial, result.median_secs))[1]

    def progress(self) -> TaskProgress:
        """What the task scheduler decides by."""
        task = self.entry.task
        operators = task.workload.name.partition(" ")[0]
        return TaskProgress(task.weight, task.workload.flop, self.best_curve, operators, self.is_exhausted)

    def status(self, patience: int) -> TaskStatus:
        """What people see."""
        task = self.entry.task
        best_secs = self.raced_secs or self.best_secs
        return TaskStatus(
            key=task.key,
            name=task.workload.name,
            weight=task.weight,
            flop=task.workload.flop,
            num_trials=len(self.best_curve),
            num_failures=self.num_failures,
            default_secs=self.default_secs,
            best_secs=best_secs if best_secs != float("inf") else None,
            is_done=self.is_exhausted or is_stalled(self.best_curve, patience, 0.01),
        )


def latency_secs(statuses: Sequence[TaskStatus], *, of_default: bool = False) -> float | None:
    """Seconds of one model run by its kernels alone; None until every task has a time."""
    total = 0.0
    for status in statuses:
        secs = status.default_secs if of_default else status.best_secs
        if secs is None:
            return None
        total += status.weight * secs
    return total


def _is_point(trial: RecordedTrial) -> bool:
    """Whether a trial is one of the design space: a default schedule without decisions teaches nothing."""
    candidate = trial.record.candidate
    return candidate.origin is not Origin.SEED or has_decisions(candidate.trace_json)
