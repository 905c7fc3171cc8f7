"""Where the gain came from: from the default schedules' time to the tuned one, step by step."""

from typing import Any

from matplotlib.axes import Axes

from tunewright.core.units import format_ms
from tunewright.plots.axes import axes_or_new, plain, tidy, two_lines
from tunewright.plots.data import Gains

_MAX_STEPS = 12
_ROW_INCHES = 0.4
_BEFORE = {"color": "0.80", "edgecolor": "0.35", "hatch": "///"}
_STEP = {"color": "#9AD0F5", "edgecolor": "#00395A"}
_AFTER = {"color": "#0072B2", "edgecolor": "#00395A"}


def where_the_gain_came_from(gains: Gains, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw a waterfall: the time before, what each step took off it, the time after.

    The largest steps are drawn, in the order given; the others are one bar.

    Args:
        style: properties of all bars, as `Axes.barh` takes them.

    Raises:
        ValueError: there is no time to begin with.
    """
    if not gains.before_secs:
        raise ValueError("nothing to draw: no task has a verified time")
    steps = _shown(gains.steps)
    ax = axes_or_new(ax, height_inches=gain_height_inches(len(gains.steps)))
    labels = ["default schedules", *(two_lines(plain(name)) for name, _ in steps), "tuned"]
    before_ms, after_ms = 1e3 * gains.before_secs, 1e3 * gains.after_secs
    ax.barh(0, before_ms, **(_BEFORE | style))
    _write(ax, before_ms, 0, format_ms(gains.before_secs))
    left_ms = before_ms
    for row, (_, gain_secs) in enumerate(steps, start=1):
        gain_ms = 1e3 * gain_secs
        ax.barh(row, gain_ms, left=left_ms - gain_ms, **(_STEP | style))
        # What follows is drawn further left, so that the text has room.
        share = f"{100 * gain_secs / gains.before_secs:.1f} %"
        _write(ax, left_ms, row, f"−{format_ms(gain_secs)} ({share})")
        ax.vlines(left_ms, row - 1, row, color="0.5", linewidth=0.8, linestyle=":")
        left_ms -= gain_ms
    last = len(steps) + 1
    ax.barh(last, after_ms, **(_AFTER | style))
    _write(ax, after_ms, last, format_ms(gains.after_secs))
    ax.set_yticks(range(len(labels)), labels, fontsize="small")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.45 * before_ms)
    ax.set_xlabel("time in one run of the model (ms)")
    tidy(ax)
    ax.grid(visible=False, axis="y")
    return ax


def gain_height_inches(num_steps: int) -> float:
    """Height of a figure in which so many steps can be read."""
    return 1.5 + _ROW_INCHES * min(num_steps, _MAX_STEPS)


def _write(ax: Axes, right_ms: float, row: int, text: str) -> None:
    """To the right of a bar."""
    ax.annotate(text, (right_ms, row), (4, 0), textcoords="offset points", va="center", fontsize="small")


def _shown(steps: tuple[tuple[str, float], ...]) -> list[tuple[str, float]]:
    if len(steps) <= _MAX_STEPS:
        return list(steps)
    rest = steps[_MAX_STEPS - 1 :]
    return [*steps[: _MAX_STEPS - 1], (f"{len(rest)} more", sum(secs for _, secs in rest))]
