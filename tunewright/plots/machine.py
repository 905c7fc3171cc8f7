"""The roofline: how near the best records are to what the machine can do."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tunewright.plots.axes import axes_or_new, legend_below, plain, plain_log_ticks, shorten, tidy
from tunewright.plots.log_data import Roofline

ROOFLINE_INCHES = 6.2
_MAX_NAMED = 8
_MAX_NAME_CHARS = 72
# Of the numbers beside the points, in points: tasks that are alike stand close together.
_OFFSETS = ((5, 4), (-10, 4), (5, -11), (-10, -11))


def roofline(data: Roofline, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw GFLOP/s of the tasks against their work per byte of arguments, under the machine's limits.

    The slanted roofs are the bandwidths of the fastest working set and of the largest; the flat one is
    the peak of float32 arithmetic. The costliest tasks have numbers, with their names in the legend.

    Args:
        style: properties of the points, as `Axes.plot` takes them.

    Raises:
        ValueError: no task that does arithmetic has a verified time.
    """
    if not data.points:
        raise ValueError("nothing to draw: no task that does arithmetic has a verified time")
    ax = axes_or_new(ax, height_inches=ROOFLINE_INCHES)
    intensity = np.array([point.flop_per_byte for point in data.points])
    gflops = np.array([point.gflops for point in data.points])
    roofs = dict.fromkeys((max(data.gbytes_per_sec, key=lambda level: level[1]), data.gbytes_per_sec[-1]))
    left = min(intensity.min(), *(data.peak_gflops / rate for _, rate in roofs)) / 2
    right = 2 * max(intensity.max(), *(data.peak_gflops / rate for _, rate in roofs))
    for linestyle, (num_bytes, rate) in zip(("-", "--"), roofs, strict=False):
        x = np.array([left, data.peak_gflops / rate, right])
        label = f"{data.peak_gflops:,.0f} GFLOP/s (float32), {rate:.0f} GB/s in {_size(num_bytes)}"
        ax.plot(
            x, np.minimum(rate * x, data.peak_gflops), "k", linestyle=linestyle, linewidth=1.3, label=label
        )
    points: dict[str, Any] = {"color": "#D55E00", "marker": "o", "linestyle": "none", "markersize": 5}
    ax.plot(intensity, gflops, **(points | {"label": _points_label(data)} | style))
    for number, point in enumerate(data.points[:_MAX_NAMED], start=1):
        ax.annotate(
            str(number),
            (point.flop_per_byte, point.gflops),
            _OFFSETS[number % len(_OFFSETS)],
            textcoords="offset points",
            fontsize="small",
        )
        ax.plot([], [], " ", label=f"{number}  {shorten(plain(point.name), _MAX_NAME_CHARS)}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log_ticks(ax.xaxis)
    plain_log_ticks(ax.yaxis)
    ax.set_xlim(left, right)
    ax.set_ylim(min(gflops.min(), data.peak_gflops) / 2, 2 * max(gflops.max(), data.peak_gflops))
    ax.set_xlabel("work per byte of arguments (FLOP/byte)")
    ax.set_ylabel("speed of the best record (GFLOP/s)")
    tidy(ax)
    legend_below(ax)
    return ax


def _points_label(data: Roofline) -> str:
    tasks = f"{len(data.points)} task{'' if len(data.points) == 1 else 's'}"
    return f"{tasks}; {data.num_left_out} without arithmetic left out" if data.num_left_out else tasks


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:g} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:g} KiB"
