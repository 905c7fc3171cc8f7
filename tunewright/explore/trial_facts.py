"""Single facts of a record, whether it succeeded or failed: what the command line's tables show."""

from collections.abc import Iterable

from tunewright.core.types import MeasureFailure, MeasureSuccess, RecordedTrial, TensorSpec


def args_text(args: Iterable[TensorSpec]) -> str:
    """Such as "float32[64,64] int8[64]"."""
    return " ".join(f"{arg.dtype}[{','.join(map(str, arg.shape))}]" for arg in args)


def success(trial: RecordedTrial) -> MeasureSuccess | None:
    result = trial.record.result
    return result if isinstance(result, MeasureSuccess) else None


def failure(trial: RecordedTrial) -> MeasureFailure | None:
    result = trial.record.result
    return result if isinstance(result, MeasureFailure) else None


def status(trial: RecordedTrial) -> str:
    """ "ok" or the kind of failure."""
    failed = failure(trial)
    return "ok" if failed is None else failed.kind.value


def message(trial: RecordedTrial) -> str | None:
    failed = failure(trial)
    return None if failed is None else failed.message


def steal_ratio(trial: RecordedTrial) -> float | None:
    timed = success(trial)
    return None if timed is None else timed.steal_ratio


def is_verified(trial: RecordedTrial) -> bool:
    timed = success(trial)
    return timed is not None and timed.is_verified


def is_noisy(trial: RecordedTrial) -> bool:
    timed = success(trial)
    return timed is not None and timed.is_noisy


def is_duplicate(trial: RecordedTrial) -> bool:
    timed = success(trial)
    return timed is not None and timed.is_duplicate
