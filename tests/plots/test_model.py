"""How the cost model's ranking is computed and drawn, against rankings whose quality is known."""

import math

import numpy as np
import pytest

from tests.plots.conftest import MakeTrial
from tunewright.core.types import FailureKind
from tunewright.plots import cost_model, model_quality, offscreen_axes
from tunewright.tuning_logs.trial_facts import TrialFacts

SECS = [0.008, 0.001, 0.004, 0.002, 0.016, 0.032, 0.064, 0.128]


def batch(
    make_trial: MakeTrial, scores: list[float], *, task: str = "a", model: str = "m"
) -> list[TrialFacts]:
    return [
        make_trial(task, secs, predicted_score=score, model_id=model)
        for secs, score in zip(SECS, scores, strict=True)
    ]


RIGHT = [-math.log(secs) for secs in SECS]
WRONG = [-score for score in RIGHT]


def test_a_model_that_is_right_then_wrong(make_trial: MakeTrial) -> None:
    trials = batch(make_trial, RIGHT, model="first") + batch(make_trial, WRONG, model="second")
    quality = model_quality(trials, max_windows=2)
    np.testing.assert_array_equal(quality.trials, [8, 16])
    np.testing.assert_allclose(quality.spearman, [1, -1])
    np.testing.assert_allclose(quality.top_quarter_recall, [1, 0])
    ranks = np.argsort(np.argsort(RIGHT)) / 7
    np.testing.assert_allclose(quality.predicted_place, [*ranks, *(1 - ranks)])
    np.testing.assert_allclose(quality.measured_place, [*ranks, *ranks])


def test_tasks_are_ranked_apart_and_weighted_by_candidates(make_trial: MakeTrial) -> None:
    # Ranked together, the second task's times would upset the ranking.
    small = [make_trial("b", secs * 100, predicted_score=-secs, model_id="m") for secs in SECS[:4]]
    quality = model_quality(batch(make_trial, WRONG) + small, max_windows=1)
    np.testing.assert_array_equal(quality.trials, [12])
    np.testing.assert_allclose(quality.spearman, [(8 * -1 + 4 * 1) / 12])


def test_failures_are_the_worst_pruned_have_their_sample_and_lost_workers_say_nothing(
    make_trial: MakeTrial,
) -> None:
    def trial(score: float, secs: float | None = None, **more: object) -> TrialFacts:
        return make_trial("a", secs, predicted_score=score, model_id="m", **more)

    trials = [
        trial(4.0, 0.001),
        trial(3.0, 0.002),
        trial(2.0, failure=FailureKind.PRUNED, run_secs=(0.009,)),
        trial(1.0, failure=FailureKind.BUILD),
        trial(9.0, failure=FailureKind.WORKER_LOST),
    ]
    quality = model_quality(trials)
    np.testing.assert_allclose(quality.spearman, [1])
    assert len(quality.measured_place) == 4


def test_times_are_calibrated_by_the_reference_kernel(make_trial: MakeTrial) -> None:
    # The machine was half as fast for the two that look slow: without it, they would rank last.
    times = [(0.0040, 1.0, 1.0), (0.0039, 1.0, 2.0), (0.0041, 2.0, 3.0), (0.0042, 2.0, 4.0)]
    trials = [
        make_trial("a", secs, yardstick_secs=yardstick, predicted_score=score, model_id="m")
        for secs, yardstick, score in times
    ]
    assert model_quality(trials).spearman[0] > 0.5


@pytest.mark.parametrize("kind", ["empty", "one", "unscored", "all equal"])
def test_what_cannot_be_ranked_is_left_out_and_said(make_trial: MakeTrial, kind: str) -> None:
    trials = {
        "empty": [],
        "one": [make_trial("a", 1.0, predicted_score=1.0, model_id="m")],
        "unscored": [make_trial("a", secs) for secs in SECS],
        "all equal": [make_trial("a", predicted_score=score, model_id="m") for score in range(9)],
    }[kind]
    quality = model_quality(trials)
    assert quality.trials.shape == quality.predicted_place.shape == (0,)
    with pytest.raises(ValueError, match="no batch of four or more"):
        cost_model(quality)


def test_two_lines_over_time_each_with_its_chance(make_trial: MakeTrial) -> None:
    trials = batch(make_trial, RIGHT, model="first") + batch(make_trial, WRONG, model="second")
    ax = cost_model(model_quality(trials, max_windows=2), ax=offscreen_axes())
    correlation, chance, recall, recall_chance = ax.get_lines()
    np.testing.assert_array_equal(correlation.get_xdata(), [8, 16])
    np.testing.assert_allclose(correlation.get_ydata(), [1, -1])
    np.testing.assert_allclose(recall.get_ydata(), [1, 0])
    assert list(chance.get_ydata()) == [0, 0]
    assert list(recall_chance.get_ydata()) == [0.25, 0.25]
    assert correlation.get_linestyle() != recall.get_linestyle()
    assert ax.get_ylim()[0] < -1
    assert "trials" in ax.get_xlabel()


def test_places_are_shares_of_what_was_predicted_there(make_trial: MakeTrial) -> None:
    ax = cost_model(model_quality(batch(make_trial, RIGHT)), show="places", ax=offscreen_axes())
    (mesh,) = ax.collections
    cells = np.asarray(mesh.get_array()).reshape(8, 8)
    np.testing.assert_allclose(cells, 100 * np.eye(8))
    figure = ax.get_figure(root=True)
    assert figure is not None
    assert [other.get_ylabel() for other in figure.axes[1:]] == ["of the candidates predicted there (%)"]
