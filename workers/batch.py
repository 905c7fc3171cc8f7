"""One batch of candidates on one machine: build in parallel, hold, then time one at a time.

While a candidate is timed, nothing of ours runs on its CPUs; on the others the batch's last builds may.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    TaskKey,
    speed_ratio,
)
from tunewright.workers.build_limits import BuildLimits
from tunewright.workers.building import BuildQueue, Finished
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.duplicates import KnownKernels, copy_result
from tunewright.workers.frames import Message
from tunewright.workers.pace import Pace
from tunewright.workers.pool import Pool
from tunewright.workers.racing import behind, is_settled, levelled
from tunewright.workers.references import References
from tunewright.workers.timing import Timing
from tunewright.workers.trial import Trial
from tunewright.workers.yardstick import Samples, Yardstick, has_moved

_EXIT_LIMIT_SECS = 5.0
# Three input sets are made, packed and run; kernels that may be verified are fast ones.
_VERIFY_LIMIT_RATIO = 2.0
# When the machine's speed has changed during a batch, its best few are sampled again, side by side.
_MAX_AGAIN = 3
_AGAIN_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Memory:
    """What a measurer has learned from its batches, and keeps for the next ones."""

    references: References
    kernels: KnownKernels
    build_limits: BuildLimits
    pace: Pace
    yardstick: Yardstick


class Batch:
    """Measures some inputs; `results` fills up, LOST ones are left out for the caller to try again.

    Children that have been timed end while the caller does something else, such as search: `jobs`, the
    conversation of all batches, knows them, and the next timing waits for them.
    """

    def __init__(
        self,
        pool: Pool,
        jobs: Conversation,
        config: WorkerConfig,
        memory: Memory,
        inputs: Sequence[MeasureInput],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._config = config
        self._memory = memory
        self._inputs = inputs
        self._clock = clock
        self._jobs = jobs
        self._incumbents: dict[TaskKey, float] = {}
        self._yardstick_secs: float | None = None  # now
        self._doomed: list[Trial] = []  # their children are of no use any more
        self.results: dict[int, MeasureResult] = {}
        self.lost: list[int] = []
        self.build_wall_secs = 0.0
        self.run_wall_secs = 0.0

    def measure(self, indices: Sequence[int]) -> None:
        """Measure the inputs at `indices` by the full protocol."""
        with self._pool.whole_machine, self._jobs:
            overlaps = self._config.overlaps_builds
            queue = self._queue(indices, self._memory.pace if overlaps else None)
            ready = _Ready(self._memory.kernels if self._config.drops_duplicates else None)
            self._build(queue, indices, ready)
            for trial, result in self._timed(queue, ready):
                self._settle(trial, result)
                self._memory.kernels.add(trial.task_key, result)
            for trial in ready.copies:
                self._copy(trial)

    def race(self, indices: Sequence[int], *, rounds: int, rng: np.random.Generator) -> None:
        """Build and hold all inputs at `indices`, then time them in rounds, each in random order.

        It ends after `rounds`, or when the ratios are known. Those that are behind drop out, but for the
        first, which the others are compared with; those that may have won are verified. The samples are
        levelled: as if the machine had been as fast in every round.
        """
        with self._pool.whole_machine, self._jobs:
            ready = _Ready(None)
            self._build(self._queue(indices, None), indices, ready)
            trials = sorted(ready.trials, key=lambda trial: trial.index)
            start = self._clock()
            raced = self._interleaved(trials, rounds=rounds, rng=rng, stays=indices[0])
            for trial, result in self._judged(_levelled(raced)):
                self._settle(trial, result)
            self._dismiss(trials)
            self.run_wall_secs += self._clock() - start

    def interleave(self, indices: Sequence[int], *, rounds: int, rng: np.random.Generator) -> None:
        """As `race`, but nobody drops out and nothing is verified: as many samples of each, in pairs.

        The children put their arguments elsewhere at every call, all in the same way: what is an accident of
        memory is noise, and no difference.
        """
        with self._pool.whole_machine, self._jobs:
            ready = _Ready(None)
            self._build(self._queue(indices, None), indices, ready, needs_references=False)
            trials = sorted(ready.trials, key=lambda trial: trial.index)
            start = self._clock()
            raced = self._interleaved(trials, rounds=rounds, rng=rng, scatters=True)
            for trial, outcome in raced:
                if isinstance(outcome, Timing):
                    self._settle(trial, trial.success(outcome, is_verified=False))
                else:
                    self._settle(trial, outcome)
            self._dismiss(trials)
            self.run_wall_secs += self._clock() - start

    def verify(self, indices: Sequence[int]) -> None:
        """Build the inputs at `indices` and compare the outputs of each; nothing is sampled."""
        with self._pool.whole_machine, self._jobs:
            ready = _Ready(None)
            self._build(self._queue(indices, None), indices, ready)
            start = self._clock()
            for trial in ready.trials:
                self._settle(trial, self._verified_alone(trial))
                self._see_off([trial])
            self.run_wall_secs += self._clock() - start

    # Building.

    def _queue(self, indices: Sequence[int], pace: Pace | None) -> BuildQueue:
        limits = self._memory.build_limits
        return BuildQueue(self._config, limits, pace, self._jobs, self._clock, self._inputs, indices)

    def _build(
        self, queue: BuildQueue, indices: Sequence[int], ready: "_Ready", *, needs_references: bool = True
    ) -> None:
        """Build until the CPUs that time are free for it."""
        start, memory = self._clock(), self._memory
        if needs_references:
            memory.references.start_missing([self._inputs[i].task for i in indices], self._jobs)
        if self._config.watches_reference and indices:
            memory.yardstick.start(self._inputs[indices[0]].task.target)
        finished: list[Finished] = []
        while not queue.can_time:
            finished += queue.finished([trial.task_key for trial, _ in finished], wait=True)
        self._receive(sorted(finished, key=lambda item: item[0].index), ready)
        memory.references.finish(self._jobs)
        memory.yardstick.finish()
        self._see_off_doomed()
        self._jobs.await_dismissed()
        self.build_wall_secs += self._clock() - start

    def _receive(self, finished: Iterable[Finished], ready: "_Ready") -> None:
        for trial, failure in finished:
            if failure is not None:
                self._settle(trial, failure)
            if failure is not None or not ready.add(trial):
                self._doomed.append(trial)

    def _copy(self, trial: Trial) -> None:
        original = self._memory.kernels.find(trial.task_key, trial.object_key)
        if original is None:  # the worker was lost before the kernel had a result
            self.lost.append(trial.index)
        else:
            self._settle(trial, copy_result(original, build_secs=trial.build_secs))

    # Running.

    def _timed(self, queue: BuildQueue, ready: "_Ready") -> list[tuple[Trial, MeasureResult]]:
        if queue.is_over and not ready.trials:
            return []
        start = self._clock()
        before = self._yardstick_samples()
        trials: list[Trial] = []
        results: dict[int, MeasureResult] = {}
        while ready.trials or not queue.is_over:
            waiting = [trial.task_key for trial in ready.trials]
            self._receive(queue.finished(waiting, wait=not ready.trials or not queue.can_time), ready)
            if ready.trials and queue.can_time:
                trial = ready.trials.popleft()
                trials.append(trial)
                results[trial.index] = self._measure_one(trial)
                self._memory.pace.add_run(trial.task_key, trial.spent_secs)
        is_noisy = False
        if has_moved(before, now := self._yardstick_samples()):
            self._measure_again(trials, results)
            is_noisy = has_moved(now, self._yardstick_samples())
        self._dismiss([*self._doomed, *trials])
        self._doomed.clear()
        self.run_wall_secs += self._clock() - start
        around_secs = (min(before) + min(now)) / 2 if before and now else None
        return [(t, _watched(results[t.index], around_secs, is_noisy=is_noisy)) for t in trials]

    def _measure_one(self, trial: Trial) -> MeasureResult:
        """Time, and verify a new best; its child waits, in case that it is wanted again."""
        incumbent_secs = self._incumbent_secs(trial.input)
        command = self._run_command(trial, "time") | {"incumbent_secs": incumbent_secs}
        answer = self._command(trial, command, _run_limit_secs(trial))
        if isinstance(answer, MeasureFailure):
            return answer
        timing = Timing(tuple(answer["run_secs"]), bool(answer["is_pruned"]))
        trial.steal_ratio = float(answer["steal_ratio"])
        if timing.is_pruned:
            assert incumbent_secs is not None, "only an incumbent prunes"
            ratio = timing.run_secs[0] / incumbent_secs
            text = f"the first sample was {ratio:.1f} times the incumbent's"
            return trial.failure(FailureKind.PRUNED, text, timing.run_secs)
        if incumbent_secs is not None and timing.median_secs > incumbent_secs:
            # It may still win its race, which verifies winners; most that are close to the best never do.
            return trial.success(timing, is_verified=False)
        result = self._verified(trial, timing)
        if isinstance(result, MeasureSuccess) and result.is_verified:
            best_secs = self._incumbents.get(trial.task_key, result.median_secs)
            self._incumbents[trial.task_key] = min(result.median_secs, best_secs)
        return result

    def _measure_again(self, trials: Sequence[Trial], results: dict[int, MeasureResult]) -> None:
        """Add samples to the batch's best few, taken in turns."""
        successes = {index: r for index, r in results.items() if isinstance(r, MeasureSuccess)}
        contenders = [
            trial
            for trial in trials
            if trial.index in successes
            and Timing(successes[trial.index].run_secs, False).is_contender(self._incumbent_secs(trial.input))
        ]
        contenders.sort(key=lambda trial: successes[trial.index].median_secs)
        rng = np.random.default_rng(len(trials))
        for trial, raced in self._interleaved(contenders[:_MAX_AGAIN], rounds=_AGAIN_ROUNDS, rng=rng):
            first = successes[trial.index]
            if isinstance(raced, MeasureFailure):
                results[trial.index] = raced
            else:
                samples = Timing(first.run_secs + raced.run_secs, False)
                results[trial.index] = trial.success(samples, is_verified=first.is_verified)

    def _interleaved(
        self,
        trials: Sequence[Trial],
        *,
        rounds: int,
        rng: np.random.Generator,
        stays: int | None = None,
        scatters: bool = False,
    ) -> list[tuple[Trial, Timing | MeasureFailure]]:
        """`rounds` samples of each, in random order in every round.

        With `stays`, those that are behind drop out, but for the one of that index, and it ends when the rest
        is known well enough.
        """
        failures: dict[int, MeasureFailure] = {}
        samples: dict[int, list[float]] = {trial.index: [] for trial in trials}
        # The same places for all: what depends on them is the same for both sides, and differs by group.
        places = {"place_seed": int(rng.integers(1 << 31))} if scatters else {}
        for trial in trials:
            command = self._run_command(trial, "prepare") | places
            answer = self._command(trial, command, _run_limit_secs(trial))
            if isinstance(answer, MeasureFailure):
                failures[trial.index] = answer
        left: set[int] = set()
        for _ in range(rounds):
            if stays is not None:
                running = {i: secs for i, secs in samples.items() if i not in failures and i not in left}
                if is_settled(running):
                    break
                left |= behind(running) - {stays}
            for position in rng.permutation(len(trials)):
                trial = trials[position]
                if trial.index in failures or trial.index in left:
                    continue
                answer = self._command(trial, {"op": "sample"}, _run_limit_secs(trial))
                if isinstance(answer, MeasureFailure):
                    failures[trial.index] = answer
                else:
                    samples[trial.index].append(answer["secs"])
        return [
            (trial, failures.get(trial.index) or Timing(tuple(samples[trial.index]), False))
            for trial in trials
        ]

    def _judged(
        self, raced: Iterable[tuple[Trial, Timing | MeasureFailure]]
    ) -> Iterator[tuple[Trial, MeasureResult]]:
        """Results of a race: the fastest are verified until one is right, then those who may be as fast."""
        timings: list[tuple[Trial, Timing]] = []
        for trial, outcome in raced:
            if isinstance(outcome, MeasureFailure):
                yield trial, outcome
            else:
                timings.append((trial, outcome))
        winner_secs: float | None = None
        for trial, timing in sorted(timings, key=lambda item: item[1].median_secs):
            if not timing.is_contender(winner_secs):
                yield trial, trial.success(timing, is_verified=False)
                continue
            result = self._verified(trial, timing)
            if winner_secs is None and isinstance(result, MeasureSuccess) and result.is_verified:
                winner_secs = timing.median_secs
            yield trial, result

    def _verified(self, trial: Trial, timing: Timing) -> MeasureResult:
        reference = self._memory.references.path(trial.input.task.workload.key)
        if reference is None:
            return trial.success(timing, is_verified=False)
        limit_secs = _run_limit_secs(trial) * _VERIFY_LIMIT_RATIO
        answer = self._command(trial, {"op": "verify", "reference": reference}, limit_secs)
        return answer if isinstance(answer, MeasureFailure) else trial.success(timing, is_verified=True)

    def _verified_alone(self, trial: Trial) -> MeasureResult:
        """Run and verify: with the threads and on the CPUs that would be timed, for races show only there."""
        answer = self._command(trial, self._run_command(trial, "prepare"), _run_limit_secs(trial))
        if isinstance(answer, MeasureFailure):
            return answer
        return self._verified(trial, Timing((float(answer["secs"]),), False))

    def _run_command(self, trial: Trial, operation: str) -> Message:
        return {
            "op": operation,
            "evaluator": asdict(trial.input.evaluator),
            "cpus": self._config.timing_cpus,
        }

    def _yardstick_samples(self) -> Samples:
        """How fast the machine is now."""
        if not self._config.watches_reference:
            return ()
        samples = self._memory.yardstick.sample()
        self._yardstick_secs = min(samples, default=None)
        return samples

    def _incumbent_secs(self, measure_input: MeasureInput) -> float | None:
        """What the task's best would take now: where the machine is slower than it was, so is the best."""
        known_secs = self._incumbents.get(measure_input.task.key)
        if measure_input.incumbent_secs is None:
            return known_secs
        ratio = speed_ratio(self._yardstick_secs, measure_input.incumbent_yardstick_secs)
        given_secs = measure_input.incumbent_secs * ratio
        return given_secs if known_secs is None else min(given_secs, known_secs)

    # Talking to children.

    def _command(self, trial: Trial, command: Message, limit_secs: float) -> Message | MeasureFailure:
        """Have a child do something; it is seen off if it fails, so that it does not disturb the next one."""
        start = self._clock()
        self._pool.send(trial.job_id, command, limit_secs=limit_secs)
        event = self._jobs.next_of((trial.job_id,))
        trial.spent_secs += self._clock() - start
        answer = trial.answer(event, is_building=False, limit_secs=limit_secs)
        if isinstance(answer, MeasureFailure):
            self._see_off([trial])
        return answer

    def _see_off(self, trials: Sequence[Trial]) -> None:
        """Have children end, and wait until they are gone."""
        self._jobs.finish([trial.job_id for trial in trials], limit_secs=_EXIT_LIMIT_SECS)

    def _dismiss(self, trials: Sequence[Trial]) -> None:
        """Have children end while nothing is timed; `_build` waits until they are gone."""
        self._jobs.dismiss([trial.job_id for trial in trials], limit_secs=_EXIT_LIMIT_SECS)

    def _see_off_doomed(self) -> None:
        self._see_off(self._doomed)
        self._doomed.clear()

    def _settle(self, trial: Trial, result: MeasureResult) -> None:
        if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
            self.lost.append(trial.index)
        else:
            self.results[trial.index] = result


class _Ready:
    """Built trials that wait to be timed, and those whose kernel is one of theirs or known already."""

    def __init__(self, known: KnownKernels | None) -> None:
        self._known = known
        self._seen: set[tuple[TaskKey, str]] = set()
        self.trials: deque[Trial] = deque()
        self.copies: list[Trial] = []

    def add(self, trial: Trial) -> bool:
        """Whether it is to be timed; all are where no kernels are known."""
        kernel = (trial.task_key, trial.object_key)
        if self._known is not None and (kernel in self._seen or self._known.find(*kernel) is not None):
            self.copies.append(trial)
            return False
        self._seen.add(kernel)
        self.trials.append(trial)
        return True


def _levelled(
    raced: Sequence[tuple[Trial, Timing | MeasureFailure]],
) -> list[tuple[Trial, Timing | MeasureFailure]]:
    samples = {trial.index: timing.run_secs for trial, timing in raced if isinstance(timing, Timing)}
    equals = levelled(samples)
    return [
        (trial, Timing(equals[trial.index], False) if isinstance(outcome, Timing) else outcome)
        for trial, outcome in raced
    ]


def _watched(result: MeasureResult, yardstick_secs: float | None, *, is_noisy: bool) -> MeasureResult:
    if isinstance(result, MeasureSuccess):
        return replace(result, yardstick_secs=yardstick_secs, is_noisy=is_noisy)
    return replace(result, yardstick_secs=yardstick_secs)


def _run_limit_secs(trial: Trial) -> float:
    return trial.input.evaluator.run_timeout_secs
