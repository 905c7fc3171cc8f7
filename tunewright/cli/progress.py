"""What a person or a program sees of a running tuning session."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tunewright.core.types import FailureKind
from tunewright.core.units import format_duration, format_ms
from tunewright.scheduler.events import (
    BatchMeasured,
    DefaultsMeasured,
    ModelRefit,
    RaceFinished,
    SessionEvent,
    SessionFinished,
    SessionStarted,
    SessionStatus,
    TaskStatus,
)

# Of the terminal's height: the header, the summary lines and the prompt.
_RESERVED_LINES = 9


class Reporter(Protocol):
    """Shows events as they come; `close` leaves the terminal as it was."""

    def __call__(self, event: SessionEvent) -> None: ...

    def close(self) -> None: ...


def make_reporter(*, json_lines: bool) -> Reporter:
    """A live table on a terminal, plain lines elsewhere, JSON lines on stdout where asked for."""
    if json_lines:
        return JsonLinesReporter(sys.stdout)
    console = Console(stderr=True)
    return LiveReporter(console) if console.is_terminal else PlainReporter(sys.stderr)


class LiveReporter:
    """One table of the tasks that matter most, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._model_line = ""

    def __call__(self, event: SessionEvent) -> None:
        match event:
            case SessionStarted(session_id=session_id, is_resumed=is_resumed):
                if is_resumed:
                    self._console.print(_resumed_line(session_id, event.status))
                self._live.start()
                self._show(event.status, active=None)
            case DefaultsMeasured():
                self._show(event.status, active=None)
            case BatchMeasured():
                self._show(event.status, active=event.task_name)
            case ModelRefit():
                self._model_line = _model_line(event)
            case SessionFinished():
                self._show(event.status, active=None)
                self.close()

    def close(self) -> None:
        self._live.stop()

    def _show(self, status: SessionStatus, *, active: str | None) -> None:
        table = status_table(status, active=active, max_rows=max(3, self._console.height - _RESERVED_LINES))
        table.caption = f"{_summary(status)}\n{self._model_line}"
        self._live.update(table, refresh=True)


class PlainReporter:
    """One line per batch, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: SessionEvent) -> None:
        match event:
            case SessionStarted(session_id=session_id, is_resumed=True):
                self._print(_resumed_line(session_id, event.status))
            case SessionStarted(session_id=session_id, status=status):
                self._print(f"tuning session {session_id}: {len(status.tasks)} tasks")
            case DefaultsMeasured():
                outcome = f"{event.num_measured}{_failures(event.failures)}"
                self._print(f"{_summary(event.status)} | default schedules: {outcome}")
            case BatchMeasured(improved_secs=improved):
                gain = f", best {format_ms(improved)}" if improved is not None else ""
                outcome = f"{event.num_measured}{_failures(event.failures)}{gain}"
                self._print(f"{_summary(event.status)} | {event.task_name}: {outcome}")
            case ModelRefit():
                self._print(_model_line(event))
            case RaceFinished(task_name=name, winner_secs=secs, num_raced=count):
                self._print(f"race of {count} on {name}: {format_ms(secs)}")

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class JsonLinesReporter:
    """One JSON object per event, with its kind in `event`; keys carry their units."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: SessionEvent) -> None:
        data: dict[str, Any] = {"event": type(event).__name__, **dataclasses.asdict(event)}
        print(json.dumps(data, default=str), file=self._stream, flush=True)

    def close(self) -> None:
        pass


def status_table(status: SessionStatus, *, active: str | None, max_rows: int) -> Table:
    """The tasks by their share of the model's time, the one that is measured marked."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True, overflow="ellipsis", min_width=24)
    for title in ("calls", "trials", "failed", "GFLOP/s", "now", "default"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = sorted(status.tasks, key=_time_share, reverse=True)
    for task in shown[:max_rows]:
        marker = "▶ " if task.name == active else "✓ " if task.is_done else "  "
        table.add_row(
            marker + task.name,
            str(task.weight),
            str(task.num_trials),
            str(task.num_failures or ""),
            f"{task.best_gflops:.1f}" if task.best_gflops else "-",
            format_ms(task.best_secs),
            format_ms(task.default_secs),
        )
    if len(shown) > max_rows:
        table.add_row(f"  … {len(shown) - max_rows} smaller ones")
    return table


def _time_share(task: TaskStatus) -> float:
    return task.weight * task.best_secs if task.best_secs is not None else float("inf")


def _summary(status: SessionStatus) -> str:
    latency = format_ms(status.latency_secs)
    left = f", {format_duration(status.remaining_secs)} left" if status.remaining_secs is not None else ""
    return f"{format_duration(status.elapsed_secs)} {status.num_trials} trials{left}, kernels {latency}"


def _resumed_line(session_id: str, status: SessionStatus) -> str:
    spent = format_duration(status.elapsed_secs)
    return f"tuning session {session_id} goes on: {status.num_resumed} trials recorded in {spent}"


def _model_line(event: ModelRefit) -> str:
    return f"cost model refit on {event.num_records} trials"


def _failures(failures: Mapping[FailureKind, int]) -> str:
    # Pruned candidates are no failures, but they were not timed to the end either: named last.
    kinds = sorted(failures, key=lambda kind: (kind is FailureKind.PRUNED, kind))
    return f" ({', '.join(f'{failures[kind]} {kind}' for kind in kinds)})" if kinds else ""
