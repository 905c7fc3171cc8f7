"""A fixed kernel that is timed before and after each batch: it tells how fast the machine is just now."""

import logging
import statistics
from dataclasses import asdict

from tunewright.core.types import EvaluatorConfig, TargetSpec
from tunewright.workers.codec import target_to_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool, new_mailbox
from tunewright.workers.references import INPUT_SEED

_logger = logging.getLogger(__name__)

MOVED_RATIO = 1.03
"""The machine's speed has changed if the yardstick's time has changed by more than this."""

_NUM_SAMPLES = 4
_EVALUATOR = EvaluatorConfig(min_sample_secs=0.003)
_LIMIT_SECS = 30.0
_MEMORY_BYTES = 2 << 30
_MAX_FAILURES = 2

Samples = tuple[float, ...]


class Yardstick:
    """The kernel in a child that lives as long as its zygote. Without it, measuring goes on unwatched."""

    def __init__(self, pool: Pool, config: WorkerConfig) -> None:
        self._pool = pool
        self._config = config
        self._mailbox = new_mailbox()
        self._job_id: int | None = None
        self._is_ready = False
        self._is_prepared = False
        self._num_failures = 0

    def start(self, target: TargetSpec) -> None:
        """Have the kernel built, if it is not there and has not failed twice."""
        self._read_exits()
        if self._job_id is None and self._num_failures < _MAX_FAILURES:
            spec = JobSpec(
                kind="yardstick",
                payload={"target": target_to_dict(target), "input_seed": INPUT_SEED},
                cpus=self._config.build_cpus,
                limit_secs=_LIMIT_SECS,
                memory_bytes=_MEMORY_BYTES,
                is_expendable=True,
            )
            self._is_ready = self._is_prepared = False
            self._job_id = self._pool.start(spec, self._mailbox)

    def finish(self) -> None:
        """Wait until the kernel is built, or cannot be."""
        if self._job_id is not None and not self._is_ready:
            self._is_ready = self._next_message() is not None

    def sample(self) -> Samples:
        """Seconds per call now, 4 samples; none where there is no yardstick."""
        if not self._is_prepared:
            settings = {"evaluator": asdict(_EVALUATOR), "cpus": self._config.timing_cpus}
            self._is_prepared = self._ask({"op": "prepare", **settings}) is not None
        samples: list[float] = []
        for _ in range(_NUM_SAMPLES):
            if (answer := self._ask({"op": "sample"})) is None:
                return ()
            samples.append(float(answer["secs"]))
        return tuple(samples)

    def _ask(self, command: Message) -> Message | None:
        if self._job_id is None:
            return None
        self._pool.send(self._job_id, command, limit_secs=_LIMIT_SECS)
        return self._next_message()

    def _next_message(self) -> Message | None:
        match self._pool.wait(self._mailbox):
            case JobMessage(message={"event": "failed", "message": text}):
                _logger.warning("the yardstick failed, batches are timed without it: %s", text)
                return None  # its exit follows
            case JobMessage(message=message):
                return message
            case JobExit() as gone:
                self._note_exit(gone)
        return None

    def _read_exits(self) -> None:
        while not self._mailbox.empty():
            match self._mailbox.get():
                case JobExit() as gone:
                    self._note_exit(gone)

    def _note_exit(self, gone: JobExit) -> None:
        self._job_id = None
        if gone.cause not in (ExitCause.LOST, ExitCause.CANCELLED):
            self._num_failures += 1
            _logger.warning("the yardstick's process ended (%s): batches are timed without it", gone.cause)


def has_moved(before: Samples, after: Samples) -> bool:
    """Whether the machine's speed has changed in between; False where it is not known.

    The medians must differ by more than 3 %, and no sample of one may lie among those of the other: noise
    alone does that once in 35 times.
    """
    if not before or not after:
        return False
    slow, fast = sorted((before, after), key=statistics.median, reverse=True)
    is_apart = min(slow) > max(fast)
    return is_apart and statistics.median(slow) > MOVED_RATIO * statistics.median(fast)
