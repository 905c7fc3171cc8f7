"""`tunewright plot`: pictures of tuning sessions and of the log, drawn from the log alone."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tunewright.cli import settings
from tunewright.core.errors import ConfigError, RecordNotFoundError

if TYPE_CHECKING:
    from tunewright.core.types import TaskKey
    from tunewright.plots import BestSoFar, SessionData
    from tunewright.plots.axes import Axes
    from tunewright.plots.curve import XAxis
    from tunewright.tuning_logs import SessionSummary, TuningLog

app = typer.Typer(no_args_is_help=True, help="Draw tuning sessions, or the log, to a PNG, SVG or PDF file.")

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
    DEVICE_SECONDS = "device-seconds"
    WALL_SECONDS = "wall-seconds"


class ModelView(StrEnum):
    """How the cost model is drawn."""

    OVER_TIME = "over-time"
    PLACES = "places"


class GainView(StrEnum):
    """What the gain is split by."""

    TASK = "task"
    ORIGIN = "origin"


@app.callback()
def _quickly(context: typer.Context) -> None:
    context.with_resource(without_collecting())


@contextmanager
def without_collecting() -> Iterator[None]:
    """A command imports, draws and ends; to look for cycles meanwhile takes a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@app.command()
def curve(
    output: OutputOption,
    sessions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SESSION]...", help="First digits of sessions' ids; the latest one."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="First digits of a task's key: draw this task, not the model.")
    ] = None,
    x: Annotated[
        XAxisChoice,
        typer.Option(
            "-x", help="Count trials, or seconds: building and measuring, on the device, the clock's."
        ),
    ] = XAxisChoice.TRIALS,
    log: settings.LogOption = None,
) -> None:
    """Draw the best latency so far of a session's model, or of one of its tasks.

    Several sessions are drawn as if each had begun with an empty log; those that differ in their seed alone,
    as their median within a band.
    """
    from tunewright.plots import offscreen_axes, tuning_curve

    _check_format(output)
    with _open(log) as tuning_log:
        chosen = [find_session(tuning_log, prefix) for prefix in sessions or (None,)]
        curves, what = _curves(tuning_log, chosen, task)
    with _nothing_to_draw(*chosen):
        ax = tuning_curve(curves, x=_X_AXES[x], ax=offscreen_axes())
    _save(ax, output, _title(what, chosen[-1]))


@app.command()
def tasks(output: OutputOption, session: SessionArgument = None, log: settings.LogOption = None) -> None:
    """Draw where the time of a session's model goes, task by task, before and after tuning."""
    from tunewright.plots import breakdown_height_inches, offscreen_axes, task_breakdown

    def draw(data: "SessionData") -> "Axes":
        shares = data.shares()
        height_inches = breakdown_height_inches(len(shares))
        return task_breakdown(shares, ax=offscreen_axes(height_inches=height_inches))

    _draw_session(output, session, log, draw)


@app.command()
def gain(
    output: OutputOption,
    session: SessionArgument = None,
    by: Annotated[
        GainView, typer.Option(help="Split by task, or by where the candidates came from.")
    ] = GainView.TASK,
    log: settings.LogOption = None,
) -> None:
    """Draw where the gain came from: from the default schedules' time to the tuned one, step by step."""
    from tunewright.plots import gain_height_inches, offscreen_axes, where_the_gain_came_from

    def draw(data: "SessionData") -> "Axes":
        gains = data.gains_by_task() if by is GainView.TASK else data.gains_by_origin()
        height_inches = gain_height_inches(len(gains.steps))
        return where_the_gain_came_from(gains, ax=offscreen_axes(height_inches=height_inches))

    _draw_session(output, session, log, draw)


@app.command()
def outcomes(output: OutputOption, session: SessionArgument = None, log: settings.LogOption = None) -> None:
    """Draw what came of a session's trials: verified, duplicates, pruned, failures by kind."""
    from tunewright.plots import offscreen_axes, trial_outcomes

    _draw_session(output, session, log, lambda data: trial_outcomes(data.outcomes(), ax=offscreen_axes()))


@app.command()
def model(
    output: OutputOption,
    session: SessionArgument = None,
    show: Annotated[
        ModelView,
        typer.Option(help="Agreement over time, or predicted places against measured ones."),
    ] = ModelView.OVER_TIME,
    log: settings.LogOption = None,
) -> None:
    """Draw how well the cost model ranked a session's candidates before they were measured."""
    from tunewright.plots import cost_model, offscreen_axes

    def draw(data: "SessionData") -> "Axes":
        quality = data.model_quality()
        if show is ModelView.PLACES:
            return cost_model(quality, show="places", ax=offscreen_axes())
        return cost_model(quality, ax=offscreen_axes())

    _draw_session(output, session, log, draw)


@app.command()
def roofline(output: OutputOption, session: SessionArgument = None, log: settings.LogOption = None) -> None:
    """Draw a session's best records under the limits of its machine (see `tunewright machine peak`)."""
    from tunewright.plots import ROOFLINE_INCHES, offscreen_axes, read_roofline
    from tunewright.plots import roofline as draw

    _check_format(output)
    with _open(log) as tuning_log:
        data = _read(tuning_log, session)
        limits = read_roofline(tuning_log, data)
    with _nothing_to_draw(data.summary):
        ax = draw(limits, ax=offscreen_axes(height_inches=ROOFLINE_INCHES))
    _save(ax, output, _title(data.summary.model_name, data.summary))


@app.command()
def history(output: OutputOption, session: SessionArgument = None, log: settings.LogOption = None) -> None:
    """Draw how the best times of a session's tasks fell, over all sessions on its machine."""
    from tunewright.plots import HISTORY_INCHES, offscreen_axes, read_history
    from tunewright.plots import history as draw

    _check_format(output)
    with _open(log) as tuning_log:
        data = _read(tuning_log, session)
        histories = read_history(tuning_log, data)
    with _nothing_to_draw(data.summary):
        ax = draw(histories, ax=offscreen_axes(height_inches=HISTORY_INCHES))
    _save(ax, output, _title(data.summary.model_name, data.summary))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="First digits of a session's id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Those of the session to compare with it.")],
    output: OutputOption,
    log: settings.LogOption = None,
) -> None:
    """Draw how much faster or slower the best records of session B are than those of session A.

    Sessions are not measured interleaved: what a machine that was busy adds is in the ratios.
    """
    from tunewright.plots import compare as draw
    from tunewright.plots import compare_height_inches, offscreen_axes, read_pairs

    _check_format(output)
    with _open(log) as tuning_log:
        one, other = (find_session(tuning_log, prefix) for prefix in (a, b))
        pairs = read_pairs(tuning_log, one, other)
    a_name, b_name = (session.session_id[:_SHOWN_CHARS] for session in (one, other))
    with _nothing_to_draw(one, other):
        axes = offscreen_axes(height_inches=compare_height_inches(len(pairs)))
        ax = draw(pairs, a_name=a_name, b_name=b_name, ax=axes)
    _save(ax, output, _title(other.model_name, other))


@app.command()
def coverage(output: OutputOption, log: settings.LogOption = None) -> None:
    """Draw for each model of the log how much of its predicted time is in tasks with a verified record."""
    from tunewright.plots import coverage as draw
    from tunewright.plots import coverage_height_inches, offscreen_axes, read_coverage

    _check_format(output)
    with _open(log) as tuning_log:
        models = read_coverage(tuning_log, _sessions(tuning_log))
    ax = draw(models, ax=offscreen_axes(height_inches=coverage_height_inches(len(models))))
    _save(ax, output, f"{len(models)} model{'' if len(models) == 1 else 's'} of the tuning log")


_X_AXES: "dict[XAxisChoice, XAxis]" = {
    XAxisChoice.TRIALS: "trials",
    XAxisChoice.SECONDS: "seconds",
    XAxisChoice.DEVICE_SECONDS: "device_seconds",
    XAxisChoice.WALL_SECONDS: "wall_seconds",
}
_SHOWN_CHARS = 8


def _draw_session(
    output: Path, session: str | None, log: str | None, draw: "Callable[[SessionData], Axes]"
) -> None:
    """Draw one session to a file."""
    _check_format(output)
    with _open(log) as tuning_log:
        data = _read(tuning_log, session)
    with _nothing_to_draw(data.summary):
        ax = draw(data)
    _save(ax, output, _title(data.summary.model_name, data.summary))


def _curves(
    tuning_log: "TuningLog", sessions: "Sequence[SessionSummary]", task: str | None
) -> "tuple[dict[str, list[BestSoFar]], str]":
    """The runs of each label, and what they are of."""
    from tunewright.plots import group_runs, read_session

    what = sessions[-1].model_name
    runs: dict[str, BestSoFar] = {}
    for summary in sessions:
        data = read_session(tuning_log, summary)
        task_key: TaskKey | None = None
        if task is not None:
            task_key = _only_match(task, list(data.weights), f"tasks of {summary.session_id}")
            what = data.names[task_key]
        runs[summary.session_id] = data.best_so_far(task_key, is_alone=len(sessions) > 1)
    if len(sessions) == 1:
        [(summary, run)] = zip(sessions, runs.values(), strict=True)
        return {f"{summary.strategy}, seed {summary.seed}": [run]}, what
    groups = group_runs(sessions)
    return {label: [runs[one.session_id] for one in members] for label, members in groups.items()}, what


def _read(tuning_log: "TuningLog", prefix: str | None) -> "SessionData":
    from tunewright.plots import read_session

    return read_session(tuning_log, find_session(tuning_log, prefix))


def find_session(tuning_log: "TuningLog", prefix: str | None) -> "SessionSummary":
    """The only session whose id begins so; the latest one where there is no prefix.

    Raises:
        RecordNotFoundError: the log has no session.
        ConfigError: none begins so, or several.
    """
    sessions = {summary.session_id: summary for summary in _sessions(tuning_log)}
    if prefix is None:
        return list(sessions.values())[-1]
    return sessions[_only_match(prefix, list(sessions), "sessions")]


def _sessions(tuning_log: "TuningLog") -> "list[SessionSummary]":
    sessions = tuning_log.sessions()
    if not sessions:
        raise RecordNotFoundError("the tuning log holds no session yet: make one with `tunewright tune`")
    return sessions


def _only_match(prefix: str, keys: Sequence[Key], what: str) -> Key:
    """The one key that begins with the prefix."""
    matches = [key for key in keys if key.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(key[:16] for key in (matches or keys)[-8:])
    fault = f"{len(matches)} begin with" if matches else "none begins with"
    raise ConfigError(f"{what}: {fault} '{prefix}'; choose one of {known}")


def _open(log: str | None) -> "TuningLog":
    from tunewright.tuning_logs import TuningLog

    return TuningLog.open(settings.log_url(log), read_only=True)


def _check_format(output: Path) -> None:
    if output.suffix.lower() not in _FORMATS:
        raise ConfigError(f"cannot draw to '{output}': end its name in {', '.join(_FORMATS)}")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"cannot draw to '{output}': its folder does not exist")


@contextmanager
def _nothing_to_draw(*sessions: "SessionSummary") -> Iterator[None]:
    """Say of which sessions there was nothing to draw."""
    try:
        yield
    except ValueError as error:
        which = ", ".join(f"session {one.session_id} with {one.num_trials} trials" for one in sessions)
        raise RecordNotFoundError(f"{which}: {error}") from None


def _save(ax: "Axes", output: Path, title: str) -> None:
    from tunewright.plots import save

    ax.set_title(title, fontsize="medium")
    save(ax, output)
    typer.echo(f"wrote {output}", err=True)


def _title(what: str, summary: "SessionSummary") -> str:
    from tunewright.plots.axes import plain

    num_threads = summary.target.num_threads
    return plain(f"{what} on {summary.target.mcpu}, {num_threads} thread{'' if num_threads == 1 else 's'}")
