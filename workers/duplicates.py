"""Candidates that compile to the same machine code are the same kernel: one of them runs, the others copy."""

from dataclasses import replace

from tunewright.core.types import FailureKind, MeasureFailure, MeasureResult, MeasureSuccess, TaskKey


class KnownKernels:
    """What has become of each task's kernels, by the digest of their machine code."""

    def __init__(self) -> None:
        self._results: dict[tuple[TaskKey, str], MeasureResult] = {}

    def add(self, task_key: TaskKey, result: MeasureResult) -> None:
        """Remember the result of a kernel that ran; that of a lost worker says nothing about the kernel."""
        is_lost = isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST
        if result.object_key and not is_lost:
            self._results.setdefault((task_key, result.object_key), result)

    def find(self, task_key: TaskKey, object_key: str) -> MeasureResult | None:
        """The result of an equal kernel."""
        return self._results.get((task_key, object_key))


def copy_result(original: MeasureResult, *, build_secs: float) -> MeasureResult:
    """The result of a duplicate, which took only its build; the best of a task is the one that it repeats."""
    match original:
        case MeasureSuccess():
            return replace(
                original, build_secs=build_secs, wall_secs=build_secs, is_verified=False, is_duplicate=True
            )
        case MeasureFailure(message=message):
            text = f"its machine code is that of an earlier candidate: {message}"
            return replace(original, message=text, build_secs=build_secs, wall_secs=build_secs)
