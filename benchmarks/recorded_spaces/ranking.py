"""How well a task's space is ranked by who has not seen it, and by who has timed it once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recorded_spaces.replay import RecordedTask
from tunewright.core.types import RecordedTrial, TuningTask
from tunewright.cost_model import make_training_set, usable_trials
from tunewright.cost_model.evaluation import rank_metrics
from tunewright.cost_model.xgboost_model import XGBoostCostModel
from tunewright.scheduler.tuning import hardware_of
from tunewright.search.decisions import DecisionSpace
from tunewright.tuning_logs import TuningLog

_MAX_TRIALS = 1 << 20
Vector = npt.NDArray[np.float64]
Metrics = dict[str, float]


def training_trials(urls: Sequence[str], recorded: Sequence[RecordedTask]) -> list[RecordedTrial]:
    """All trials of some logs but those of the recorded tasks."""
    excluded = {one.task.key for one in recorded}
    found: list[RecordedTrial] = []
    for url in urls:
        with TuningLog.open(url, read_only=True) as log:
            found += log.training_trials(mcpu=None, limit=_MAX_TRIALS)
    return [trial for trial in found if trial.record.task_key not in excluded]


def log_url(text: str) -> str:
    return text if "://" in text else f"sqlite:///{Path(text).absolute()}"


def fit(trials: Sequence[RecordedTrial], *, num_seeds: int) -> list[XGBoostCostModel]:
    models = [XGBoostCostModel(seed=seed) for seed in range(num_seeds)]
    for model in models:
        model.fit(make_training_set(trials))
    return models


def rank(recorded: RecordedTask, models: Sequence[XGBoostCostModel]) -> dict[str, Metrics]:
    """By whom it is ranked -> metrics.

    Against the median of all passes; one pass is compared with the mean of the others.
    """
    trials = usable_trials(recorded.trials)  # not the default schedule, whose features are not kept
    times = np.array([[one[trial.record.candidate.key] for trial in trials] for one in recorded.passes])
    ran = np.isfinite(times).all(axis=0)
    times, trials = times[:, ran], [trials[index] for index in np.flatnonzero(ran)]
    learnt = [model.predict(make_training_set(trials).features).score for model in models]
    expected = _expected(recorded.task, trials)
    label = _label(np.median(times, axis=0))
    others = [np.delete(times, index, axis=0) for index in range(len(times))]
    return {
        "the tile model": _mean([rank_metrics(label, expected)]),
        "the cost model": _mean([rank_metrics(label, score) for score in learnt]),
        "both, as a search does": _mean(
            [rank_metrics(label, _places(score) + _places(expected)) for score in learnt]
        ),
        "one measurement": _mean(
            [rank_metrics(_label(rest.mean(axis=0)), -one) for one, rest in zip(times, others, strict=True)]
        ),
    }


def _expected(task: TuningTask, trials: Sequence[RecordedTrial]) -> Vector:
    decisions = DecisionSpace(hardware_of(task.target))
    points = [decisions.learn(trial.record.candidate.trace_json) for trial in trials]
    return np.asarray(decisions.guesses([point for point in points if point is not None]))


def _label(secs: Vector) -> npt.NDArray[np.float32]:
    return (secs.min() / secs).astype(np.float32)


def _places(scores: Vector) -> Vector:
    """Place of each score, the lowest 0."""
    places = np.empty(len(scores))
    places[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return places


def _mean(metrics: Sequence[Metrics]) -> Metrics:
    return {name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]}
