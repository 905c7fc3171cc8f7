"""`tunewright plot`: pictures of a tuning session, drawn from the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tunewright.cli import settings
from tunewright.core.errors import ConfigError, RecordNotFoundError

if TYPE_CHECKING:
    from tunewright.core.types import TaskKey, TuningRecord
    from tunewright.tuning_logs import SessionSummary, TuningLog

app = typer.Typer(no_args_is_help=True, help="Draw a tuning session to a PNG, SVG or PDF file.")

_FORMATS = (".png", ".svg", ".pdf")

Key = TypeVar("Key", bound=str)
SessionArgument = Annotated[
    str | None, typer.Argument(metavar="[SESSION]", help="First digits of a session's id; the latest one.")
]
OutputOption = Annotated[
    Path, typer.Option("-o", "--output", help="Where to draw: a .png, .svg or .pdf file.")
]


class XAxisChoice(StrEnum):
    """What the curve is drawn against."""

    TRIALS = "trials"
    SECONDS = "seconds"


@app.command()
def curve(
    output: OutputOption,
    session: SessionArgument = None,
    task: Annotated[
        str | None, typer.Option(help="First digits of a task's key: draw this task, not the model.")
    ] = None,
    x: Annotated[
        XAxisChoice, typer.Option("-x", help="Count trials, or the seconds of building and measuring.")
    ] = XAxisChoice.TRIALS,
    log: settings.LogOption = None,
) -> None:
    """Draw the best latency so far of a session's model, or of one of its tasks."""
    _check_format(output)
    from tunewright.plots import best_so_far, offscreen_axes, save, tuning_curve

    data = _read(settings.log_url(log), session)
    weights, what = data.weights, data.summary.model_name
    if task is not None:
        task_key = _only_match(task, list(data.weights), f"tasks of {data.summary.session_id}")
        weights, what = {task_key: 1}, data.names[task_key]
    run = best_so_far(data.records, weights, known=data.known)
    label = f"{data.summary.strategy}, seed {data.summary.seed}"
    try:
        ax = tuning_curve({label: [run]}, x=x.value, ax=offscreen_axes())
    except ValueError as error:
        raise _nothing_to_draw(data, error) from None
    ax.set_title(_title(what, data.summary), fontsize="medium")
    save(ax, output)
    typer.echo(f"wrote {output}", err=True)


@app.command()
def tasks(output: OutputOption, session: SessionArgument = None, log: settings.LogOption = None) -> None:
    """Draw where the time of a session's model goes, task by task, before and after tuning."""
    _check_format(output)
    from tunewright.plots import breakdown_height_inches, offscreen_axes, save, task_breakdown, task_shares

    data = _read(settings.log_url(log), session)
    shares = task_shares([*data.known, *data.records], data.weights, data.names)
    height_inches = breakdown_height_inches(len(shares))
    try:
        ax = task_breakdown(shares, ax=offscreen_axes(height_inches=height_inches))
    except ValueError as error:
        raise _nothing_to_draw(data, error) from None
    ax.set_title(_title(data.summary.model_name, data.summary), fontsize="medium")
    save(ax, output)
    typer.echo(f"wrote {output}", err=True)


@dataclass(frozen=True, slots=True)
class _SessionData:
    """A session's trials, and those of the same tasks that this machine had recorded before."""

    summary: "SessionSummary"
    records: "list[TuningRecord]"
    known: "list[TuningRecord]"
    weights: "dict[TaskKey, int]"
    names: "dict[TaskKey, str]"


def _read(log_url: str, session_prefix: str | None) -> _SessionData:
    from tunewright.tuning_logs import TuningLog

    with TuningLog.open(log_url, read_only=True) as tuning_log:
        summary = _find_session(tuning_log, session_prefix)
        trials = tuning_log.session_trials(summary.session_id)
        weights = tuning_log.session_weights(summary.session_id)
        first_id = trials[0].record_id if trials else 0
        return _SessionData(
            summary,
            records=[trial.record for trial in trials],
            known=[
                trial.record
                for task_key in weights
                for trial in tuning_log.trials(task_key, machine_fingerprint=summary.machine_fingerprint)
                if trial.record_id < first_id
            ],
            weights=weights,
            names={task.task_key: task.name for task in tuning_log.tasks() if task.task_key in weights},
        )


def _find_session(tuning_log: "TuningLog", prefix: str | None) -> "SessionSummary":
    sessions = {summary.session_id: summary for summary in tuning_log.sessions()}
    if not sessions:
        raise RecordNotFoundError("the tuning log holds no session yet: make one with `tunewright tune`")
    if prefix is None:
        return list(sessions.values())[-1]
    return sessions[_only_match(prefix, list(sessions), "sessions")]


def _only_match(prefix: str, keys: Sequence[Key], what: str) -> Key:
    """The one key that begins with the prefix."""
    matches = [key for key in keys if key.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(key[:16] for key in (matches or keys)[-8:])
    fault = f"{len(matches)} begin with" if matches else "none begins with"
    raise ConfigError(f"{what}: {fault} '{prefix}'; choose one of {known}")


def _nothing_to_draw(data: _SessionData, error: ValueError) -> RecordNotFoundError:
    num_trials = data.summary.num_trials
    return RecordNotFoundError(f"session {data.summary.session_id} with {num_trials} trials: {error}")


def _title(what: str, summary: "SessionSummary") -> str:
    num_threads = summary.target.num_threads
    return f"{what} on {summary.target.mcpu}, {num_threads} thread{'' if num_threads == 1 else 's'}"


def _check_format(output: Path) -> None:
    if output.suffix.lower() not in _FORMATS:
        raise ConfigError(f"cannot draw to '{output}': end its name in {', '.join(_FORMATS)}")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"cannot draw to '{output}': its folder does not exist")
