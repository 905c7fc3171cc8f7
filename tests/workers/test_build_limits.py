"""Limits from scripted build times."""

import pytest

from tunewright.core.types import TaskKey
from tunewright.workers.build_limits import BuildLimits

TASK, OTHER = TaskKey("task"), TaskKey("other")


def _limits(build_secs: list[float]) -> BuildLimits:
    limits = BuildLimits()
    for secs in build_secs:
        limits.add(TASK, secs)
    return limits


@pytest.mark.parametrize(
    ("build_secs", "expected"),
    [
        ([], 10.0),
        ([0.1] * 7, 10.0),  # too few
        ([0.1] * 8, 2.0),  # never less
        ([1.0] * 16, 3.0),
        ([1.0] * 99 + [9.0], 3.0),  # one slow build is not what builds take
        ([1.0] * 9 + [3.0] + [1.0] * 9 + [3.0], 7.0),  # one in ten is
        ([8.0] * 16, 10.0),  # never more than the evaluator says
    ],
)
def test_limit_follows_the_tasks_own_builds(build_secs: list[float], expected: float) -> None:
    limits = _limits(build_secs)
    assert limits.limit_secs(TASK, 10.0) == pytest.approx(expected)
    assert limits.limit_secs(OTHER, 10.0) == 10.0


def test_cutting_many_builds_raises_the_limit() -> None:
    limits = _limits([0.1] * 16)
    before = limits.limit_secs(TASK, 10.0)
    for _ in range(4):
        limits.add(TASK, before)
    assert limits.limit_secs(TASK, 10.0) > before
