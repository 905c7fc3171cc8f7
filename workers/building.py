"""The build phase of a batch: all CPUs build, and nothing is timed."""

from collections import deque
from collections.abc import Callable, Sequence

from tunewright.core.types import MeasureFailure, MeasureInput
from tunewright.workers.build_limits import BuildLimits
from tunewright.workers.codec import task_to_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec
from tunewright.workers.references import INPUT_SEED
from tunewright.workers.trial import Trial


class BuildPhase:
    """Starts a child per input, as many at a time as there are CPUs to build on."""

    def __init__(
        self, config: WorkerConfig, limits: BuildLimits, jobs: Conversation, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._limits = limits
        self._jobs = jobs
        self._clock = clock

    def run(
        self, inputs: Sequence[MeasureInput], indices: Sequence[int]
    ) -> tuple[list[Trial], list[tuple[Trial, MeasureFailure]]]:
        """Build the inputs at `indices`: those that are held now, in that order, and those that failed."""
        waiting = deque(indices)
        building: dict[int, Trial] = {}
        held: dict[int, Trial] = {}
        failed: list[tuple[Trial, MeasureFailure]] = []
        while waiting or building:
            while waiting and len(building) < len(self._config.build_cpus):
                trial = self._start(inputs[waiting[0]], waiting.popleft())
                building[trial.job_id] = trial
            event = self._jobs.next_of(building)
            trial = building.pop(event.job_id)
            failure = self._after(trial, event)
            if failure is None:
                held[trial.index] = trial
            else:
                failed.append((trial, failure))
        return [held[index] for index in indices if index in held], failed

    def _start(self, measure_input: MeasureInput, index: int) -> Trial:
        evaluator = measure_input.evaluator
        limit_secs = evaluator.build_timeout_secs
        if self._config.adapts_build_limit:
            limit_secs = self._limits.limit_secs(measure_input.task.key, limit_secs)
        spec = JobSpec(
            kind="candidate",
            payload={
                "task": task_to_dict(measure_input.task),
                "trace": measure_input.candidate.trace_json,
                "input_seed": INPUT_SEED,
            },
            cpus=self._config.build_cpus,
            limit_secs=limit_secs,
            memory_bytes=evaluator.memory_limit_bytes,
        )
        return Trial(index, measure_input, self._jobs.start(spec), self._clock(), limit_secs)

    def _after(self, trial: Trial, event: JobMessage | JobExit) -> MeasureFailure | None:
        trial.build_secs = self._clock() - trial.started
        match event:
            case JobMessage(message={"build_secs": build_secs}):
                trial.build_secs = float(build_secs)
            case JobExit(cause=ExitCause.DEADLINE):
                trial.build_secs = trial.limit_secs
                self._limits.add(trial.task_key, trial.limit_secs)
        answer = trial.answer(event, is_building=True, limit_secs=trial.limit_secs)
        if isinstance(answer, MeasureFailure):
            return answer
        self._limits.add(trial.task_key, trial.build_secs)
        trial.object_key = str(answer["object_key"])
        return None
