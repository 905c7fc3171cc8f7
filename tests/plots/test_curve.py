"""What the tuning curve draws, read back from its `Axes`."""

import math

import numpy as np
import pytest
from matplotlib import pyplot

from tunewright.plots import BestSoFar, inline_svg, offscreen_axes, tuning_curve
from tunewright.plots.curve import XAxis


def run(latency_secs: list[float], secs_per_trial: float = 2.0) -> BestSoFar:
    """Measuring takes so many seconds per trial, running half of them, the clock counts thrice."""
    trials = np.arange(1, len(latency_secs) + 1)
    secs = secs_per_trial * trials
    return BestSoFar(trials, secs, secs / 2, 3 * secs, np.array(latency_secs))


def test_one_run_is_drawn_in_ms_against_trials() -> None:
    ax = tuning_curve({"evolutionary": [run([math.nan, 0.004, 0.002])]})
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [math.nan, 4.0, 2.0])
    assert line.get_label() == "evolutionary"
    assert "ms" in ax.get_ylabel()
    assert "trials" in ax.get_xlabel()
    assert not ax.collections


@pytest.mark.parametrize(
    ("x", "expected", "label"),
    [
        ("seconds", [0.5, 1.0], "build and measuring time (s)"),
        ("device_seconds", [0.25, 0.5], "time on the device (s)"),
        ("wall_seconds", [1.5, 3.0], "wall time (s)"),
    ],
)
def test_seconds_are_the_runs_own(x: XAxis, expected: list[float], label: str) -> None:
    ax = tuning_curve({"a": [run([0.004, 0.002], secs_per_trial=0.5)]}, x=x)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), expected)
    assert ax.get_xlabel() == label


def test_a_long_run_is_drawn_by_its_steps_alone() -> None:
    latency_ms = np.repeat([9.0, 5.0, 4.0], [10, 49_990, 50_000])
    ax = tuning_curve({"a": [run([math.nan, *(latency_ms / 1e3)])]})
    (line,) = ax.get_lines()
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert len(x) < 100
    assert x[-1] == 100_001
    # What a line of all points would show.
    for at in (2, 11, 12, 50_001, 50_002, 77_777):
        assert y[np.searchsorted(x, at, side="right") - 1] == pytest.approx(latency_ms[at - 2])


def test_a_long_band_keeps_the_steps_of_every_run() -> None:
    short, long = run([0.008] * 10 + [0.002] * 2_990), run([0.008] * 1_000 + [0.006] * 2_000)
    ax = tuning_curve({"a": [short, long]})
    (line,) = ax.get_lines()
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert y[np.searchsorted(x, [10, 11, 1_000, 1_001], side="right") - 1] == pytest.approx([8, 5, 5, 4])


def test_labels_are_no_formulas_and_none_is_hidden() -> None:
    names = ["$\\alpha", "a$b$c", "_private", "tab\there"]
    ax = tuning_curve({name: [run([0.004])] for name in names}, ax=offscreen_axes())
    legend = ax.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 4
    svg = inline_svg(ax)
    for shown in ("$\\alpha", "a$b$c", "_private", "tab\\there"):
        assert shown in svg


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
