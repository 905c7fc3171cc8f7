"""One batch of candidates on one machine: build in parallel, hold, then time one at a time.

Phases never overlap: while a candidate is timed, no child of ours builds, searches or ends.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    TaskKey,
)
from tunewright.workers.codec import task_to_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import JobExit, JobMessage, JobSpec, classify_exit
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool
from tunewright.workers.references import INPUT_SEED, References
from tunewright.workers.timing import Timing

_EXIT_LIMIT_SECS = 5.0
# Three input sets are made, packed and run; kernels that may be verified are fast ones.
_VERIFY_LIMIT_RATIO = 2.0


@dataclass(slots=True)
class Trial:
    """A measure input on its way; `index` is its place in the batch."""

    index: int
    input: MeasureInput
    job_id: int
    started: float
    build_secs: float = 0.0
    run_started: float | None = None
    steal_ratio: float = 0.0

    def wall_secs(self, now: float) -> float:
        """Seconds spent on it, without those in which it waited for its turn."""
        if self.run_started is None:
            return now - self.started
        return self.build_secs + now - self.run_started


class Batch:
    """Measures some inputs; `results` fills up, LOST ones are left out for the caller to try again."""

    def __init__(
        self,
        pool: Pool,
        config: WorkerConfig,
        references: References,
        inputs: Sequence[MeasureInput],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._config = config
        self._references = references
        self._inputs = inputs
        self._clock = clock
        self._jobs = Conversation(pool)
        self._incumbents: dict[TaskKey, float] = {}
        self.results: dict[int, MeasureResult] = {}
        self.lost: list[int] = []
        self.build_wall_secs = 0.0
        self.run_wall_secs = 0.0

    def measure(self, indices: Sequence[int]) -> None:
        """Measure the inputs at `indices` by the full protocol."""
        with self._jobs:
            for trial in self._built(indices):
                with self._timing():
                    result = self._measure_one(trial)
                    self._settle(trial, result)

    def race(self, indices: Sequence[int], *, rounds: int, rng: np.random.Generator) -> None:
        """Build and hold all inputs at `indices`, then take one sample of each in random order per round."""
        with self._jobs:
            trials = list(self._built(indices))
            with self._timing():
                runners = [trial for trial in trials if self._prepared(trial)]
                samples: dict[int, list[float]] = {trial.index: [] for trial in runners}
                for _ in range(rounds):
                    for position in rng.permutation(len(runners)):
                        trial = runners[position]
                        if trial.index in self.results or trial.index in self.lost:
                            continue
                        answer = self._command(trial, {"op": "sample"}, _run_limit_secs(trial))
                        if isinstance(answer, MeasureFailure):
                            self._settle(trial, answer)
                        else:
                            samples[trial.index].append(answer["secs"])
                for trial in runners:
                    if trial.index not in self.results and trial.index not in self.lost:
                        self._settle(trial, self._verified(trial, Timing(tuple(samples[trial.index]), False)))

    # Building.

    def _built(self, indices: Sequence[int]) -> list[Trial]:
        """Build; return the trials that are held, in the order of `indices`."""
        with self._pool.whole_machine:
            start = self._clock()
            waiting = deque(indices)
            building: dict[int, Trial] = {}
            held: list[Trial] = []
            self._references.start_missing([self._inputs[i].task for i in indices], self._jobs)
            while waiting or building:
                while waiting and len(building) < len(self._config.build_cpus):
                    trial = self._start(waiting.popleft())
                    building[trial.job_id] = trial
                event = self._jobs.next_of(building)
                trial = building.pop(event.job_id)
                if (result := self._after_build(trial, event)) is None:
                    held.append(trial)
                else:
                    self._settle(trial, result)
            self._references.finish(self._jobs)
            self.build_wall_secs += self._clock() - start
        return sorted(held, key=lambda trial: indices.index(trial.index))

    def _start(self, index: int) -> Trial:
        measure_input = self._inputs[index]
        evaluator = measure_input.evaluator
        spec = JobSpec(
            kind="candidate",
            payload={
                "task": task_to_dict(measure_input.task),
                "trace": measure_input.candidate.trace_json,
                "input_seed": INPUT_SEED,
            },
            cpus=self._config.build_cpus,
            limit_secs=evaluator.build_timeout_secs,
            memory_bytes=evaluator.memory_limit_bytes,
        )
        return Trial(index, measure_input, self._jobs.start(spec), self._clock())

    def _after_build(self, trial: Trial, event: JobMessage | JobExit) -> MeasureResult | None:
        trial.build_secs = self._clock() - trial.started
        limit_secs = trial.input.evaluator.build_timeout_secs
        answer = self._answer(trial, event, is_building=True, limit_secs=limit_secs)
        if isinstance(answer, MeasureFailure):
            return answer
        trial.build_secs = float(answer["build_secs"])
        return None

    # Running.

    @contextmanager
    def _timing(self) -> Iterator[None]:
        with self._pool.whole_machine:
            start = self._clock()
            yield
            self.run_wall_secs += self._clock() - start

    def _measure_one(self, trial: Trial) -> MeasureResult:
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
            return MeasureFailure(
                FailureKind.PRUNED,
                f"the first sample was {ratio:.1f} times the incumbent's",
                trial.wall_secs(self._clock()),
                build_secs=trial.build_secs,
                run_secs=timing.run_secs,
            )
        if timing.is_contender(incumbent_secs):
            return self._verified(trial, timing)
        return self._success(trial, timing, is_verified=False)

    def _verified(self, trial: Trial, timing: Timing) -> MeasureResult:
        reference = self._references.path(trial.input.task.workload.key)
        if reference is None:
            return self._success(trial, timing, is_verified=False)
        limit_secs = _run_limit_secs(trial) * _VERIFY_LIMIT_RATIO
        answer = self._command(trial, {"op": "verify", "reference": reference}, limit_secs)
        if isinstance(answer, MeasureFailure):
            return answer
        return self._success(trial, timing, is_verified=True)

    def _prepared(self, trial: Trial) -> bool:
        answer = self._command(trial, self._run_command(trial, "prepare"), _run_limit_secs(trial))
        if isinstance(answer, MeasureFailure):
            self._settle(trial, answer)
            return False
        return True

    def _run_command(self, trial: Trial, operation: str) -> Message:
        trial.run_started = self._clock()
        return {
            "op": operation,
            "evaluator": asdict(trial.input.evaluator),
            "cpus": self._config.timing_cpus,
        }

    def _success(self, trial: Trial, timing: Timing, *, is_verified: bool) -> MeasureSuccess:
        return MeasureSuccess(
            run_secs=timing.run_secs,
            build_secs=trial.build_secs,
            wall_secs=trial.wall_secs(self._clock()),
            is_verified=is_verified,
            steal_ratio=trial.steal_ratio,
        )

    def _incumbent_secs(self, measure_input: MeasureInput) -> float | None:
        known = (measure_input.incumbent_secs, self._incumbents.get(measure_input.task.key))
        return min((secs for secs in known if secs is not None), default=None)

    # Talking to children.

    def _command(self, trial: Trial, command: Message, limit_secs: float) -> Message | MeasureFailure:
        self._pool.send(trial.job_id, command, limit_secs=limit_secs)
        event = self._jobs.next_of((trial.job_id,))
        return self._answer(trial, event, is_building=False, limit_secs=limit_secs)

    def _answer(
        self, trial: Trial, event: JobMessage | JobExit, *, is_building: bool, limit_secs: float
    ) -> Message | MeasureFailure:
        """The child's message, or the failure that it reports or that its death means."""
        match event:
            case JobMessage(message={"event": "failed", "kind": kind, "message": text} as report):
                if is_building and report.get("unexpected") and kind == FailureKind.RUN:
                    kind = FailureKind.BUILD
                return self._failure(trial, FailureKind(kind), text)
            case JobMessage(message=message):
                return message
            case JobExit() as gone:
                return self._failure(
                    trial, *classify_exit(gone, is_building=is_building, limit_secs=limit_secs)
                )

    def _failure(self, trial: Trial, kind: FailureKind, message: str) -> MeasureFailure:
        return MeasureFailure(kind, message, trial.wall_secs(self._clock()), build_secs=trial.build_secs)

    def _settle(self, trial: Trial, result: MeasureResult) -> None:
        """Store a result and see its child off, so that it does not disturb the next one."""
        if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
            self.lost.append(trial.index)
        else:
            self.results[trial.index] = result
        if isinstance(result, MeasureSuccess) and result.is_verified:
            key = trial.input.task.key
            self._incumbents[key] = min(result.median_secs, self._incumbents.get(key, result.median_secs))
        self._jobs.finish(trial.job_id, limit_secs=_EXIT_LIMIT_SECS)


def _run_limit_secs(trial: Trial) -> float:
    return trial.input.evaluator.run_timeout_secs
