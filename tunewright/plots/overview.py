"""The log over time and over models: records as they were found, and what there is a record for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tunewright.plots.axes import (
    AREAS,
    EDGE,
    LOOKS,
    axes_or_new,
    legend_below,
    plain,
    plain_log_ticks,
    shorten,
    tidy,
)
from tunewright.plots.log_data import STATES, ModelCoverage, TaskHistory

_MAX_LINES = len(LOOKS)
_MAX_NAME_CHARS = 72
_MAX_MODELS = 30
_ROW_INCHES = 0.32
HISTORY_INCHES = 5.4
_LOG_FROM_RATIO = 2.5


def history(histories: Sequence[TaskHistory], *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw how the best time of each task fell from record to record, by date.

    One task is drawn in ms, several relative to the first record of each. The first so many are drawn as
    there are looks of lines; the last record of a task counts to the end of the picture.

    Args:
        style: properties of the lines, as `Axes.plot` takes them.

    Raises:
        ValueError: no task has a record.
    """
    if not histories:
        raise ValueError("nothing to draw: no task has a verified time")
    shown = histories[:_MAX_LINES]
    ax = axes_or_new(ax, height_inches=HISTORY_INCHES)
    last = max(moment for one in histories for moment in one.found_at)
    lowest = 1.0
    for look, one in zip(LOOKS, shown, strict=False):
        values = 1e3 * one.best_secs if len(histories) == 1 else 100 * one.best_secs / one.best_secs[0]
        lowest = min(lowest, float(one.best_secs[-1] / one.best_secs[0]))
        line: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.linestyle,
            "marker": look.marker,
            "markersize": 4.5,
            "linewidth": 1.6,
            "label": shorten(plain(one.name), _MAX_NAME_CHARS),
        }
        # matplotlib's own dates have no zone; these are UTC.
        moments = [moment.replace(tzinfo=None) for moment in (*one.found_at, last)]
        steps = np.append(values, values[-1])
        ax.plot(np.array(moments, "datetime64[us]"), steps, drawstyle="steps-post", **(line | style))
    ax.set_xlabel("found (UTC)")
    ax.set_ylabel("best time (ms)" if len(histories) == 1 else "best time (% of the first record)")
    if lowest * _LOG_FROM_RATIO < 1:
        ax.set_yscale("log")
        plain_log_ticks(ax.yaxis)
    tidy(ax)
    if len(histories) > len(shown):
        ax.plot([], [], " ", label=f"and {len(histories) - len(shown)} more tasks")
    legend_below(ax)
    return ax


def coverage(models: Sequence[ModelCoverage], *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw a bar for each model: how much of its predicted time is in tasks with a verified record.

    Args:
        models: the last ones are drawn where there are many, the last one at the bottom.
        style: properties of all bars, as `Axes.barh` takes them.

    Raises:
        ValueError: there is no model.
    """
    if not models:
        raise ValueError("nothing to draw: the log has no session")
    shown = models[-_MAX_MODELS:]
    ax = axes_or_new(ax, height_inches=coverage_height_inches(len(models)))
    rows = np.arange(len(shown))
    left = np.zeros(len(shown))
    for look, state in zip((AREAS[0], *AREAS[4:6], AREAS[3], AREAS[2]), STATES, strict=True):
        width = np.array([100 * model.shares[state] for model in shown])
        if state == STATES[0] or width.any():
            bars: dict[str, Any] = {
                "color": look.color,
                "hatch": look.hatch,
                "edgecolor": EDGE,
                "label": state,
            }
            ax.barh(rows, width, 0.7, left=left, **(bars | style))
        left += width
    for row, model in enumerate(shown):
        ax.text(101, row, f"{100 * model.shares[STATES[0]]:.1f} %", va="center", fontsize="small")
    names = [f"{shorten(plain(model.name), _MAX_NAME_CHARS)} ({model.num_tasks})" for model in shown]
    ax.set_yticks(rows, names, fontsize="small")
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, 112)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("share of the model's predicted time (%); in brackets its tasks")
    tidy(ax)
    ax.grid(visible=False, axis="y")
    legend_below(ax, num_columns=3)
    return ax


def coverage_height_inches(num_models: int) -> float:
    """Height of a figure in which so many models can be read."""
    return 1.5 + _ROW_INCHES * min(num_models, _MAX_MODELS)
