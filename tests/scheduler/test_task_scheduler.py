"""The task scheduler spends trials where they save most of the model's time."""

import numpy as np
import pytest

from tunewright.scheduler.task_scheduler import AllocationConfig, TaskProgress, next_task, predicted_gain

INF = float("inf")


def task(
    *curve: float, weight: int = 1, flop: float = 1e6, operators: str = "conv2d", is_exhausted: bool = False
) -> TaskProgress:
    return TaskProgress(weight, flop, curve, operators, is_exhausted)


def test_untried_task_comes_first() -> None:
    assert next_task([task(1e-3), task(), task(1e-3)], patience=100) == 1


def test_heavier_task_of_two_equal_ones_comes_first() -> None:
    assert next_task([task(1e-3), task(1e-3, weight=5)], patience=100) == 1


def test_task_that_still_improves_beats_one_that_does_not() -> None:
    flat = task(*[1e-3] * 20)
    falling = task(*np.linspace(2e-3, 1e-3, 20))
    assert predicted_gain(falling, 0.0) > predicted_gain(flat, 0.0)


def test_task_near_the_best_rate_has_less_to_gain() -> None:
    slow, fast = task(1e-3, flop=1e6), task(1e-3, flop=1e9)
    rate = 1e9 / 1e-3
    config = AllocationConfig(reachable_slowdown=0.5)
    assert predicted_gain(fast, rate, config) < predicted_gain(slow, rate, config)


def test_a_rate_is_expected_only_of_tasks_like_the_one_that_reached_it() -> None:
    config = AllocationConfig(reachable_slowdown=1.0)
    fast, equal = task(*[1e-4] * 40, flop=1e6), task(*[1e-4] * 40, flop=1e6)
    softmax = task(*[0.9e-4] * 40, flop=1e3, operators="softmax")
    # By their times alone the convolutions would come first.
    assert next_task([softmax, fast, equal], patience=100) == 1
    assert next_task([softmax, fast, equal], patience=100, config=config) == 0


def test_stalled_and_exhausted_tasks_are_left_alone() -> None:
    stalled, exhausted = task(*[1e-3] * 50), task(5e-3, is_exhausted=True)
    assert next_task([stalled, exhausted, task(1e-6)], patience=32) == 2
    assert next_task([stalled, exhausted], patience=32) is None


def test_gain_below_one_percent_does_not_count_as_progress() -> None:
    crawling = task(*(1e-3 * (1 - 1e-5 * np.arange(60))))
    assert next_task([crawling], patience=32) is None


def test_task_whose_every_trial_failed_does_not_starve_the_others() -> None:
    assert next_task([task(*[INF] * 16), task(*[1e-3] * 4)], patience=100) == 0
    assert next_task([task(*[INF] * 32), task(*[1e-3] * 4)], patience=100) == 1


@pytest.mark.parametrize("weights", [(1, 1, 1), (10, 1, 3), (1, 40, 1)])
def test_schedule_is_near_the_best_split_found_by_brute_force(weights: tuple[int, ...]) -> None:
    """Tasks that improve as start x (1 + n) ** -decay: compare with the best split of 30 batches."""
    starts, decays, num_batches = (4e-3, 1e-3, 2e-3), (0.5, 0.9, 0.2), 30

    def curve(index: int, trials: int) -> list[float]:
        return [starts[index] * (1 + n) ** -decays[index] for n in range(trials)]

    def total(trials: tuple[int, ...]) -> float:
        return sum(w * curve(i, n)[-1] for i, (w, n) in enumerate(zip(weights, trials, strict=True)))

    trials = [1, 1, 1]
    for _ in range(num_batches):
        index = next_task(
            [task(*curve(i, n), weight=w) for i, (w, n) in enumerate(zip(weights, trials, strict=True))],
            patience=10_000,
        )
        assert index is not None
        trials[index] += 8
    splits = [
        (1 + 8 * a, 1 + 8 * b, 1 + 8 * (num_batches - a - b))
        for a in range(num_batches + 1)
        for b in range(num_batches + 1 - a)
    ]
    best, even = min(map(total, splits)), total((81, 81, 81))
    assert total((trials[0], trials[1], trials[2])) <= max(1.15 * best, best + 0.5 * (even - best))
