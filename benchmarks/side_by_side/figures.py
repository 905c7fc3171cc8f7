"""Best latency against trials and against seconds, one figure per task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from side_by_side.curves import best_curve
from side_by_side.results import UnitResult
from tunewright.plots.curve import tuning_curve
from tunewright.plots.data import BestSoFar

_DOTS_PER_INCH = 120


def draw(task: str, runs: Mapping[str, Sequence[tuple[UnitResult, float]]], folder: Path) -> None:
    """Write TASK.png.

    Args:
        runs: label -> runs, each with the factor from its own clock to the neutral one; drawn as their median
            within a band from best to worst.
    """
    curves = {label: [_best_so_far(unit, scale) for unit, scale in group] for label, group in runs.items()}
    if not any(np.isfinite(run.latency_secs).any() for group in curves.values() for run in group):
        return
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    by_trials, by_seconds = figure.subplots(1, 2, sharey=True)
    tuning_curve(curves, x="trials", ax=by_trials)
    tuning_curve(curves, x="wall_seconds", ax=by_seconds)
    by_seconds.set_xlabel("seconds since the tuner started")
    by_seconds.set_ylabel("")
    by_seconds.set_xscale("symlog", linthresh=10.0)
    legend = by_seconds.get_legend()
    if legend is not None:
        legend.remove()
    figure.suptitle(task)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{task}.png", dpi=_DOTS_PER_INCH)


def _best_so_far(unit: UnitResult, scale: float) -> BestSoFar:
    """The curve, and once more its last point at the end of the session."""
    curve = best_curve(unit.tuned, scale)
    latency_secs = np.array(curve + curve[-1:])
    # Nobody wrote down what building and running took: all there is is the clock.
    wall_secs = np.array([*(trial.at_secs for trial in unit.tuned.trials), unit.tuned.wall_secs])
    return BestSoFar(
        trials=np.minimum(np.arange(1, len(latency_secs) + 1), len(curve)),
        measuring_secs=wall_secs,
        device_secs=wall_secs,
        wall_secs=wall_secs,
        latency_secs=np.where(np.isfinite(latency_secs), latency_secs, np.nan),
    )
