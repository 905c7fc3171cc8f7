"""Pictures of what the tuning log holds (floor 4); the only place that imports matplotlib.

Every plot is `(data, *, ax=None, **style) -> Axes`: it draws on the given axes, or on those of a new figure,
shows nothing, and changes no global setting. The data are small values made from records (`plots.data`).
"""

from tunewright.plots.axes import offscreen_axes, save
from tunewright.plots.curve import tuning_curve
from tunewright.plots.data import BestSoFar, TaskShare, best_so_far, task_shares
from tunewright.plots.tasks import breakdown_height_inches, task_breakdown

__all__ = [
    "BestSoFar",
    "TaskShare",
    "best_so_far",
    "breakdown_height_inches",
    "offscreen_axes",
    "save",
    "task_breakdown",
    "task_shares",
    "tuning_curve",
]
