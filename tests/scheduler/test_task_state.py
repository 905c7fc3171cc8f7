"""Times of several races and of trials, in one list, though the machine is not as fast in all of them."""

from typing import Any

import pytest

from tests.cost_model.trials import success, trial
from tunewright.core.types import RecordedTrial
from tunewright.scheduler.task_state import TaskState


def _state(*secs: float) -> tuple[TaskState, list[RecordedTrial]]:
    """The first trial is the default schedule."""
    no_entry: Any = None
    trials = [trial(success(one), seed=number) for number, one in enumerate(secs)]
    return TaskState(no_entry, timed=trials, default=trials[0]), trials


def test_the_first_race_is_brought_to_the_speed_of_the_trials() -> None:
    state, trials = _state(3.0, 2.0, 2.1)
    # The second was lucky before; the machine is half as fast now.
    assert state.race_factor(
        [(trials[0], success(6.0)), (trials[1], success(4.4)), (trials[2], success(4.2))]
    ) == pytest.approx(0.5)
    assert state.race_factor([]) == 1.0


def test_later_races_are_brought_to_the_speed_of_the_first() -> None:
    state, (default, first, second, lucky) = _state(3.0, 2.0, 2.1, 1.5)
    for one, secs in ((default, 3.2), (first, 2.2), (second, 2.3)):
        state.add_race(one, secs)
    assert state.default_secs == 3.2
    entrants = state.race_again([lucky])
    assert [one.record_id for one in entrants] == [0, 1, 2, 3]
    # The default schedule is in a bad place of memory this time, which says nothing about the others.
    results = [success(10.0), success(4.4), success(4.6), success(4.5)]
    factor = state.race_factor(list(zip(entrants, results, strict=True)))
    assert factor == pytest.approx(0.5)
    state.add_race(lucky, factor * 4.5)
    assert [one.record_id for one in state.race_again([])] == [0, 1, 3]


def test_nobody_races_twice_at_a_time() -> None:
    state, trials = _state(3.0, 2.0, 2.1)
    for one in trials:
        state.add_race(one, 2.0 + one.record_id)
    assert [one.record_id for one in state.race_again(trials)] == [0, 1, 2]
    state.default = None  # it does not run
    assert [one.record_id for one in state.race_again([trials[2]])] == [0, 1, 2]
