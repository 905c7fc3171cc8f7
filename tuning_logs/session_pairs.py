"""Two sessions against each other, task by task."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigError
from tunewright.core.task_shares import TaskPair, best_trials
from tunewright.core.types import TaskKey

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TuningLog


def session_pairs(log: "TuningLog", a: "SessionSummary", b: "SessionSummary") -> list[TaskPair]:
    """The tasks for which both sessions have a usable time, weighted by the calls in A.

    Raises:
        ConfigError: they were timed on different machines.
    """
    machines = [session.machine_fingerprint for session in (a, b)]
    if machines[0] != machines[1]:
        raise ConfigError(
            f"sessions {a.session_id} and {b.session_id} were timed on different machines "
            f"({machines[0]}, {machines[1]}): their times do not compare"
        )
    weights = log.session_weights(a.session_id)
    samples_a, samples_b = (dict(_best_samples(log, session)) for session in (a, b))
    both = [task_key for task_key in weights if task_key in samples_a and task_key in samples_b]
    names = {task.task_key: task.name for task in log.tasks()} if both else {}
    return [TaskPair(names[key], weights[key], samples_a[key], samples_b[key]) for key in both]


def _best_samples(log: "TuningLog", session: "SessionSummary") -> Iterator[tuple[TaskKey, tuple[float, ...]]]:
    """Of the best record of each task that the session measured itself, what it ranks by."""
    weights = log.session_weights(session.session_id)
    trials = best_trials(log.trial_columns(session_id=session.session_id, is_usable_only=True), weights)
    for code, record_id in zip(trials.task.tolist(), trials.record_id.tolist(), strict=True):
        races = log.races(record_id)
        samples = races[-1].run_secs if races else log.record(record_id).record.result.run_secs
        yield trials.task_keys[code], samples
