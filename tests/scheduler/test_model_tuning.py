"""Tuning the cost model on trials whose truth is known: learnable from one column, or not at all."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.cost_model.trials import learnable_set
from tunewright.core.errors import ConfigError
from tunewright.core.types import TaskKey, WorkloadKey
from tunewright.cost_model import TrainingSet
from tunewright.cost_model.hyper_parameters import DEFAULT, HyperParameters
from tunewright.scheduler.model_tuning import (
    FIRST_TRIED,
    METRICS,
    Estimate,
    ModelTuning,
    Split,
    TrialDone,
    _compare,
    _Means,
    split_by_workload,
    tune_model,
)
from tunewright.search.hyper_study import HyperStudy, NumberRange

# Small trees fit quickly.
FEW_RANGES = {"num_rounds": NumberRange(4, 64), "max_depth": NumberRange(1, 5), "eta": NumberRange(0.1, 0.5)}


def of_own_workloads(training_set: TrainingSet) -> Mapping[TaskKey, WorkloadKey]:
    return {key: WorkloadKey(f"workload of {key}") for key in training_set.group_tasks}


def split(n: int = 400, *, seed: int = 0) -> Split:
    training_set = learnable_set(n, seed=seed, n_groups=20)
    return split_by_workload(training_set, of_own_workloads(training_set))


def shuffled(training_set: TrainingSet, seed: int) -> TrainingSet:
    """The same candidates with labels that follow from nothing."""
    label = np.random.default_rng(seed).permutation(training_set.label)
    return TrainingSet(training_set.features, label, training_set.group, training_set.group_tasks)


class TickingClock:
    """A second later each time that it is read."""

    def __init__(self) -> None:
        self._secs = 0.0

    def monotonic(self) -> float:
        self._secs += 1.0
        return self._secs

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def run(
    path: Path, parts: Split, *, num_trials: int | None = 8, time_secs: float | None = None
) -> ModelTuning:
    study = HyperStudy.open(path, "s", FEW_RANGES, start=FIRST_TRIED, data=parts.data_key)
    return tune_model(
        parts,
        study,
        metric="pairwise_accuracy",
        num_trials=num_trials,
        time_secs=time_secs,
        clock=TickingClock(),
    )


def test_workloads_are_held_out_whole() -> None:
    training_set = learnable_set(300, seed=0, n_groups=30)
    # Three tasks of each workload: other numbers of threads, say.
    workloads = {key: WorkloadKey(f"w{index // 3}") for index, key in enumerate(training_set.group_tasks)}
    parts = split_by_workload(training_set, workloads)
    sides = [{one.group_tasks[group] for group in one.group} for one in (parts.study, parts.held_out)]
    assert sides[0].isdisjoint(sides[1])
    assert (
        [len(side) for side in sides] == [parts.num_study_workloads, parts.num_held_out_workloads] == [8, 2]
    )
    assert len(parts.study) + len(parts.held_out) == 300
    again = split_by_workload(training_set, workloads)
    assert again.data_key == parts.data_key
    assert split(seed=1).data_key != split(seed=0).data_key


def test_too_few_workloads() -> None:
    training_set = learnable_set(100, seed=0, n_groups=9)
    with pytest.raises(ConfigError, match=r"trials of 9 workloads, and tuning .* needs 10 or more"):
        split_by_workload(training_set, of_own_workloads(training_set))


@pytest.mark.slow
def test_a_study_goes_on_and_its_first_trial_is_the_default(tmp_path: Path) -> None:
    parts, done = split(200), list[TrialDone]()
    study = HyperStudy.open(tmp_path / "s.db", "s", FEW_RANGES, start=FIRST_TRIED, data="d")
    found = tune_model(
        parts,
        study,
        metric="top_5_score",
        num_trials=1,
        time_secs=None,
        clock=TickingClock(),
        on_trial=done.append,
    )
    assert (found.params, found.is_default, found.is_better) == (DEFAULT, True, False)
    assert found.study_scores[0] == found.study_scores[1] == done[0].score
    again = HyperStudy.open(tmp_path / "s.db", "s", FEW_RANGES, start=FIRST_TRIED, data="d")
    found = tune_model(
        parts,
        again,
        metric="top_5_score",
        num_trials=4,
        time_secs=None,
        clock=TickingClock(),
        on_trial=done.append,
    )
    assert [one.number for one in done] == [1, 2, 3, 4]
    assert found.num_trials == 4
    assert found.study_scores[1] >= found.study_scores[0]


def test_bad_parameters_lose_on_held_out_workloads() -> None:
    """One stump of one tree ranks worse than the default, and the interval says so."""
    by_metric = {one.metric: one for one in _compare(split(800), HyperParameters(num_rounds=1, max_depth=1))}
    assert by_metric.keys() == set(METRICS)
    pairwise = by_metric["pairwise_accuracy"]
    assert pairwise.default.low < pairwise.default.mean < pairwise.default.high
    assert pairwise.difference.high < 0
    assert pairwise.difference.mean == pytest.approx(pairwise.tuned.mean - pairwise.default.mean)


def test_where_nothing_can_be_learnt_no_parameters_are_better() -> None:
    """Whatever a study says of its own folds, the workloads that are held out deny it."""
    training_set = shuffled(learnable_set(400, seed=3, n_groups=20), seed=3)
    parts = split_by_workload(training_set, of_own_workloads(training_set))
    for params in (HyperParameters(max_depth=2), HyperParameters(eta=0.4), HyperParameters(num_rounds=8)):
        by_metric = {one.metric: one for one in _compare(parts, params)}
        found = by_metric["pairwise_accuracy"]
        assert found.difference.low < 0 < found.difference.high
        tuning = ModelTuning(params, "pairwise_accuracy", (0.5, 0.6), (found,), (1.0, 1.0), 9, parts)
        assert not tuning.is_better
        surely = replace(found, difference=Estimate(0.1, 0.01, 0.2))
        assert replace(tuning, comparisons=(surely,)).is_better


def test_intervals_hold_what_they_say() -> None:
    """Of means of nothing but noise, 2.5 % seem better than nothing: also of few workloads, also unequal."""
    rng = np.random.default_rng(0)
    for num_workloads in (2, 4, 30):
        names = np.array([f"w{index // 2}" for index in range(2 * num_workloads)])
        is_above = []
        for _ in range(2000):
            weights = rng.integers(4, 40, size=len(names)).astype(float)
            estimate = _Means(names, weights).of(rng.normal(size=len(names)))
            is_above.append(estimate.low > 0)
        assert 0.01 < np.mean(is_above) < 0.045


def test_one_workload_says_nothing() -> None:
    estimate = _Means(np.array(["w", "w"]), np.array([1.0, 3.0])).of(np.array([0.0, 1.0]))
    assert (estimate.mean, estimate.low, estimate.high) == (0.75, -np.inf, np.inf)


@pytest.mark.slow
def test_a_time_budget_ends_a_study(tmp_path: Path) -> None:
    found = run(tmp_path / "s.db", split(200), num_trials=None, time_secs=3.0)
    assert found.num_trials == 3
