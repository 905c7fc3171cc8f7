"""What the tuning curve draws, read back from its `Axes`."""

import math

import numpy as np
import pytest
from matplotlib import pyplot

from tunewright.plots import BestSoFar, tuning_curve


def run(latency_secs: list[float], secs_per_trial: float = 2.0) -> BestSoFar:
    trials = np.arange(1, len(latency_secs) + 1)
    return BestSoFar(trials, secs_per_trial * trials, np.array(latency_secs))


def test_one_run_is_drawn_in_ms_against_trials() -> None:
    ax = tuning_curve({"evolutionary": [run([math.nan, 0.004, 0.002])]})
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [math.nan, 4.0, 2.0])
    assert line.get_label() == "evolutionary"
    assert "ms" in ax.get_ylabel()
    assert "trials" in ax.get_xlabel()
    assert not ax.collections


def test_seconds_are_the_runs_own() -> None:
    ax = tuning_curve({"a": [run([0.004, 0.002], secs_per_trial=0.5)]}, x="seconds")
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [0.5, 1.0])
    assert "(s)" in ax.get_xlabel()


def test_several_runs_are_their_median_in_a_band_and_a_short_one_keeps_its_last_latency() -> None:
    runs = [run([0.009, 0.003, 0.001]), run([0.006, 0.006]), run([math.nan, 0.008, 0.004])]
    ax = tuning_curve({"random": runs})
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), [math.nan, 6.0, 4.0])
    (band,) = ax.collections
    edges = band.get_paths()[0].vertices
    assert np.min(edges[:, 1]) == pytest.approx(1.0)
    assert np.max(edges[:, 1]) == pytest.approx(8.0)
    assert "3 runs" in str(line.get_label())


def test_labels_differ_without_color() -> None:
    ax = tuning_curve({name: [run([0.004, 0.002])] for name in "abcdef"})
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()}
    assert len(looks) == 6


def test_given_axes_are_drawn_on_and_no_other_figure_is_made() -> None:
    _, (left, right) = pyplot.subplots(1, 2)
    assert tuning_curve({"a": [run([0.2])]}, ax=right, linewidth=7) is right
    assert right.get_lines()[0].get_linewidth() == 7
    assert not left.get_lines()
    assert len(pyplot.get_fignums()) == 1


def test_large_falls_get_a_logarithmic_axis() -> None:
    assert tuning_curve({"a": [run([0.1, 0.001])]}).get_yscale() == "log"
    assert tuning_curve({"a": [run([0.1, 0.09])]}).get_yscale() == "linear"


def test_drawing_changes_no_global_setting() -> None:
    before = dict(pyplot.rcParams)
    tuning_curve({"a": [run([0.1, 0.001])]})
    assert dict(pyplot.rcParams) == before


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no run has a verified time"):
        tuning_curve({"a": [run([math.nan])], "b": []})
