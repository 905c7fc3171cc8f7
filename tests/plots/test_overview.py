"""What history and coverage draw, read back from their `Axes`, and the data behind them."""

from datetime import timedelta

import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.plots.conftest import START, MakeTrial
from tunewright.core.types import TargetSpec, TaskKey, TensorSpec, WorkloadKey
from tunewright.plots import (
    ModelCoverage,
    TaskHistory,
    coverage,
    history,
    model_coverage,
    offscreen_axes,
    task_histories,
)
from tunewright.plots.log_data import FAILED, HAS_RECORD, IN_QUARANTINE, STATES, UNTRIED, UNVERIFIED
from tunewright.tuning_logs import TaskSummary

A, B = TaskKey("a"), TaskKey("b")


def day(number: int) -> timedelta:
    return timedelta(days=number)


def test_records_of_each_task_in_the_order_of_time(make_trial: MakeTrial) -> None:
    trials = [
        make_trial("a", 3.0, at_secs=30),
        make_trial("a", 5.0, at_secs=10),
        make_trial("a", 4.0, at_secs=40),
        make_trial("a", 1.0, at_secs=20, is_verified=False),
        make_trial("a", 1.0, at_secs=20, is_in_quarantine=True),
        make_trial("b", at_secs=5),
        make_trial("c", 0.1),
    ]
    (one,) = task_histories(trials, {B: "matmul", A: "conv"})
    assert one.name == "conv"
    assert [moment - START for moment in one.found_at] == [timedelta(seconds=10), timedelta(seconds=30)]
    np.testing.assert_array_equal(one.best_secs, [5.0, 3.0])
    assert task_histories([], {A: "conv"}) == []


def test_one_task_is_drawn_in_ms_to_the_end_of_the_picture() -> None:
    one = TaskHistory("conv", (START, START + day(2)), np.array([0.004, 0.003]))
    ax = history([one], ax=offscreen_axes())
    (line,) = ax.get_lines()
    start = np.datetime64("2026-01-02")
    np.testing.assert_array_equal(line.get_xdata(), [start, start + 2, start + 2])
    np.testing.assert_allclose(line.get_ydata(), [4, 3, 3])
    assert "(ms)" in ax.get_ylabel() and "UTC" in ax.get_xlabel()


def test_several_tasks_are_relative_to_their_first_records() -> None:
    slow = TaskHistory("slow", (START, START + day(1)), np.array([2.0, 1.0]))
    fast = TaskHistory("fast", (START + day(3),), np.array([1e-6]))
    ax = history([slow, fast])
    first, second = ax.get_lines()
    np.testing.assert_allclose(first.get_ydata(), [100, 50, 50])
    np.testing.assert_allclose(second.get_ydata(), [100, 100])
    assert np.asarray(first.get_xdata())[-1] == np.asarray(second.get_xdata())[-1]
    assert "%" in ax.get_ylabel()
    assert (first.get_linestyle(), first.get_marker()) != (second.get_linestyle(), second.get_marker())


def test_more_tasks_than_lines_are_counted() -> None:
    ax = history([TaskHistory(f"t{number}", (START,), np.array([1.0])) for number in range(9)])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "and 3 more tasks"
    with pytest.raises(ValueError, match="no task has a verified time"):
        history([])


def summary(name: str, size: int, *counts: int) -> TaskSummary:
    """Args: counts: trials, failed, pruned, usable."""
    vector = TensorSpec((size,), "float32")
    target = TargetSpec("skylake-avx512", 2)
    key = TaskKey(name)
    return TaskSummary(key, WorkloadKey(name), name, (vector, vector), target, 1.0, *counts, None)


def test_coverage_is_weighted_by_predicted_time() -> None:
    # Moving the arguments takes all the time that is predicted.
    tasks = [
        summary("record", 100, 9, 1, 1, 2),
        summary("quarantine", 200, 9, 1, 1, 0),
        summary("unverified", 300, 9, 4, 4, 0),
        summary("failed", 400, 9, 4, 5, 0),
        summary("untried", 500, 0, 0, 0, 0),
        summary("elsewhere", 10_000, 9, 0, 0, 9),
    ]
    weights = {task.task_key: 1 for task in tasks[:5]} | {TaskKey("record"): 10}
    model = model_coverage("net", tasks, weights, {TaskKey("quarantine"): 3})
    assert model.num_tasks == 5
    assert model.shares == pytest.approx(
        {
            HAS_RECORD: 1000 / 2400,
            IN_QUARANTINE: 200 / 2400,
            UNVERIFIED: 300 / 2400,
            FAILED: 400 / 2400,
            UNTRIED: 500 / 2400,
        }
    )
    assert model_coverage("net", [], {}, {}).shares == dict.fromkeys(STATES, 0.0)


def bars(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(container.get_label()): [(bar.get_x(), bar.get_width()) for bar in container.patches]
        for container in ax.containers
    }


def test_coverage_is_drawn_in_percent_one_bar_per_model() -> None:
    half = dict.fromkeys(STATES, 0.0) | {HAS_RECORD: 0.5, UNTRIED: 0.5}
    full = dict.fromkeys(STATES, 0.0) | {HAS_RECORD: 1.0}
    ax = coverage([ModelCoverage("half", half, 3), ModelCoverage("full", full, 1)], ax=offscreen_axes())
    assert bars(ax) == {HAS_RECORD: [(0, 50), (0, 100)], UNTRIED: [(50, 50), (100, 0)]}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["half (3)", "full (1)"]
    assert [text.get_text() for text in ax.texts] == ["50.0 %", "100.0 %"]
    assert "%" in ax.get_xlabel()
    with pytest.raises(ValueError, match="no session"):
        coverage([])


def test_states_differ_without_color() -> None:
    shares = dict.fromkeys(STATES, 0.2)
    ax = coverage([ModelCoverage("net", shares, 5)])
    looks = {
        (bar.get_hatch(), bar.get_facecolor()) for container in ax.containers for bar in container.patches
    }
    assert len(looks) == len(STATES)
