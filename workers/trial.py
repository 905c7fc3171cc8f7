"""A measure input on its way through a batch, and what its child's answers mean."""

from dataclasses import dataclass

from tunewright.core.types import FailureKind, MeasureFailure, MeasureInput, MeasureSuccess, TaskKey
from tunewright.workers.events import JobExit, JobMessage, classify_exit
from tunewright.workers.frames import Message
from tunewright.workers.timing import Timing


@dataclass(slots=True)
class Trial:
    """One input; `index` is its place in the batch.

    It is built on one of `build_cpus`. `spent_secs` is the wall-clock time of its runs, without that in which
    it waited for its turn.
    """

    index: int
    input: MeasureInput
    job_id: int
    build_cpus: tuple[int, ...]
    started: float
    limit_secs: float
    build_secs: float = 0.0
    spent_secs: float = 0.0
    object_key: str = ""
    steal_ratio: float = 0.0

    @property
    def task_key(self) -> TaskKey:
        return self.input.task.key

    def success(self, timing: Timing, *, is_verified: bool) -> MeasureSuccess:
        """Its result."""
        return MeasureSuccess(
            run_secs=timing.run_secs,
            build_secs=self.build_secs,
            wall_secs=self.build_secs + self.spent_secs,
            is_verified=is_verified,
            steal_ratio=self.steal_ratio,
            object_key=self.object_key,
        )

    def failure(self, kind: FailureKind, message: str, run_secs: tuple[float, ...] = ()) -> MeasureFailure:
        """Its result."""
        return MeasureFailure(
            kind,
            message,
            self.build_secs + self.spent_secs,
            build_secs=self.build_secs,
            run_secs=run_secs,
            object_key=self.object_key,
        )

    def answer(
        self, event: JobMessage | JobExit, *, is_building: bool, limit_secs: float
    ) -> Message | MeasureFailure:
        """The child's message, or the failure that it reports or that its death means."""
        match event:
            case JobMessage(message={"event": "failed", "kind": kind, "message": text} as report):
                if is_building and report.get("unexpected") and kind == FailureKind.RUN:
                    kind = FailureKind.BUILD
                return self.failure(FailureKind(kind), text)
            case JobMessage(message=message):
                return message
            case JobExit() as gone:
                return self.failure(*classify_exit(gone, is_building=is_building, limit_secs=limit_secs))
