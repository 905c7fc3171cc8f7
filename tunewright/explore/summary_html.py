"""What a notebook shows of a log as a whole."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewright.core.keys import short_key
from tunewright.core.units import format_duration, format_ms
from tunewright.explore.html import Html, block, count, facts, heading, short_name, table

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TaskSummary

_MAX_TASKS = 10
_MAX_SESSIONS = 5
_SHOWN_SESSION_CHARS = 12


def summary_html(
    place: str, schema: str, tasks: "Sequence[TaskSummary]", sessions: "Sequence[SessionSummary]"
) -> Html:
    """Place and counts, the tasks with the most trials, the last sessions. Every text is escaped."""
    num_failed = sum(task.num_failed for task in tasks)
    num_pruned = sum(task.num_pruned for task in tasks)
    num_trials = sum(task.num_trials for task in tasks)
    num_machines = len({session.machine_fingerprint for session in sessions})
    counts = (
        f"schema {schema}",
        count(len(tasks), "task"),
        f"{count(num_trials, 'trial')} ({count(num_failed, 'failure')}, {num_pruned:,} pruned)",
        count(len(sessions), "session"),
        count(num_machines, "machine"),
    )
    busiest = sorted(tasks, key=lambda task: task.num_trials, reverse=True)[:_MAX_TASKS]
    parts = [heading("Tuning log", place), facts(counts)]
    if busiest:
        title = "Tasks" if len(tasks) <= _MAX_TASKS else f"The {_MAX_TASKS} tasks with the most trials"
        heads = ("task", "workload", "CPU/threads", "*trials", "*failed", "*best", "*GFLOP/s")
        parts.append(table(title, heads, [_task_cells(task) for task in busiest]))
    if sessions:
        title = "Sessions" if len(sessions) <= _MAX_SESSIONS else f"The last {_MAX_SESSIONS} sessions"
        heads = ("session", "model", "strategy", "created (UTC)", "*tasks", "*trials", "*tuned for")
        last = sessions[: -_MAX_SESSIONS - 1 : -1]
        parts.append(table(title, heads, [_session_cells(session) for session in last]))
    return block(parts)


def problem_html(place: str, problem: str) -> Html:
    """The place, and why there is nothing else to say of it."""
    return block([heading("Tuning log", place), facts([problem])])


def _task_cells(task: "TaskSummary") -> tuple[str, ...]:
    return (
        short_key(task.task_key),
        short_name(task.name),
        f"{task.target.mcpu}/{task.target.num_threads}",
        f"{task.num_trials:,}",
        f"{task.num_failed:,}",
        format_ms(task.best_secs),
        "-" if task.best_gflops is None else f"{task.best_gflops:.1f}",
    )


def _session_cells(session: "SessionSummary") -> tuple[str, ...]:
    return (
        session.session_id[:_SHOWN_SESSION_CHARS],
        short_name(session.model_name),
        session.strategy,
        f"{session.created_at:%Y-%m-%d %H:%M}",
        f"{session.num_tasks:,}",
        f"{session.num_trials:,}",
        format_duration(session.elapsed_secs),
    )
