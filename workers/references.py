"""Right outputs of each workload, made once per session by running its unscheduled kernel in a child."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tunewright.core.text import shortened
from tunewright.core.types import TuningTask, WorkloadKey
from tunewright.workers.codec import task_to_dict
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec

_logger = logging.getLogger(__name__)

INPUT_SEED = 20_240_229
"""All kernels of all sessions run on the same inputs, so that their times compare."""

# Unscheduled code is scalar and runs through memory badly: the slowest that one input set may be.
_BASE_LIMIT_SECS = 30.0
_MIN_FLOP_PER_SEC = 5e7
_MEMORY_BYTES = 16 << 30
_FILE_BYTES = 32 << 30
_MAX_ATTEMPTS = 2


class References:
    """Paths of reference files by workload; the files go with `close`."""

    def __init__(self, cpus: tuple[int, ...]) -> None:
        self._cpus = cpus
        self._folder = tempfile.TemporaryDirectory(prefix="tunewright-")
        self._paths: dict[WorkloadKey, str] = {}
        self._attempts: dict[WorkloadKey, int] = {}
        self._running: dict[int, TuningTask] = {}

    def path(self, key: WorkloadKey) -> str | None:
        """The reference file of a workload, or None where its unscheduled kernel did not run."""
        return self._paths.get(key)

    def start_missing(self, tasks: Iterable[TuningTask], jobs: Conversation) -> None:
        """Start a job for every workload that has no reference yet; `finish` waits for them."""
        self._running.clear()
        for task in {task.workload.key: task for task in tasks}.values():
            key = task.workload.key
            if key in self._paths or self._attempts.get(key, 0) >= _MAX_ATTEMPTS:
                continue
            self._attempts[key] = self._attempts.get(key, 0) + 1
            spec = JobSpec(
                kind="reference",
                payload={
                    "task": task_to_dict(task),
                    "input_seed": INPUT_SEED,
                    "path": str(Path(self._folder.name) / key),
                },
                cpus=self._cpus,
                limit_secs=_BASE_LIMIT_SECS + task.workload.flop / _MIN_FLOP_PER_SEC,
                memory_bytes=_MEMORY_BYTES,
                file_bytes=_FILE_BYTES,
            )
            self._running[jobs.start(spec)] = task

    def finish(self, jobs: Conversation) -> None:
        """Wait until all started references are there or have failed."""
        while self._running:
            event = jobs.next_of(self._running)
            task = self._running[event.job_id]
            match event:
                case JobMessage(message={"event": "done"}):
                    key = task.workload.key
                    self._paths[key] = str(Path(self._folder.name) / key)
                case JobMessage(message={"event": "failed", "message": text}):
                    self._warn(task, text)
                case JobExit(cause=cause, code=code, signal=number):
                    del self._running[event.job_id]
                    if task.workload.key not in self._paths and (cause is not ExitCause.ENDED or code != 0):
                        self._warn(task, f"its process ended: {cause}, exit code {code}, signal {number}")

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def _warn(self, task: TuningTask, reason: str) -> None:
        name = shortened(task.workload.name)
        _logger.warning("no reference for %s, its kernels stay unverified: %s", name, reason)
