"""Measure on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.core.closeable import Closeable
from tunewright.core.errors import EnvironmentProblem
from tunewright.core.types import FailureKind, MachineInfo, MeasureFailure, MeasureInput, MeasureResult
from tunewright.workers.batch import Batch, Memory
from tunewright.workers.build_limits import BuildLimits
from tunewright.workers.codec import machine_from_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.duplicates import KnownKernels
from tunewright.workers.events import JobMessage, JobSpec
from tunewright.workers.pace import Pace
from tunewright.workers.pool import Pool
from tunewright.workers.process_space import replay_all
from tunewright.workers.references import References
from tunewright.workers.yardstick import Yardstick

_MACHINE_LIMIT_SECS = 30.0
_MACHINE_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class MeasurerStats:
    """What a measurer has done so far; wall-clock seconds of its two phases."""

    num_measured: int = 0
    build_wall_secs: float = 0.0
    run_wall_secs: float = 0.0

    def __add__(self, other: "MeasurerStats") -> "MeasurerStats":
        return MeasurerStats(
            self.num_measured + other.num_measured,
            self.build_wall_secs + other.build_wall_secs,
            self.run_wall_secs + other.run_wall_secs,
        )


class LocalMeasurer(Closeable):
    """Builds candidates in parallel and times them one by one, each in a forked child.

    `pool` may be shared with design spaces. One call at a time; `seed` orders the rounds of `race`.
    """

    def __init__(self, config: WorkerConfig, *, seed: int = 0) -> None:
        self._config = config
        self._seed = seed
        self._machine: MachineInfo | None = None
        self.stats = MeasurerStats()
        self.pool = Pool(config.build_cpus, jobs_module=config.jobs_module)
        self.pool.warm_up()
        self._jobs = Conversation(self.pool)
        self._references = References(config.build_cpus)
        yardstick = Yardstick(self.pool, config)
        self._memory = Memory(self._references, KnownKernels(), BuildLimits(), Pace(), yardstick)

    @property
    def machine(self) -> MachineInfo:
        """The machine, asked in a child at the first use.

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        if self._machine is None:
            self._machine = self._ask_machine()
        return self._machine

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """Measure; one result per input, in their order.

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        batch = self._batch(inputs)
        chunk = self._config.max_held
        return self._run(batch, list(range(len(inputs))), chunk, batch.measure)

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        """Time all inputs of a task side by side: `rounds` samples each, in random order in every round.

        Who is far behind gets fewer, but for a task's first input, which the others are compared with.

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        rng = np.random.default_rng((self._seed, len(inputs), rounds))
        batch = self._batch(inputs)
        by_task: dict[str, list[int]] = {}
        for index, measure_input in enumerate(inputs):
            by_task.setdefault(measure_input.task.key, []).append(index)
        results: dict[int, MeasureResult] = {}
        for indices in by_task.values():
            raced = self._run(
                batch, indices, len(indices), lambda chosen: batch.race(chosen, rounds=rounds, rng=rng)
            )
            results.update(zip(indices, raced, strict=True))
        return [results[index] for index in range(len(inputs))]

    def interleave(
        self, inputs: Sequence[MeasureInput], *, rounds: int, rng: np.random.Generator
    ) -> list[MeasureResult]:
        """Time all inputs side by side: `rounds` samples of each, one per round, in random order in it.

        Unlike in `race`, nobody drops out and nothing is verified; the samples stand in the order of rounds.

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        batch = self._batch(inputs)
        indices = list(range(len(inputs)))
        return self._run(
            batch, indices, len(indices), lambda chosen: batch.interleave(chosen, rounds=rounds, rng=rng)
        )

    def verify(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """Build all inputs and compare their outputs with the unscheduled programs', without timing them.

        A success that is not verified had nothing to be compared with: its unscheduled program did not run.
        The one sample of a success is a single call, and no measurement.

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        batch = self._batch(inputs)
        return self._run(batch, list(range(len(inputs))), self._config.max_held, batch.verify)

    def rehearse(self, inputs: Sequence[MeasureInput]) -> list[MeasureFailure | None]:
        """Check traces from outside and apply them in sandboxed children; None where nothing is wrong."""
        traces = [(one.task.workload.mod_json, one.candidate.trace_json) for one in inputs]
        return [
            None if isinstance(result, str) else MeasureFailure(result.kind, result.message, 0.0)
            for result in replay_all(self.pool, traces, is_trusted=False)
        ]

    def close(self) -> None:
        """Kill all children and remove temporary files; closing twice is fine."""
        self.pool.close()
        self._references.close()

    def _batch(self, inputs: Sequence[MeasureInput]) -> Batch:
        for measure_input in inputs:
            wanted, given = measure_input.task.target.num_threads, len(self._config.timing_cpus)
            if wanted != given:
                raise EnvironmentProblem(
                    f"the target runs kernels on {wanted} threads, but {given} CPUs are kept for timing; "
                    "make the measurer for the target's number of threads"
                )
        return Batch(self.pool, self._jobs, self._config, self._memory, inputs)

    def _run(
        self, batch: Batch, indices: list[int], chunk: int, measure: Callable[[list[int]], None]
    ) -> list[MeasureResult]:
        """Measure in chunks; what was lost with its worker is tried once more.

        One by one then, so that a candidate which takes the worker down does not take others with it.
        """
        before = MeasurerStats(0, batch.build_wall_secs, batch.run_wall_secs)
        pending = indices
        for size in (chunk, 1):
            batch.lost.clear()
            for start in range(0, len(pending), size):
                measure(pending[start : start + size])
            pending = sorted(batch.lost)
        for index in pending:
            message = "the worker process died twice while this candidate was built or timed"
            batch.results[index] = MeasureFailure(FailureKind.WORKER_LOST, message, 0.0)
        self.stats += MeasurerStats(
            len(indices),
            batch.build_wall_secs - before.build_wall_secs,
            batch.run_wall_secs - before.run_wall_secs,
        )
        return [batch.results[index] for index in indices]

    def _ask_machine(self) -> MachineInfo:
        spec = JobSpec("machine", {}, self._config.build_cpus, _MACHINE_LIMIT_SECS, _MACHINE_MEMORY_BYTES)
        with Conversation(self.pool) as jobs:
            job_id = jobs.start(spec)
            event = jobs.next_of((job_id,))
        self.pool.check()
        match event:
            case JobMessage(message={"event": "machine"} as fields):
                return machine_from_dict({name: value for name, value in fields.items() if name != "event"})
        raise EnvironmentProblem(f"a worker process cannot describe this machine: {event}")
