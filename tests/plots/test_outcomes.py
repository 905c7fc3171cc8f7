"""What the outcomes' picture draws, read back from its `Axes`."""

import itertools

import numpy as np
import pytest

from tests.plots.conftest import MakeTrial
from tunewright.core.types import FailureKind
from tunewright.plots import count_outcomes, offscreen_axes, trial_outcomes
from tunewright.plots.axes import AREAS
from tunewright.plots.data import OUTCOMES


def test_bars_are_stacked_and_the_legend_counts_them(make_trial: MakeTrial) -> None:
    trials = [make_trial("a", 1.0)] * 3 + [make_trial("a", failure=FailureKind.BUILD)]
    ax = trial_outcomes(count_outcomes(trials, max_bins=2), ax=offscreen_axes())
    verified, failed = ([bar.get_height() for bar in container.patches] for container in ax.containers)
    assert (verified, failed) == ([2, 1], [0, 1])
    assert [bar.get_y() for bar in ax.containers[1].patches] == [2, 1]
    assert [bar.get_x() for bar in ax.containers[0].patches] == [0, 2]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["verified: 3 (75.0 %)", "build: 1 (25.0 %)"]
    assert "trials" in ax.get_xlabel() and "of 2 trials" in ax.get_ylabel()


def test_failures_alone_and_one_trial_are_drawn(make_trial: MakeTrial) -> None:
    for number in (1, 90):
        trials = [make_trial("a", failure=FailureKind.RUN_TIMEOUT)] * number
        (container,) = trial_outcomes(count_outcomes(trials)).containers
        assert sum(bar.get_height() for bar in container.patches) == number


def test_every_outcome_has_its_own_look_and_neighbours_differ_in_grey() -> None:
    looks = [(look.color, look.hatch) for look in AREAS[: len(OUTCOMES)]]
    assert len(set(looks)) == len(OUTCOMES)
    for one, other in itertools.pairwise(AREAS):
        lightness = [
            np.dot([int(look.color[at : at + 2], 16) / 255 for at in (1, 3, 5)], [0.299, 0.587, 0.114])
            for look in (one, other)
        ]
        assert one.hatch != other.hatch or abs(lightness[0] - lightness[1]) > 0.2


def test_no_trial_is_said() -> None:
    with pytest.raises(ValueError, match="no trial yet"):
        trial_outcomes(count_outcomes([]))
