"""A tuning session as an object: one line on a terminal, a page in a notebook, a frame of its tasks."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tunewright.core.keys import short_key
from tunewright.core.task_shares import shares_by_task, task_places
from tunewright.core.text import printable
from tunewright.core.trial_columns import FAILURE_KINDS, SUCCEEDED, TrialColumns
from tunewright.core.types import FailureKind, TaskKey
from tunewright.core.units import format_duration, format_ms
from tunewright.explore.frames import COUNT, NUMBER, TEXT, Column, make_frame
from tunewright.explore.html import (
    Html,
    block,
    count,
    facts,
    heading,
    paragraph,
    short_name,
    table,
)

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.tuning_logs import SessionSummary, TaskSummary, TuningLog

_SHOWN_CHARS = 12
_MAX_TASKS = 12


@dataclass(frozen=True, slots=True)
class SessionTask:
    """One task of a session: `calls` per run of the model, and its trials in this session.

    Seconds per call of usable records, None where there is none: `before_secs` of the default schedule, or of
    the first success where that was not measured; `best_secs` of the best that the machine knew at the end.
    """

    task: "TaskSummary"
    calls: int
    num_trials: int
    num_failed: int
    num_pruned: int
    before_secs: float | None
    best_secs: float | None

    @property
    def speedup(self) -> float | None:
        return None if self.before_secs is None or not self.best_secs else self.before_secs / self.best_secs


@dataclass(frozen=True, slots=True)
class Session:
    """One tuning session, as far as it is: `tasks`, the costliest before tuning first.

    `before_secs` and `best_secs` estimate one run of the model, from the tasks that have a time; NaN where
    none has one.
    """

    summary: "SessionSummary"
    tasks: tuple[SessionTask, ...] = field(repr=False)
    failures: Mapping[FailureKind, int]

    @property
    def session_id(self) -> str:
        return self.summary.session_id

    @property
    def before_secs(self) -> float:
        return _sum(task.calls * task.before_secs for task in self.tasks if task.before_secs is not None)

    @property
    def best_secs(self) -> float:
        return _sum(task.calls * task.best_secs for task in self.tasks if task.best_secs is not None)

    def to_frame(self) -> "pd.DataFrame":
        """One row per task, the costliest before tuning first."""
        return make_frame(self.tasks, _COLUMNS)

    def __repr__(self) -> str:
        summary = self.summary
        of_what = f"{summary.session_id[:_SHOWN_CHARS]} of {short_name(summary.model_name)}"
        how = f"{summary.strategy}, seed {summary.seed}, {count(len(self.tasks), 'task')}"
        return f"<Session {printable(of_what)}: {printable(how)}, {self._trials_text()}, {self._gain_text()}>"

    def _repr_html_(self) -> Html:
        summary = self.summary
        num_threads = summary.target.num_threads
        parts = [
            heading("Session", summary.session_id),
            facts(
                (
                    short_name(summary.model_name),
                    f"{summary.strategy}, seed {summary.seed}",
                    f"{summary.target.mcpu}, {count(num_threads, 'thread')}",
                    f"machine {summary.machine_fingerprint}",
                    f"begun {summary.created_at:%Y-%m-%d %H:%M} UTC",
                    f"tuned for {format_duration(summary.elapsed_secs)}",
                )
            ),
            paragraph(f"{self._gain_text()} per run of the model; {self._trials_text()}"),
        ]
        if self.tasks:
            some = self.tasks[:_MAX_TASKS]
            is_cut = len(some) < len(self.tasks)
            title = f"The {_MAX_TASKS} costliest of {len(self.tasks):,} tasks" if is_cut else "Tasks"
            heads = ("task", "workload", "*calls", "*trials", "*failed", "*before", "*best", "*speedup")
            parts.append(table(title, heads, [_cells(task) for task in some]))
        if self.failures:
            total = sum(task.num_trials for task in self.tasks)
            rows = [
                (kind.value, f"{number:,}", f"{100 * number / total:.1f} %")
                for kind, number in self.failures.items()
            ]
            parts.append(table("Failed and pruned trials", ("kind", "*trials", "*share"), rows))
        return block(parts)

    def _trials_text(self) -> str:
        num_pruned = self.failures.get(FailureKind.PRUNED, 0)
        num_failed = sum(self.failures.values()) - num_pruned
        trials = count(sum(task.num_trials for task in self.tasks), "trial")
        return f"{trials} ({num_failed:,} failed, {num_pruned:,} pruned)"

    def _gain_text(self) -> str:
        timed = [task for task in self.tasks if task.best_secs is not None]
        if not timed:
            return "no verified time yet"
        whole = "" if len(timed) == len(self.tasks) else f" (of {len(timed)} tasks with a time)"
        ratio = self.before_secs / self.best_secs
        return f"{format_ms(self.before_secs)} -> {format_ms(self.best_secs)}, {ratio:.3g}x as fast{whole}"


def read_session(log: "TuningLog", summary: "SessionSummary") -> Session:
    """As the log has it now; the session may still be running."""
    weights = log.session_weights(summary.session_id)
    tasks = {task.task_key: task for task in log.tasks()}
    trials = log.trial_columns(session_id=summary.session_id)
    known = log.trial_columns(
        task_keys=weights.keys(),
        machine_fingerprint=summary.machine_fingerprint,
        is_usable_only=True,
        before_record_id=int(trials.record_id[0]) if len(trials) else 0,
    )
    names = {task_key: tasks[task_key].name for task_key in weights}
    shares = shares_by_task(known.followed_by(trials), weights, names)
    num_trials = _count_by_task(trials, weights)
    pruned = trials.failure == FAILURE_KINDS.index(FailureKind.PRUNED)
    num_pruned = _count_by_task(trials.rows(pruned), weights)
    num_unsuccessful = _count_by_task(trials.rows(trials.failure != SUCCEEDED), weights)
    found = [
        SessionTask(
            tasks[task_key],
            calls,
            num_trials[task_key],
            num_unsuccessful[task_key] - num_pruned[task_key],
            num_pruned[task_key],
            shares[task_key].before_secs if task_key in shares else None,
            shares[task_key].after_secs if task_key in shares else None,
        )
        for task_key, calls in weights.items()
    ]
    found.sort(key=lambda task: -task.calls * (task.before_secs or 0.0))
    return Session(summary, tuple(found), log.failure_counts(session_id=summary.session_id))


def _count_by_task(trials: TrialColumns, weights: Mapping[TaskKey, int]) -> dict[TaskKey, int]:
    counts = np.bincount(task_places(trials, weights), minlength=len(weights))
    return dict(zip(weights, counts.tolist(), strict=True))


def _sum(values: Iterable[float]) -> float:
    return math.fsum(values) or math.nan


def _cells(task: SessionTask) -> tuple[str, ...]:
    return (
        short_key(task.task.task_key),
        short_name(task.task.name),
        f"{task.calls:,}",
        f"{task.num_trials:,}",
        f"{task.num_failed:,}",
        format_ms(task.before_secs),
        format_ms(task.best_secs),
        "-" if task.speedup is None else f"{task.speedup:.2f}x",
    )


_COLUMNS: list[Column[SessionTask]] = [
    Column("task_key", TEXT, lambda t: t.task.task_key),
    Column("workload", TEXT, lambda t: t.task.name),
    Column("calls", COUNT, lambda t: t.calls),
    Column("num_trials", COUNT, lambda t: t.num_trials),
    Column("num_failed", COUNT, lambda t: t.num_failed),
    Column("num_pruned", COUNT, lambda t: t.num_pruned),
    Column("before_secs", NUMBER, lambda t: t.before_secs),
    Column("best_secs", NUMBER, lambda t: t.best_secs),
    Column("speedup_ratio", NUMBER, lambda t: t.speedup),
    Column("best_gflops", NUMBER, lambda t: None if t.best_secs is None else t.task.flop / t.best_secs / 1e9),
]
