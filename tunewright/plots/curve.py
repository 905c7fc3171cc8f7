"""Tuning curves: the best latency so far, against trials or measuring time."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunewright.plots.axes import LOOKS, axes_or_new, plain_log_ticks, tidy
from tunewright.plots.data import BestSoFar

XAxis = Literal["trials", "seconds"]

_X_LABELS = {"trials": "measured candidates (trials)", "seconds": "build and measuring time (s)"}
# A curve that falls by more than this is read better on a logarithmic axis.
_LOG_FROM_RATIO = 2.5
_MARKERS_PER_LINE = 8


def tuning_curve(
    curves: Mapping[str, Sequence[BestSoFar]], *, x: XAxis = "trials", ax: Axes | None = None, **style: Any
) -> Axes:
    """Draw the best latency so far (ms) of each label; lower is better.

    A label with several runs (seeds) is drawn as their median, within a band from the best run to the worst;
    the median starts where every run has a latency, and a run that ended keeps its last one.

    Args:
        style: properties of the lines, as `Axes.plot` takes them.

    Raises:
        ValueError: no run of any label has a latency.
    """
    if not any(np.isfinite(run.latency_secs).any() for runs in curves.values() for run in runs):
        raise ValueError("nothing to draw: no run has a verified time for each of its tasks")
    ax = axes_or_new(ax)
    for index, (label, runs) in enumerate((label, runs) for label, runs in curves.items() if runs):
        grid = np.unique(np.concatenate([_x_values(run, x) for run in runs]))
        latency_ms = 1e3 * np.stack([_at(run, x, grid) for run in runs])
        look = LOOKS[index % len(LOOKS)]
        text = label if len(runs) == 1 else f"{label} (median and range of {len(runs)} runs)"
        median_ms = np.median(latency_ms, axis=0)
        line: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.linestyle,
            "marker": look.marker,
            "markersize": 4.5,
            "markevery": (0, max(1, len(grid) // _MARKERS_PER_LINE)),
            "linewidth": 1.8,
        }
        ax.plot(grid, median_ms, drawstyle="steps-post", label=text, **(line | style))
        if len(runs) > 1:
            low, high = latency_ms.min(axis=0), latency_ms.max(axis=0)
            ax.fill_between(grid, low, high, step="post", color=look.color, alpha=0.16, linewidth=0)
    _label_axes(ax, x)
    return ax


def _x_values(run: BestSoFar, x: XAxis) -> npt.NDArray[np.float64]:
    return run.trials.astype(np.float64) if x == "trials" else run.measuring_secs


def _at(run: BestSoFar, x: XAxis, grid: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The run's latency at each value of the grid: that of the last trial before it, NaN before the first."""
    index = np.searchsorted(_x_values(run, x), grid, side="right") - 1
    latency_secs: npt.NDArray[np.float64] = np.append(run.latency_secs, np.nan)[index]
    return latency_secs


def _label_axes(ax: Axes, x: XAxis) -> None:
    ax.set_xlabel(_X_LABELS[x])
    ax.set_ylabel("best latency so far (ms)")
    ax.set_xlim(left=0)
    if x == "trials":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.get_lines()])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if drawn.max() > _LOG_FROM_RATIO * drawn.min():
        ax.set_yscale("log")
        plain_log_ticks(ax.yaxis)
    tidy(ax)
    ax.legend(frameon=False)
