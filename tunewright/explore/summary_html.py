"""What a notebook shows of a log: HTML that stands alone, without scripts, on dark ground or light."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from tunewright.core.keys import short_key
from tunewright.core.units import format_duration, format_ms

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TaskSummary

_MAX_TASKS = 10
_MAX_SESSIONS = 5
_MAX_NAME_CHARS = 60
_SHOWN_SESSION_CHARS = 12

# No color of our own: text and lines follow the notebook's.
_CELL = 'style="text-align:left;border-bottom:1px solid rgba(128,128,128,0.35);padding:2px 12px 2px 0"'
_NUMBER_CELL = _CELL.replace("left", "right", 1)


def summary_html(
    place: str, schema: str, tasks: "Sequence[TaskSummary]", sessions: "Sequence[SessionSummary]"
) -> str:
    """Place and counts, the tasks with the most trials, the last sessions. Every text is escaped."""
    num_failed = sum(task.num_failed for task in tasks)
    num_pruned = sum(task.num_pruned for task in tasks)
    num_trials = sum(task.num_trials for task in tasks)
    num_machines = len({session.machine_fingerprint for session in sessions})
    counts = (
        f"schema {schema}",
        _count(len(tasks), "task"),
        f"{_count(num_trials, 'trial')} ({_count(num_failed, 'failure')}, {num_pruned:,} pruned)",
        _count(len(sessions), "session"),
        _count(num_machines, "machine"),
    )
    busiest = sorted(tasks, key=lambda task: task.num_trials, reverse=True)[:_MAX_TASKS]
    parts = [_heading(place), f"<div>{escape(' · '.join(counts))}</div>"]
    if busiest:
        title = "Tasks" if len(tasks) <= _MAX_TASKS else f"The {_MAX_TASKS} tasks with the most trials"
        heads = ("task", "workload", "CPU/threads", "*trials", "*failed", "*best", "*GFLOP/s")
        parts.append(_table(title, heads, [_task_cells(task) for task in busiest]))
    if sessions:
        title = "Sessions" if len(sessions) <= _MAX_SESSIONS else f"The last {_MAX_SESSIONS} sessions"
        heads = ("session", "model", "strategy", "created (UTC)", "*tasks", "*trials", "*tuned for")
        last = sessions[: -_MAX_SESSIONS - 1 : -1]
        parts.append(_table(title, heads, [_session_cells(session) for session in last]))
    return f"<div>{''.join(parts)}</div>"


def problem_html(place: str, problem: str) -> str:
    """The place, and why there is nothing else to say of it."""
    return f"<div>{_heading(place)}<div>{escape(problem)}</div></div>"


def _heading(place: str) -> str:
    return f"<div><b>Tuning log</b> <code>{escape(place)}</code></div>"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short_name(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else f"{name[: _MAX_NAME_CHARS - 1]}…"


def _task_cells(task: "TaskSummary") -> tuple[str, ...]:
    return (
        short_key(task.task_key),
        _short_name(task.name),
        f"{task.target.mcpu}/{task.target.num_threads}",
        f"{task.num_trials:,}",
        f"{task.num_failed:,}",
        format_ms(task.best_secs),
        "-" if task.best_gflops is None else f"{task.best_gflops:.1f}",
    )


def _session_cells(session: "SessionSummary") -> tuple[str, ...]:
    return (
        session.session_id[:_SHOWN_SESSION_CHARS],
        _short_name(session.model_name),
        session.strategy,
        f"{session.created_at:%Y-%m-%d %H:%M}",
        f"{session.num_tasks:,}",
        f"{session.num_trials:,}",
        format_duration(session.elapsed_secs),
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the columns of heads that begin with a `*` hold numbers and stand to the right."""
    styles = [_NUMBER_CELL if head.startswith("*") else _CELL for head in heads]
    head_cells = (
        f"<th {style}>{escape(head.removeprefix('*'))}</th>"
        for style, head in zip(styles, heads, strict=True)
    )
    lines = (
        "".join(f"<td {style}>{escape(cell)}</td>" for style, cell in zip(styles, row, strict=True))
        for row in rows
    )
    return (
        f'<div style="margin-top:8px"><b>{escape(title)}</b></div>'
        '<table style="border-collapse:collapse">'
        f"<thead><tr>{''.join(head_cells)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )
