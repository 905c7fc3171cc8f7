"""Two sessions side by side: how much faster or slower each task became."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tunewright.core.task_shares import TaskPair
from tunewright.core.units import format_ms
from tunewright.plots.axes import axes_or_new, plain, plain_log_ticks, tidy, two_lines

_MAX_ROWS = 20
_ROW_INCHES = 0.4
# Ticks at 1, 2 and 5 alone say too little of a narrower range.
_WIDE_RATIO = 3.0


def compare(
    pairs: Sequence[TaskPair],
    *,
    a_name: str = "A",
    b_name: str = "B",
    ax: Axes | None = None,
    **style: Any,
) -> Axes:
    """Draw the time of B / time of A of each task, below that of their sum; left of 1, B is faster.

    A point is the ratio of medians, its line the range that the quartiles of the samples allow. The tasks
    that change the sum most are drawn, the greatest change first. Filled points are faster in B.

    Args:
        style: properties of the points and lines, as `Axes.errorbar` takes them.

    Raises:
        ValueError: no task has a usable time in both.
    """
    if not pairs:
        raise ValueError("nothing to draw: no task has a verified time in both sessions")
    shown = sorted(pairs, key=lambda pair: abs(_cost(pair, pair.b_secs) - _cost(pair, pair.a_secs)))
    shown = shown[: -_MAX_ROWS - 1 : -1]
    a_secs = math.fsum(_cost(pair, pair.a_secs) for pair in pairs)
    b_secs = math.fsum(_cost(pair, pair.b_secs) for pair in pairs)
    ratios = np.array([b_secs / a_secs, *(pair.ratio for pair in shown)])
    ranges = np.array([(ratios[0], ratios[0]), *(pair.ratio_range for pair in shown)])
    ax = axes_or_new(ax, height_inches=compare_height_inches(len(pairs)))
    points: dict[str, Any] = {"linestyle": "none", "color": "#0072B2", "ecolor": "0.45", "capsize": 2.5}
    for row, (ratio, (low, high)) in enumerate(zip(ratios, ranges, strict=True)):
        # Medians of few samples may lie outside of their quartiles.
        errors = [[max(0.0, ratio - low)], [max(0.0, high - ratio)]]
        look = {"marker": "o" if row else "D", "markerfacecolor": "#0072B2" if ratio < 1 else "white"}
        ax.errorbar([ratio], [row], xerr=errors, **(points | look | style))
        ax.annotate(
            f"{ratio:.3g}", (ratio, row), (0, 5), textcoords="offset points", ha="center", fontsize="x-small"
        )
    ax.axvline(1.0, color="0.3", linewidth=1.0, linestyle="--")
    whole = f"all {len(pairs)}: {format_ms(a_secs)} → {format_ms(b_secs)}"
    names = [whole, *(two_lines(plain(pair.name)) for pair in shown)]
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.8)
    ax.set_xscale("log")
    left, right = min(0.9, 0.9 * ranges.min()), max(1.1, 1.1 * ranges.max())
    ax.set_xlim(left, right)
    plain_log_ticks(ax.xaxis)
    if right < _WIDE_RATIO * left:
        ax.set_xticks(np.arange(math.ceil(10 * left), 10 * right) / 10)
    b_name, a_name = plain(b_name), plain(a_name)
    ax.set_xlabel(f"time of {b_name} / time of {a_name}\n(left of 1, {b_name} is faster)")
    tidy(ax)
    return ax


def compare_height_inches(num_pairs: int) -> float:
    """Height of a figure in which so many tasks can be read."""
    return 1.6 + _ROW_INCHES * min(num_pairs, _MAX_ROWS)


def _cost(pair: TaskPair, secs: Sequence[float]) -> float:
    return float(pair.weight * np.median(secs))
