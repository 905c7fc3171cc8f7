"""What the comparison of two sessions draws, read back from its `Axes`."""

import pytest
from matplotlib.axes import Axes

from tunewright.plots import TaskPair, compare, offscreen_axes


def points(ax: Axes) -> list[tuple[float, float, float]]:
    """Each row's ratio and the ends of its line, from the top."""
    found = []
    for container in ax.containers:
        point, _, (bars,) = container.lines
        ((low, _), (high, _)) = bars.get_segments()[0]
        found.append((float(point.get_xdata()[0]), float(low), float(high)))
    return found


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_ratios_of_medians_with_the_range_of_the_quartiles() -> None:
    pairs = [
        TaskPair("small", 1, (1.0, 1.0, 1.0), (3.0, 3.0, 3.0)),
        TaskPair("big 8x8 -> 8x8", 2, (10.0, 8.0, 12.0), (4.0, 5.0, 6.0)),
    ]
    ax = compare(pairs, a_name="base", b_name="head", ax=offscreen_axes())
    whole, big, small = points(ax)
    assert whole == pytest.approx((13 / 21,) * 3)
    assert big == pytest.approx((0.5, 4.5 / 11, 5.5 / 9))
    assert small == pytest.approx((3.0, 3.0, 3.0))
    assert names(ax) == ["all 2: 21,000 ms → 13,000 ms", "big\n8x8 -> 8x8", "small"]
    assert ax.get_xlabel() == "time of head / time of base\n(left of 1, head is faster)"
    assert ax.get_xscale() == "log"
    left, right = ax.get_xlim()
    assert left < 4.5 / 11 and right > 3


def test_faster_and_slower_differ_without_color() -> None:
    pairs = [TaskPair("a", 1, (2.0,), (1.0,)), TaskPair("b", 1, (1.0,), (5.0,))]
    ax = compare(pairs)
    faces = {
        name: container.lines[0].get_markerfacecolor()
        for name, container in zip("*ba", ax.containers, strict=True)
    }
    assert faces["b"] == "white" != faces["a"]


def test_the_tasks_that_change_most_are_drawn() -> None:
    pairs = [TaskPair(f"t{number}", 1, (1.0,), (1.0 + number / 100,)) for number in range(50)]
    ax = compare(pairs)
    assert len(points(ax)) == 21
    assert names(ax)[1] == "t49"
    assert names(ax)[0].startswith("all 50:")


def test_no_common_task_is_said() -> None:
    with pytest.raises(ValueError, match="no task has a verified time in both"):
        compare([])
