"""Speed against trials, relative to something that is not tuned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunewright.plots.axes import LOOKS, axes_or_new, plain, tidy

Floats = npt.NDArray[np.float64]

_MARKERS_PER_LINE = 8
_HEADROOM = 1.06  # what is level with the frame is not seen
_MARK_STYLES = ((0, (6, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)))


def relative_speed(
    curves: Mapping[str, Sequence[Floats]],
    *,
    marks: Mapping[str, float],
    ax: Axes | None = None,
    **style: Any,
) -> Axes:
    """Draw the relative speed of the best candidate so far of each label; higher is better.

    A label with several runs (seeds) is drawn as their median, within a band from the worst run to the best;
    the median starts where every run has a candidate, and a run that ended keeps its last one.

    Args:
        curves: of each label, (n_trials,) of each run: the speed after each trial, NaN before the first.
        marks: speeds to draw as level lines, such as 1 for what all others are relative to.
        style: properties of the lines, as `Axes.plot` takes them.

    Raises:
        ValueError: no run of any label has a speed.
    """
    if not any(np.isfinite(run).any() for runs in curves.values() for run in runs):
        raise ValueError("nothing to draw: no run has a candidate")
    ax = axes_or_new(ax)
    for index, (label, runs) in enumerate((label, runs) for label, runs in curves.items() if runs):
        num_trials = max(map(len, runs))
        speeds = np.stack([np.pad(run, (0, num_trials - len(run)), mode="edge") for run in runs])
        trials = np.arange(1, num_trials + 1)
        look = LOOKS[index % len(LOOKS)]
        line: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.linestyle,
            "marker": look.marker,
            "markersize": 4.5,
            "markevery": (index, max(1, num_trials // _MARKERS_PER_LINE)),
            "linewidth": 1.6,
        }
        name = plain(label)
        ax.plot(trials, np.median(speeds, axis=0), drawstyle="steps-post", label=name, **(line | style))
        if len(runs) > 1:
            low, high = speeds.min(axis=0), speeds.max(axis=0)
            ax.fill_between(trials, low, high, step="post", color=look.color, alpha=0.10, linewidth=0)
    for number, (label, speed) in enumerate(marks.items()):
        dashes = _MARK_STYLES[number % len(_MARK_STYLES)]
        ax.axhline(speed, color="black", linewidth=1.1, linestyle=dashes, label=plain(label), zorder=1.5)
    ax.set_xlabel("measured candidates (trials)")
    ax.set_ylabel("relative speed")
    ax.set_xlim(left=0)
    drawn = np.concatenate([*(run for runs in curves.values() for run in runs), list(marks.values())])
    ax.set_ylim(0, _HEADROOM * float(drawn[np.isfinite(drawn)].max()))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(ax)
    return ax
