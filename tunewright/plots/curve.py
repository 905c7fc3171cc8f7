"""Tuning curves: the best latency so far, against trials or measuring time."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunewright.plots.axes import LOOKS, axes_or_new, plain, plain_log_ticks, tidy
from tunewright.plots.data import BestSoFar

XAxis = Literal["trials", "seconds", "device_seconds", "wall_seconds"]

_X_LABELS = {
    "trials": "measured candidates (trials)",
    "seconds": "build and measuring time (s)",
    "device_seconds": "time on the device (s)",
    "wall_seconds": "wall time (s)",
}
# A curve that falls by more than this is read better on a logarithmic axis.
_LOG_FROM_RATIO = 2.5
_MARKERS_PER_LINE = 8
# A line of so many points is drawn by the steps that it takes, which looks the same.
_MAX_POINTS = 2_000


def tuning_curve(
    curves: Mapping[str, Sequence[BestSoFar]], *, x: XAxis = "trials", ax: Axes | None = None, **style: Any
) -> Axes:
    """Draw the best latency so far (ms) of each label; lower is better.

    A label with several runs (seeds) is drawn as their median, within a band from the best run to the worst;
    the median starts where every run has a latency, and a run that ended keeps its last one.

    Args:
        x: trials, or seconds: of building and measuring one by one, on the device, or by the clock.
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
        grid, latency_ms = _steps_only(grid, latency_ms)
        look = LOOKS[index % len(LOOKS)]
        name = plain(label)
        text = name if len(runs) == 1 else f"{name} (median and range of {len(runs)} runs)"
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
    match x:
        case "trials":
            return run.trials.astype(np.float64)
        case "seconds":
            return run.measuring_secs
        case "device_seconds":
            return run.device_secs
        case "wall_seconds":
            return run.wall_secs


def _steps_only(
    grid: npt.NDArray[np.float64], latency_ms: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of a long grid (n,) and the runs' latencies on it, (n_runs, n), the points where any run changes."""
    if len(grid) <= _MAX_POINTS:
        return grid, latency_ms
    filled = np.nan_to_num(latency_ms, nan=-1.0)
    changes = np.concatenate([[True], (np.diff(filled, axis=1) != 0).any(axis=0)])
    changes[:: max(1, len(grid) // _MARKERS_PER_LINE)] = True  # where the markers stand
    changes[-1] = True
    return grid[changes], latency_ms[:, changes]


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
