"""Pictures of what the tuning log holds (floor 4); the only place that imports matplotlib.

Every plot is `(data, *, ax=None, **style) -> Axes`: it draws on the given axes, or on those of a new figure,
shows nothing, and changes no global setting. The data are small frozen values; `read_session` and its
siblings make them from an open log, whose session may still be running. Where there is nothing to draw, a
plot raises `ValueError`.
"""

from tunewright.core.task_shares import TaskPair, TaskShare
from tunewright.plots.axes import inline_svg, offscreen_axes, save
from tunewright.plots.curve import tuning_curve
from tunewright.plots.data import (
    BestSoFar,
    Gains,
    TrialOutcomes,
    best_so_far,
    count_outcomes,
    gains_by_origin,
    gains_by_task,
    task_shares,
)
from tunewright.plots.gains import gain_height_inches, where_the_gain_came_from
from tunewright.plots.log_data import (
    ModelCoverage,
    Roofline,
    RooflinePoint,
    TaskHistory,
    make_roofline,
    model_coverage,
    task_histories,
)
from tunewright.plots.machine import ROOFLINE_INCHES, roofline
from tunewright.plots.model import cost_model
from tunewright.plots.model_data import ModelQuality, model_quality
from tunewright.plots.outcomes import trial_outcomes
from tunewright.plots.overview import HISTORY_INCHES, coverage, coverage_height_inches, history
from tunewright.plots.pairs import compare, compare_height_inches
from tunewright.plots.reading import (
    SessionData,
    group_runs,
    read_coverage,
    read_history,
    read_pairs,
    read_roofline,
    read_session,
)
from tunewright.plots.report import log_report, session_report
from tunewright.plots.speed import relative_speed
from tunewright.plots.tasks import breakdown_height_inches, task_breakdown

__all__ = [
    "HISTORY_INCHES",
    "ROOFLINE_INCHES",
    "BestSoFar",
    "Gains",
    "ModelCoverage",
    "ModelQuality",
    "Roofline",
    "RooflinePoint",
    "SessionData",
    "TaskHistory",
    "TaskPair",
    "TaskShare",
    "TrialOutcomes",
    "best_so_far",
    "breakdown_height_inches",
    "compare",
    "compare_height_inches",
    "cost_model",
    "count_outcomes",
    "coverage",
    "coverage_height_inches",
    "gain_height_inches",
    "gains_by_origin",
    "gains_by_task",
    "group_runs",
    "history",
    "inline_svg",
    "log_report",
    "make_roofline",
    "model_coverage",
    "model_quality",
    "offscreen_axes",
    "read_coverage",
    "read_history",
    "read_pairs",
    "read_roofline",
    "read_session",
    "relative_speed",
    "roofline",
    "save",
    "session_report",
    "task_breakdown",
    "task_histories",
    "task_shares",
    "trial_outcomes",
    "tuning_curve",
    "where_the_gain_came_from",
]
