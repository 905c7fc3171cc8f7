import math

import numpy as np
import pytest

from tunewright.plots import offscreen_axes, relative_speed


def test_median_band_and_marks() -> None:
    runs = [np.array([math.nan, 0.5, 1.0]), np.array([0.2, 0.4, 0.6]), np.array([0.3, 0.9, 0.9])]
    ax = relative_speed({"tpe": runs}, marks={"vendor": 1.0, "default": 0.7}, ax=offscreen_axes())
    line, vendor, default = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [math.nan, 0.5, 0.9])
    assert [vendor.get_ydata()[0], default.get_ydata()[0]] == [1.0, 0.7]
    assert [one.get_label() for one in (line, vendor, default)] == ["tpe", "vendor", "default"]
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.4, 1.0)
    assert "trials" in ax.get_xlabel()
    low, high = ax.get_ylim()
    assert low == 0 and 1.0 < high < 1.2


def test_a_run_without_a_candidate_is_no_obstacle() -> None:
    runs = {"a": [np.array([0.5])], "b": [np.array([math.nan])]}
    ax = relative_speed(runs, marks={}, ax=offscreen_axes())
    assert len(ax.get_lines()) == 2


def test_a_run_that_ended_keeps_its_last_speed() -> None:
    ax = relative_speed({"a": [np.array([1.0]), np.array([1.0, 3.0])]}, marks={}, ax=offscreen_axes())
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [1.0, 2.0])


def test_lines_differ_without_colour() -> None:
    ax = relative_speed({name: [np.array([1.0, 2.0])] for name in "abcde"}, marks={}, ax=offscreen_axes())
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()}
    assert len(looks) == 5


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="no run has a candidate"):
        relative_speed({"a": [np.array([math.nan])]}, marks={"vendor": 1.0}, ax=offscreen_axes())
