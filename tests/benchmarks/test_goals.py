import math

from side_by_side.curves import Spread
from side_by_side.goals import GOALS, Verdict, judge


def column(**medians: float) -> dict[str, Spread]:
    return {task: Spread(median, median, median, 1) for task, median in medians.items()}


def verdict_of(measure: str, over_tasks: str, **medians: float) -> Verdict:
    verdicts = judge({measure: column(**medians)})
    return next(v for v in verdicts if (v.goal.measure, v.goal.over_tasks) == (measure, over_tasks))


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    verdicts = judge({})
    assert len(verdicts) == len(GOALS)
    assert all(verdict.value is None and verdict.is_met is None for verdict in verdicts)


def test_the_worst_task_decides_where_every_task_counts() -> None:
    verdict = verdict_of("secs_vs_shipped", "max", a=0.05, b=0.2)
    assert (verdict.value, verdict.is_met) == (0.2, False)
    assert "within on 1" in verdict.note and "b" in verdict.note


def test_a_geometric_mean_may_hide_a_bad_task_but_names_it() -> None:
    verdict = verdict_of("latency_vs_patched", "geomean", good=0.8, bad=1.2)
    assert verdict.is_met
    assert "bad" in verdict.note


def test_a_task_that_never_gets_there_fails_the_goal_and_is_counted() -> None:
    verdict = verdict_of("reach_secs", "geomean", a=0.1, b=math.inf)
    assert (verdict.value, verdict.is_met) == (math.inf, False)
    assert "never reached on 1" in verdict.note and "0.100" in verdict.note
