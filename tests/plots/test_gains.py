"""What the waterfall draws, read back from its `Axes`."""

import pytest
from matplotlib.axes import Axes

from tunewright.plots import Gains, offscreen_axes, where_the_gain_came_from


def spans(ax: Axes) -> list[tuple[float, float]]:
    """Each bar's left and right end, from the top."""
    return [
        (round(bar.get_x(), 9), round(bar.get_x() + bar.get_width(), 9))
        for container in ax.containers
        for bar in container.patches
    ]


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_each_step_begins_where_the_one_before_ended() -> None:
    gains = Gains(0.010, 0.004, (("conv2d 8x8 -> 8x8", 0.005), ("dense", 0.001)))
    ax = where_the_gain_came_from(gains, ax=offscreen_axes())
    assert spans(ax) == [(0, 10), (5, 10), (4, 5), (0, 4)]
    assert names(ax) == ["default schedules", "conv2d\n8x8 -> 8x8", "dense", "tuned"]
    assert [text.get_text() for text in ax.texts] == [
        "10.0 ms",
        "−5.00 ms (50.0 %)",
        "−1.00 ms (10.0 %)",
        "4.00 ms",
    ]
    assert "(ms)" in ax.get_xlabel()


def test_many_steps_are_summed_up_in_the_last() -> None:
    gains = Gains(0.100, 0.070, tuple((f"t{number}", 0.001) for number in range(30)))
    ax = where_the_gain_came_from(gains, ax=offscreen_axes())
    assert len(spans(ax)) == 14
    assert names(ax)[-2] == "19 more"
    assert spans(ax)[-2] == (70, 89)
    assert spans(ax)[-1] == (0, 70)


def test_nothing_gained_is_two_equal_bars_and_nothing_timed_is_said() -> None:
    ax = where_the_gain_came_from(Gains(0.010, 0.010, ()))
    assert spans(ax) == [(0, 10), (0, 10)]
    with pytest.raises(ValueError, match="no task has a verified time"):
        where_the_gain_came_from(Gains(0.0, 0.0, ()))
