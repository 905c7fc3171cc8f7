"""Time two compiled models in turns, each in a forked child."""

from pathlib import Path

import numpy as np

from tunewright.core.closeable import Closeable
from tunewright.core.errors import TunewrightError
from tunewright.gate.model_jobs import JOBS_MODULE
from tunewright.gate.statistics import PairGroup
from tunewright.workers.config import WorkerConfig, available_memory_bytes
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import JobEvent, JobMessage, JobSpec, classify_exit
from tunewright.workers.pool import Pool
from tunewright.workers.timing import calls_per_sample

_LOAD_LIMIT_SECS = 300.0
_TIME_LIMIT_SECS = 120.0


class SideProblem(TunewrightError):
    """A side cannot be built or run: its item gets the verdict `error`."""


class ModelTimer(Closeable):
    """Children are forked from a process that has TVM loaded, so one costs what its model takes to load."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._pool = Pool(config.build_cpus, jobs_module=JOBS_MODULE)

    def close(self) -> None:
        self._pool.close()

    def time_pairs(
        self, base: Path, head: Path, *, num_pairs: int, sample_secs: float, rng: np.random.Generator
    ) -> PairGroup:
        """`num_pairs` times of each, in random order within every pair; a time is a mean of several calls.

        Raises:
            SideProblem: a side cannot be loaded or run.
            EnvironmentProblem: no child can be started here.
        """
        seed = int(rng.integers(1 << 31))
        shown = f"base ({base})", f"head ({head})"
        secs: tuple[list[float], list[float]] = ([], [])
        with self._pool.whole_machine, Conversation(self._pool) as jobs:
            job_ids = [jobs.start(self._spec(folder, seed)) for folder in (base, head)]
            num_calls = []
            for job_id, side in zip(job_ids, shown, strict=True):
                single = _answered(jobs.next_of((job_id,)), side, _LOAD_LIMIT_SECS)
                num_calls.append(calls_per_sample(single, sample_secs))
            for _ in range(num_pairs):
                for side_index in rng.permutation(2):
                    command = {"op": "time", "num_calls": num_calls[side_index]}
                    self._pool.send(job_ids[side_index], command, limit_secs=_TIME_LIMIT_SECS)
                    event = jobs.next_of((job_ids[side_index],))
                    secs[side_index].append(_answered(event, shown[side_index], _TIME_LIMIT_SECS))
        return PairGroup(tuple(secs[0]), tuple(secs[1]))

    def _spec(self, folder: Path, seed: int) -> JobSpec:
        cpus = self._config.timing_cpus
        payload = {"path": str(folder), "num_threads": len(cpus), "cpus": cpus, "seed": seed}
        return JobSpec("model", payload, cpus, _LOAD_LIMIT_SECS, available_memory_bytes())


def _answered(event: JobEvent, side: str, limit_secs: float) -> float:
    """The seconds in a child's answer."""
    match event:
        case JobMessage(message={"secs": secs}):
            return float(secs)
        case JobMessage(message=message):
            raise SideProblem(f"{side}: {message['message']}")
        case gone:
            raise SideProblem(f"{side}: {classify_exit(gone, is_building=False, limit_secs=limit_secs)[1]}")
