"""Where the time of a model goes, task by task, before and after tuning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tunewright.core.task_shares import TaskShare
from tunewright.core.units import format_ms
from tunewright.plots.axes import axes_or_new, plain, tidy, two_lines

_MAX_BARS = 12
_BAR_HEIGHT = 0.38
_ROW_INCHES = 0.42
_BEFORE = {"color": "0.80", "edgecolor": "0.35", "hatch": "///"}
_AFTER = {"color": "#0072B2", "edgecolor": "#00395A"}


def task_breakdown(shares: Sequence[TaskShare], *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw a pair of bars per task: the milliseconds of one run of the model that it takes, before and after.

    The costliest tasks are drawn, in the order given; the others are one pair at the bottom.

    Args:
        style: properties of all bars, as `Axes.barh` takes them.

    Raises:
        ValueError: there is no task.
    """
    if not shares:
        raise ValueError("nothing to draw: no task has a verified time")
    rows = _rows(shares)
    ax = axes_or_new(ax, height_inches=breakdown_height_inches(len(shares)))
    before_ms = np.array([before for _, before, _ in rows])
    after_ms = np.array([after for _, _, after in rows])
    positions = np.arange(len(rows))
    labels = (
        f"default schedules: {format_ms(before_ms.sum() / 1e3)} per run",
        f"tuned: {format_ms(after_ms.sum() / 1e3)} per run",
    )
    ax.barh(positions - _BAR_HEIGHT / 2, before_ms, _BAR_HEIGHT, label=labels[0], **(_BEFORE | style))
    bars = ax.barh(positions + _BAR_HEIGHT / 2, after_ms, _BAR_HEIGHT, label=labels[1], **(_AFTER | style))
    speedups = [f"{before / after:.3g}×" for _, before, after in rows]
    ax.bar_label(bars, speedups, padding=3, fontsize="small")
    ax.set_yticks(positions, [name for name, _, _ in rows], fontsize="small")
    ax.invert_yaxis()
    ax.set_xlabel("time in one run of the model (ms)")
    tidy(ax)
    ax.grid(visible=False, axis="y")
    ax.legend(frameon=False)
    return ax


def breakdown_height_inches(num_tasks: int) -> float:
    """Height of a figure in which so many tasks can be read."""
    return 1.2 + _ROW_INCHES * min(num_tasks, _MAX_BARS)


def _rows(shares: Sequence[TaskShare]) -> list[tuple[str, float, float]]:
    """(label, ms before, ms after) of each pair of bars; what does not fit is summed up in the last."""
    fits = len(shares) <= _MAX_BARS
    shown = shares if fits else shares[: _MAX_BARS - 1]
    rows = [_row(_label(share), [share]) for share in shown]
    return rows if fits else [*rows, _row(f"{len(shares) - len(shown)} more tasks", shares[len(shown) :])]


def _label(share: TaskShare) -> str:
    """The operators and their calls; the shapes, if the name has any, in a second line."""
    operators, _, shapes = two_lines(plain(share.name)).partition("\n")
    calls = f" ×{share.weight}" if share.weight > 1 else ""
    return f"{operators}{calls}\n{shapes}".strip()


def _row(label: str, shares: Sequence[TaskShare]) -> tuple[str, float, float]:
    before_secs = sum(share.weight * share.before_secs for share in shares)
    after_secs = sum(share.weight * share.after_secs for share in shares)
    return label, 1e3 * before_secs, 1e3 * after_secs
