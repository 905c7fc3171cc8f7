"""How well the cost model ranked candidates before they were measured."""

from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunewright.plots.axes import LOOKS, axes_or_new, legend_below, tidy
from tunewright.plots.model_data import TOP_SHARE, ModelQuality

Show = Literal["over_time", "places"]

_NUM_CELLS = 8
_NUM_GRAYS = 24


def cost_model(
    quality: ModelQuality, *, show: Show = "over_time", ax: Axes | None = None, **style: Any
) -> Axes:
    """Draw how predictions agree with measurements: over time, or place against place.

    Over time: the rank correlation, and the share of the best quarter that the model's best quarter holds,
    each with the value that guessing has. Places: how often a candidate that was predicted at one place of
    its batch (0 the worst, 1 the best) was measured at another; a model that is right darkens the diagonal.

    Args:
        style: properties of the lines, as `Axes.plot` takes them, or of the cells, as `Axes.pcolormesh`.

    Raises:
        ValueError: no batch can be ranked.
    """
    if not len(quality.trials):
        raise ValueError("nothing to draw: no batch of four or more candidates was scored and measured")
    ax = axes_or_new(ax)
    if show == "places":
        _draw_places(ax, quality, style)
    else:
        _draw_over_time(ax, quality, style)
    return ax


def _draw_over_time(ax: Axes, quality: ModelQuality, style: dict[str, Any]) -> None:
    lines = (
        ("rank correlation (Spearman)", quality.spearman, 0.0),
        ("best quarter found (top-k recall)", quality.top_quarter_recall, TOP_SHARE),
    )
    for look, (label, values, chance) in zip(LOOKS, lines, strict=False):
        line: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.linestyle,
            "marker": look.marker,
            "markersize": 4.5,
            "linewidth": 1.8,
        }
        ax.plot(quality.trials, values, label=f"{label}; by chance {chance:g}", **(line | style))
        ax.axhline(chance, color=look.color, linestyle=look.linestyle, linewidth=0.7)
    ax.set_xlabel("measured candidates (trials)")
    ax.set_ylabel("agreement within batches (1 = perfect)")
    ax.set_xlim(left=0)
    ax.set_ylim(min(-0.1, float(quality.spearman.min()) - 0.1), 1.05)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(ax)
    legend_below(ax)


def _draw_places(ax: Axes, quality: ModelQuality, style: dict[str, Any]) -> None:
    edges = np.linspace(0, 1, _NUM_CELLS + 1)
    counts, _, _ = np.histogram2d(quality.predicted_place, quality.measured_place, bins=(edges, edges))
    columns = counts.sum(axis=1, keepdims=True)
    # Of the candidates predicted at one place, which share was measured at each.
    shares = 100 * counts / np.maximum(columns, 1)
    # So few colors that the bar beside them is drawn as areas, not as an image.
    grays = colormaps["Greys"].resampled(_NUM_GRAYS)
    cells: dict[str, Any] = {"cmap": grays, "vmin": 0, "edgecolors": "0.85", "linewidth": 0.4}
    mesh = ax.pcolormesh(edges, edges, shares.T, **(cells | style))
    figure = ax.get_figure()
    assert figure is not None, "the axes were taken out of their figure"
    figure.colorbar(mesh, ax=ax, label="of the candidates predicted there (%)")
    ax.plot([0, 1], [0, 1], color="#D55E00", linestyle="--", linewidth=1.0)
    ax.set_xlabel("predicted place in the batch (0 worst, 1 best)")
    ax.set_ylabel("measured place")
