"""What came of the trials over a session: verified, duplicates, pruned, failures by kind."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunewright.plots.axes import AREAS, EDGE, axes_or_new, tidy
from tunewright.plots.data import OUTCOMES, TrialOutcomes


def trial_outcomes(outcomes: TrialOutcomes, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draw stacked bars over the trials, one for each bin; an outcome looks alike in every picture.

    Args:
        style: properties of all bars, as `Axes.bar` takes them.

    Raises:
        ValueError: there is no trial.
    """
    if not outcomes.num_trials:
        raise ValueError("nothing to draw: there is no trial yet")
    ax = axes_or_new(ax)
    left, width = outcomes.edges[:-1], np.diff(outcomes.edges)
    bottom = np.zeros(len(width), dtype=np.int64)
    for name, counts in outcomes.counts.items():
        look = AREAS[OUTCOMES.index(name) % len(AREAS)]
        total = int(counts.sum())
        bars: dict[str, Any] = {
            "color": look.color,
            "hatch": look.hatch,
            "edgecolor": EDGE,
            "linewidth": 0.4,
            "label": f"{name}: {total:,} ({100 * total / outcomes.num_trials:.1f} %)",
        }
        ax.bar(left, counts, width, bottom=bottom, align="edge", **(bars | style))
        bottom += counts
    ax.set_xlim(0, outcomes.num_trials)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("measured candidates (trials)")
    ax.set_ylabel("trial" if width[0] == 1 else f"of {width[0]:,} trials each")
    tidy(ax)
    ax.grid(visible=False, axis="x")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
