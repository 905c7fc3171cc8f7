"""What the task breakdown draws, read back from its `Axes`."""

import pytest
from matplotlib.axes import Axes

from tunewright.plots import TaskShare, offscreen_axes, task_breakdown


def widths(ax: Axes) -> list[list[float]]:
    return [[bar.get_width() for bar in container.patches] for container in ax.containers]


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_bars_are_weighted_ms_before_and_after_with_the_speedup() -> None:
    shares = [TaskShare("conv 3x8x8 -> 4x8x8", 3, 0.004, 0.001), TaskShare("dense", 1, 0.002, 0.001)]
    ax = task_breakdown(shares, ax=offscreen_axes())
    before, after = widths(ax)
    assert before == pytest.approx([12.0, 2.0])
    assert after == pytest.approx([3.0, 1.0])
    assert names(ax) == ["conv ×3\n3x8x8 -> 4x8x8", "dense"]
    assert [text.get_text() for text in ax.texts] == ["4×", "2×"]
    assert "(ms)" in ax.get_xlabel()


def test_many_tasks_are_summed_up_in_the_last_bars() -> None:
    shares = [TaskShare(f"t{index}", 1, 0.002, 0.001) for index in range(30)]
    before, after = widths(task_breakdown(shares))
    assert len(before) == 12
    assert sum(before) == pytest.approx(60.0)
    assert after[-1] == pytest.approx(19.0)


def test_no_task_is_said() -> None:
    with pytest.raises(ValueError, match="no task has a verified time"):
        task_breakdown([])
