"""From an open tuning log to the data of each plot: what the command line, notebooks and the report share.

Reading needs nothing but the log, and the session may still be running.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigError
from tunewright.core.task_shares import TaskPair, TaskShare, best_trials
from tunewright.core.trial_columns import TrialColumns
from tunewright.core.types import TaskKey
from tunewright.plots.data import (
    BestSoFar,
    Gains,
    TrialOutcomes,
    best_so_far,
    count_outcomes,
    gains_by_origin,
    gains_by_task,
    shares_by_task,
    task_shares,
)
from tunewright.plots.log_data import (
    ModelCoverage,
    Roofline,
    TaskHistory,
    make_roofline,
    model_coverage,
    task_histories,
    workload_of,
)
from tunewright.plots.model_data import ModelQuality, model_quality

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TaskSummary, TuningLog


@dataclass(frozen=True, slots=True)
class SessionData:
    """A session's trials, and what this machine had recorded of the same tasks before.

    `weights`: calls per run of the model; `tasks`, in the same order, are over all sessions and machines.
    `known` has usable trials alone.
    """

    summary: "SessionSummary"
    weights: Mapping[TaskKey, int]
    tasks: "tuple[TaskSummary, ...]"
    trials: TrialColumns = field(repr=False)
    known: TrialColumns = field(repr=False)

    @property
    def names(self) -> dict[TaskKey, str]:
        return {task.task_key: task.name for task in self.tasks}

    def best_so_far(self, task_key: TaskKey | None = None, *, is_alone: bool = False) -> BestSoFar:
        """Of the model, or of one task; `is_alone`: as if nothing had been known before."""
        weights = self.weights if task_key is None else {task_key: 1}
        known = () if is_alone else self.known
        return best_so_far(self.trials, weights, known=known, started_at=self.summary.created_at)

    def shares_by_task(self) -> dict[TaskKey, TaskShare]:
        return shares_by_task(self._known_and_own(), self.weights, self.names)

    def shares(self) -> list[TaskShare]:
        return task_shares(self._known_and_own(), self.weights, self.names)

    def gains_by_task(self) -> Gains:
        return gains_by_task(self.shares())

    def gains_by_origin(self) -> Gains:
        return gains_by_origin(self._known_and_own(), self.weights)

    def outcomes(self) -> TrialOutcomes:
        return count_outcomes(self.trials)

    def model_quality(self) -> ModelQuality:
        return model_quality(self.trials)

    def best_trials(self) -> TrialColumns:
        """The best usable trial of each task that has one, in the order of the weights."""
        return best_trials(self._known_and_own(), self.weights)

    def _known_and_own(self) -> TrialColumns:
        return self.known.followed_by(self.trials)


def read_session(log: "TuningLog", summary: "SessionSummary") -> SessionData:
    weights = log.session_weights(summary.session_id)
    tasks = {task.task_key: task for task in log.tasks()}
    trials = log.trial_columns(session_id=summary.session_id)
    return SessionData(
        summary=summary,
        weights=weights,
        tasks=tuple(tasks[task_key] for task_key in weights),
        trials=trials,
        known=log.trial_columns(
            task_keys=weights.keys(),
            machine_fingerprint=summary.machine_fingerprint,
            is_usable_only=True,
            before_record_id=int(trials.record_id[0]) if len(trials) else 0,
        ),
    )


def group_runs(sessions: Sequence["SessionSummary"]) -> "dict[str, list[SessionSummary]]":
    """Sessions that differ in nothing but their seed, under a label that tells the groups apart."""
    groups: dict[tuple[str, ...], list[SessionSummary]] = {}
    for session in sessions:
        target = f"{session.target.mcpu}, {session.target.num_threads} threads"
        facts = (session.strategy, session.model_name, target, session.machine_fingerprint[:8])
        groups.setdefault(facts, []).append(session)
    telling = [len(set(values)) > 1 for values in zip(*groups, strict=True)]
    labels: dict[str, list[SessionSummary]] = {}
    for (strategy, *others), members in groups.items():
        parts = [strategy, *(part for part, tells in zip(others, telling[1:], strict=True) if tells)]
        labels[", ".join(parts)] = members
    return labels


def read_pairs(log: "TuningLog", a: "SessionSummary", b: "SessionSummary") -> list[TaskPair]:
    """The tasks for which both sessions have a usable time, weighted by the calls in A.

    Raises:
        ConfigError: they were timed on different machines.
    """
    from tunewright.tuning_logs.session_pairs import session_pairs

    return session_pairs(log, a, b)


def read_roofline(log: "TuningLog", session: SessionData) -> Roofline:
    """Raises: ConfigError where the machine's limits have not been measured."""
    summary = session.summary
    peak = log.peak(summary.target, machine_fingerprint=summary.machine_fingerprint)
    if peak is None:
        raise ConfigError(
            f"the log has no limits of machine {summary.machine_fingerprint} for {summary.target.mcpu} with "
            f"{summary.target.num_threads} threads: measure them there with `tunewright machine peak`"
        )
    trials = session.best_trials()
    best = dict(zip(_keys(trials), trials.usable_secs.tolist(), strict=True))
    tasks = sorted(
        (task for task in session.tasks if task.task_key in best),
        key=lambda task: -session.weights[task.task_key] * best[task.task_key],
    )
    return make_roofline([(workload_of(task), best[task.task_key]) for task in tasks], peak)


def read_history(log: "TuningLog", session: SessionData) -> list[TaskHistory]:
    """Of the session's tasks, over all sessions on its machine; the costliest task first."""
    shares = session.shares_by_task()
    costs = {task_key: share.weight * share.before_secs for task_key, share in shares.items()}
    tasks = sorted(session.tasks, key=lambda task: -costs.get(task.task_key, 0.0))
    trials = log.trial_columns(
        task_keys=session.weights.keys(),
        machine_fingerprint=session.summary.machine_fingerprint,
        is_usable_only=True,
    )
    return task_histories(trials, {task.task_key: task.name for task in tasks})


def read_coverage(log: "TuningLog", sessions: Sequence["SessionSummary"]) -> list[ModelCoverage]:
    """Of the models of the sessions, each with each target once, in the order of their last session."""
    newest = {(session.model_name, session.target): session for session in sessions}
    tasks = log.tasks()
    unusable = [task.task_key for task in tasks if task.num_trials and not task.num_usable]
    num_quarantined = {task_key: sum(log.quarantine_counts(task_key).values()) for task_key in unusable}
    has_targets = len({target for _, target in newest}) > 1
    return [
        model_coverage(
            f"{name}, {target.mcpu}/{target.num_threads}" if has_targets else name,
            tasks,
            log.session_weights(session.session_id),
            num_quarantined,
        )
        for (name, target), session in newest.items()
    ]


def _keys(trials: TrialColumns) -> list[TaskKey]:
    return [trials.task_keys[code] for code in trials.task.tolist()]
