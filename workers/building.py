"""The builds of a batch: on all CPUs first, and at the end beside the timing of those that are ready."""

from collections import deque
from collections.abc import Callable, Sequence

from tunewright.core.types import MeasureFailure, MeasureInput, TaskKey
from tunewright.workers.build_limits import BuildLimits
from tunewright.workers.codec import task_to_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec
from tunewright.workers.pace import Pace
from tunewright.workers.references import INPUT_SEED
from tunewright.workers.trial import Trial

Finished = tuple[Trial, MeasureFailure | None]
"""A trial that is held now, or what its build has failed with."""


class BuildQueue:
    """Starts a child per input, as many at a time as there are CPUs to build on.

    When timing what is left of the batch would take as long as building what waits of it, no build starts any
    more on the CPUs that time; when the last one there has ended, and while something is ready, `can_time` is
    true. Without `pace`, or without other CPUs, that is when all builds are over.
    """

    def __init__(
        self,
        config: WorkerConfig,
        limits: BuildLimits,
        pace: Pace | None,
        jobs: Conversation,
        clock: Callable[[], float],
        inputs: Sequence[MeasureInput],
        indices: Sequence[int],
    ) -> None:
        self._config = config
        self._limits = limits
        self._pace = pace
        self._jobs = jobs
        self._clock = clock
        self._inputs = inputs
        self._waiting = deque(indices)
        self._building: dict[int, Trial] = {}
        self._timing_cpus = tuple(cpu for cpu in config.build_cpus if cpu in config.timing_cpus)
        self._other_cpus = tuple(cpu for cpu in config.build_cpus if cpu not in config.timing_cpus)
        self._keeps_off = False  # builds, the CPUs that time

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing is being built."""
        return not self._waiting and not self._building

    @property
    def can_time(self) -> bool:
        """Whether no build disturbs a timing."""
        return self.is_over or (self._keeps_off and not self._running_on(self._timing_cpus))

    def finished(self, ready: Sequence[TaskKey], *, wait: bool) -> list[Finished]:
        """Start what can be started, and return what has finished since.

        Args:
            ready: tasks of what was returned before and has not been timed.
            wait: return at least one, if there is any.
        """
        self._start_all(ready)
        found: list[Finished] = []
        while self._building:
            if wait and not found:
                event: JobMessage | JobExit | None = self._jobs.next_of(self._building)
            else:
                event = self._jobs.poll(self._building)
            if event is None:
                break
            trial = self._building.pop(event.job_id)
            found.append((trial, self._after(trial, event)))
        return found

    def _start_all(self, ready: Sequence[TaskKey]) -> None:
        self._keeps_off = (self._keeps_off and len(ready) > 0) or self._is_time(ready)
        while self._waiting and (cpus := self._free_cpus()):
            trial = self._start(self._waiting.popleft(), cpus)
            self._building[trial.job_id] = trial
            self._keeps_off = self._keeps_off or self._is_time(ready)

    def _is_time(self, ready: Sequence[TaskKey]) -> bool:
        if self._pace is None:
            return False
        waiting = [self._inputs[index].task.key for index in self._waiting]
        building = [trial.task_key for trial in self._building.values()]
        return self._pace.is_time(waiting, [*waiting, *building, *ready], num_cpus=len(self._other_cpus))

    def _free_cpus(self) -> tuple[int, ...]:
        """CPUs of which one is idle; none if all are busy or must be kept free."""
        if self._running_on(self._other_cpus) < len(self._other_cpus):
            return self._other_cpus
        if self._running_on(self._timing_cpus) < len(self._timing_cpus) and not self._keeps_off:
            return self._timing_cpus
        return ()

    def _running_on(self, cpus: tuple[int, ...]) -> int:
        return sum(trial.build_cpus == cpus for trial in self._building.values())

    def _start(self, index: int, cpus: tuple[int, ...]) -> Trial:
        measure_input = self._inputs[index]
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
                "streamed_bytes": evaluator.streamed_bytes,
            },
            cpus=cpus,
            limit_secs=limit_secs,
            memory_bytes=evaluator.memory_limit_bytes,
        )
        return Trial(index, measure_input, self._jobs.start(spec), cpus, self._clock(), limit_secs)

    def _after(self, trial: Trial, event: JobMessage | JobExit) -> MeasureFailure | None:
        trial.build_secs = self._clock() - trial.started
        match event:
            case JobMessage(message={"build_secs": build_secs}):
                trial.build_secs = float(build_secs)
            case JobExit(cause=ExitCause.DEADLINE):
                trial.build_secs = trial.limit_secs
                self._limits.add(trial.task_key, trial.limit_secs)
        if self._pace is not None:
            self._pace.add_build(trial.task_key, trial.build_secs)
        answer = trial.answer(event, is_building=True, limit_secs=trial.limit_secs)
        if isinstance(answer, MeasureFailure):
            return answer
        self._limits.add(trial.task_key, trial.build_secs)
        trial.object_key = str(answer["object_key"])
        return None
