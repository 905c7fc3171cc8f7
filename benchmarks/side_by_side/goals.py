"""The goals of the comparison, computed: each from the medians over seeds of every task's ratios."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from side_by_side.curves import Spread, geometric_mean, num_unreached

TaskSpreads = Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Goal:
    """`measure` names a column of ratios, ours / theirs; `over_tasks` says what of it is within `limit`."""

    text: str
    measure: str
    over_tasks: str
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value`: None where nothing was measured. `note`: what the number hides."""

    goal: Goal
    value: float | None
    is_met: bool | None
    note: str


GOALS = (
    Goal("seconds for all trials / TVM as shipped, worst task", "secs_vs_shipped", "max", 1 / 10),
    Goal("seconds for all trials / TVM patched, geometric mean", "secs_vs_patched", "geomean", 1 / 5),
    Goal("seconds for all trials / TVM patched, worst task", "secs_vs_patched", "max", 1 / 3),
    Goal("seconds to TVM patched's final latency / its session, empty log", "reach_secs", "geomean", 1 / 8),
    Goal("trials to the same / its session's, empty log", "reach_trials", "geomean", 1 / 2),
    Goal("trials to the same, log of other tasks", "log_reach_trials", "geomean", 1 / 5),
    Goal("latency at equal trials / TVM patched, geometric mean", "latency_vs_patched", "geomean", 1.0),
    Goal("latency at equal trials / TVM patched, worst task", "latency_vs_patched", "max", 1.05),
    Goal("seconds of search per trial / TVM patched, geometric mean", "search_vs_patched", "geomean", 1 / 5),
    Goal("share of wall time outside building and running, worst task", "overhead", "max", 0.15),
)

_OVER_TASKS: Mapping[str, Callable[[Sequence[float]], float | None]] = {
    "max": lambda values: max(values, default=None),
    "geomean": geometric_mean,
}


def judge(columns: Mapping[str, TaskSpreads]) -> list[Verdict]:
    """One verdict per goal."""
    return [_judge(goal, columns.get(goal.measure, {})) for goal in GOALS]


def _judge(goal: Goal, spreads: TaskSpreads) -> Verdict:
    medians = [one.median for one in spreads.values()]
    value = _OVER_TASKS[goal.over_tasks](medians)
    if value is None:
        return Verdict(goal, None, None, "not measured")
    worst = max(spreads, key=lambda task: spreads[task].median)
    notes = [f"{len(medians)} tasks"]
    if unreached := num_unreached(medians):
        reached = geometric_mean([median for median in medians if median != math.inf])
        rest = f"; geometric mean of the others {reached:.3f}" if reached is not None else ""
        notes.append(f"never reached on {unreached}{rest}")
    elif goal.over_tasks == "geomean":
        notes.append(f"worst {spreads[worst].median:.3f} ({worst})")
    else:
        within = sum(median <= goal.limit for median in medians)
        notes.append(f"within on {within}; worst is {worst}")
    return Verdict(goal, value, value <= goal.limit, ", ".join(notes))
