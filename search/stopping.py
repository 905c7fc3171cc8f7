"""When a task has had enough."""

from collections.abc import Sequence


def is_stalled(best_secs_by_trial: Sequence[float], patience: int, min_gain_ratio: float) -> bool:
    """Whether the last `patience` trials together gained less than `min_gain_ratio`.

    Args:
        best_secs_by_trial: best seconds per call after each trial, never increasing; infinite until there
            is a first one. Trials that all failed count as stalled once there are more than `patience`.
        min_gain_ratio: 0.01 means 1 % of the time before these trials.

    Raises:
        ValueError: `patience` is below 1.
    """
    if patience < 1:
        raise ValueError(f"patience is {patience}, expected at least 1 trial")
    if len(best_secs_by_trial) <= patience:
        return False
    before, now = best_secs_by_trial[-1 - patience], best_secs_by_trial[-1]
    if now == float("inf"):
        return True
    return now > before * (1.0 - min_gain_ratio)
