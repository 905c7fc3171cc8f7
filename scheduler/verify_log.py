"""Verify stored records: replay them in children, compare their outputs again, remember what came out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Protocol

from tunewright.core.clock import Clock
from tunewright.core.types import (
    EvaluatorConfig,
    MachineInfo,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    RecordedTrial,
    TaskKey,
    TuningRecord,
    TuningTask,
)
from tunewright.scheduler.session import RACE_ROUNDS
from tunewright.scheduler.verify_choice import Chosen, batches

# What comes out is committed batch by batch: an interrupt costs one of them.
BATCH_SIZE = 16
# The record's own limits may have been anything, and are not ours where it comes from elsewhere. A time-out
# proves nothing, so these are wide.
_EVALUATOR = EvaluatorConfig(build_timeout_secs=60.0, run_timeout_secs=60.0)
# Medians that differ by less are equal, however narrow their samples lie.
_MIN_CHANGE_RATIO = 1.05


class Verifier(Protocol):
    """The measurer's part in this; a record that fails is a result, never an exception."""

    @property
    def machine(self) -> MachineInfo: ...

    def rehearse(self, inputs: Sequence[MeasureInput]) -> list[MeasureFailure | None]:
        """Check traces from outside and apply them in sandboxed children; None where nothing is wrong."""
        ...

    def verify(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """A success is verified, or had nothing to be compared with; its sample is no measurement."""
        ...

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        """Time the inputs of each task side by side: `rounds` samples each."""
        ...


class Race(Protocol):
    """Samples of an earlier race, mean seconds per call each."""

    @property
    def run_secs(self) -> tuple[float, ...]: ...


class VerifiedLog(Protocol):
    """The tuning log as verifying uses it."""

    def task(self, task_key: TaskKey) -> TuningTask: ...

    def record(self, record_id: int) -> RecordedTrial: ...

    def races(self, record_id: int) -> Sequence[Race]: ...

    def add_verification(
        self,
        record_id: int,
        *,
        machine: MachineInfo,
        failure: MeasureFailure | None,
        verified_at: datetime,
    ) -> str | None: ...

    def add_race(
        self, record_id: int, run_secs: Sequence[float], raced_at: datetime, *, is_verified: bool = False
    ) -> None: ...


class Verdict(StrEnum):
    """What a verification says of a record."""

    RIGHT = "right"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"  # nothing was shown: the record stays as it was


@dataclass(frozen=True, slots=True)
class Timed:
    """Samples of a record's last race, or of its trial, and of its race now, mean seconds per call each.

    `is_stored`: the record ranks by its race now, for it was timed before on such a machine as this.
    """

    before_secs: tuple[float, ...]
    now_secs: tuple[float, ...]
    is_stored: bool

    @property
    def secs(self) -> float:
        return median(self.now_secs)

    @property
    def change_ratio(self) -> float:
        """The time now over the time before; above 1 is slower."""
        return self.secs / median(self.before_secs)

    @property
    def is_beyond_noise(self) -> bool:
        """Whether no sample of the one lies among the other's, and the medians are not nearly equal."""
        is_apart = min(self.now_secs) > max(self.before_secs) or max(self.now_secs) < min(self.before_secs)
        change = max(self.change_ratio, 1 / self.change_ratio)
        return is_apart and change > _MIN_CHANGE_RATIO


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one record. `reason` says why it is not right; `timed` where it was raced."""

    chosen: Chosen
    verdict: Verdict
    failure: MeasureFailure | None = None
    reason: str | None = None
    timed: Timed | None = None


def verify_records(
    chosen: Sequence[Chosen],
    *,
    log: VerifiedLog,
    make_verifier: Callable[[int], AbstractContextManager[Verifier]],
    remeasure: bool,
    clock: Clock,
    on_batch: Callable[[Sequence[Verified]], None],
) -> None:
    """Replay, compare and record; those that are right are also raced where `remeasure` says so.

    Args:
        make_verifier: of a number of kernel threads.
        on_batch: told of what has been committed.

    Raises:
        EnvironmentProblem: no child can be started here.
        StoreError: the log refuses a result; those before it are kept.
    """
    parts = batches(chosen, BATCH_SIZE, keeps_tasks=remeasure)
    while parts:
        num_threads = _num_threads(parts[0])
        with make_verifier(num_threads) as verifier:
            while parts and _num_threads(parts[0]) == num_threads:
                batch = _Batch(parts.pop(0), log, verifier, clock)
                results = batch.verify()
                on_batch(batch.race(results) if remeasure else results)


def _num_threads(batch: Sequence[Chosen]) -> int:
    return batch[0].task.target.num_threads


def _input(task: TuningTask, record: TuningRecord) -> MeasureInput:
    evaluator = replace(_EVALUATOR, streamed_bytes=record.evaluator.streamed_bytes)
    return MeasureInput(task, record.candidate, evaluator)


class _Batch:
    """Some records with their tasks: all that is in memory at a time."""

    def __init__(self, chosen: Sequence[Chosen], log: VerifiedLog, verifier: Verifier, clock: Clock) -> None:
        self._chosen = chosen
        self._log = log
        self._verifier = verifier
        self._clock = clock
        self._trials = {one.record_id: log.record(one.record_id) for one in chosen}
        tasks = {key: log.task(key) for key in dict.fromkeys(one.task.task_key for one in chosen)}
        self._inputs = {
            one.record_id: _input(tasks[one.task.task_key], self._trials[one.record_id].record)
            for one in chosen
        }

    def verify(self) -> list[Verified]:
        """The verdicts, recorded."""
        refused = self._refused()
        runnable = [one.record_id for one in self._chosen if one.record_id not in refused]
        results = self._verifier.verify([self._inputs[number] for number in runnable])
        found: dict[int, MeasureResult] = {**refused, **dict(zip(runnable, results, strict=True))}
        return [self._judge(one, found[one.record_id]) for one in self._chosen]

    def _refused(self) -> dict[int, MeasureFailure]:
        """Those that came from outside, were never verified, and do not even replay in a sandbox."""
        strangers = [one.record_id for one in self._chosen if not one.is_trusted]
        failures = self._verifier.rehearse([self._inputs[number] for number in strangers])
        return {
            number: failure
            for number, failure in zip(strangers, failures, strict=True)
            if failure is not None
        }

    def race(self, verified: Sequence[Verified]) -> list[Verified]:
        """The same with the times now of those that are right; these are recorded, too."""
        right = [one.chosen.record_id for one in verified if one.verdict is Verdict.RIGHT]
        results = self._verifier.race([self._inputs[number] for number in right], rounds=RACE_ROUNDS)
        raced = dict(zip(right, results, strict=True))
        return [
            self._timed(one, raced[one.chosen.record_id]) if one.chosen.record_id in raced else one
            for one in verified
        ]

    def _judge(self, chosen: Chosen, result: MeasureResult) -> Verified:
        if isinstance(result, MeasureSuccess) and not result.is_verified:
            text = "the unscheduled program did not run, so there is nothing to compare with"
            return Verified(chosen, Verdict.UNKNOWN, reason=text)
        failure = result if isinstance(result, MeasureFailure) else None
        quarantine = self._log.add_verification(
            chosen.record_id,
            machine=self._verifier.machine,
            failure=failure,
            verified_at=self._clock.now(),
        )
        if quarantine is not None:
            return Verified(chosen, Verdict.QUARANTINED, failure, quarantine)
        if failure is not None:
            return Verified(chosen, Verdict.UNKNOWN, failure, f"{failure.kind}: {failure.message}")
        return Verified(chosen, Verdict.RIGHT)

    def _timed(self, verified: Verified, result: MeasureResult) -> Verified:
        chosen = verified.chosen
        if isinstance(result, MeasureFailure):
            judged = self._judge(chosen, result)
            return judged if judged.verdict is Verdict.QUARANTINED else verified
        trial = self._trials[chosen.record_id]
        races = self._log.races(chosen.record_id)
        before_secs = races[-1].run_secs if races else trial.record.result.run_secs
        # What a record ranks by was timed on its own machine: times of others do not compare with it.
        is_stored = trial.record.machine.fingerprint == self._verifier.machine.fingerprint
        if is_stored:
            self._log.add_race(chosen.record_id, result.run_secs, self._clock.now())
        return replace(verified, timed=Timed(before_secs, result.run_secs, is_stored))
