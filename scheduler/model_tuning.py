"""Search for better hyper-parameters of the cost model by replaying logged trials, and judge them honestly.

Workloads are split twice. A fifth of them takes no part in the study. The others are its folds: parameters
are scored by how well models that learnt from the other folds rank the trials of each. What won is then
compared with the defaults on the fifth that the study has not seen, where it has to be better by more than
chance.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.core.clock import Clock
from tunewright.core.errors import ConfigError
from tunewright.core.keys import digest
from tunewright.core.types import TaskKey, WorkloadKey
from tunewright.cost_model import TrainingSet
from tunewright.cost_model.evaluation import (
    GroupRanking,
    Mask,
    held_out_tasks,
    mean_metrics,
    rank_groups,
    rank_held_out,
)
from tunewright.cost_model.hyper_parameters import DEFAULT, HyperParameters
from tunewright.cost_model.xgboost_model import XGBoostCostModel, fit_predict
from tunewright.search.hyper_study import HyperStudy, NumberRange

Floats = npt.NDArray[np.float64]

RANGES: Mapping[str, NumberRange] = {
    "num_rounds": NumberRange(16, 256, is_log=True),
    "max_depth": NumberRange(2, 10),
    "max_bin": NumberRange(16, 256, is_log=True),
    "eta": NumberRange(0.02, 0.5, is_log=True),
    "min_child_weight": NumberRange(0.05, 32.0, is_log=True),
    "subsample": NumberRange(0.4, 1.0),
    "colsample_bynode": NumberRange(0.05, 1.0),
    "reg_lambda": NumberRange(0.01, 32.0, is_log=True),
}
METRICS = ("pairwise_accuracy", "top_1_score", "top_5_score", "top_quarter_recall", "spearman")
# Of fewer workloads, those held out say nothing about others.
MIN_WORKLOADS = 10
FIRST_TRIED = asdict(DEFAULT)

_HELD_OUT_SHARE = 0.2
_SEED = 0
# Of the comparison at the end: one fit more or less lucky must not decide.
_NUM_MODEL_SEEDS = 3
_TAIL = 0.025  # on either side of an interval


@dataclass(frozen=True, slots=True)
class Split:
    """The trials of a study, and those held out; their groups are named by workloads, not by tasks: the same
    layer for another number of threads is hardly an unseen one."""

    study: TrainingSet
    held_out: TrainingSet
    num_study_workloads: int
    num_held_out_workloads: int

    @property
    def data_key(self) -> str:
        """What a score depends on besides the parameters."""
        parts = [
            digest(one.label.tobytes().hex(), one.features.rows.tobytes().hex(), *one.group_tasks)
            for one in (self.study, self.held_out)
        ]
        return digest(*parts)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over held-out workloads, and its 95 % interval; infinite where there is one workload."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric on the held-out workloads; the difference is the tuned model's less the default's."""

    metric: str
    default: Estimate
    tuned: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class ModelTuning:
    """What a study found. `study_scores`: of the defaults and of the best, on the folds that chose it."""

    params: HyperParameters
    metric: str
    study_scores: tuple[float, float]
    comparisons: tuple[Comparison, ...]
    fit_secs: tuple[float, float]
    num_trials: int
    split: Split

    @property
    def is_default(self) -> bool:
        """Whether the study found nothing better than the defaults."""
        return self.params == DEFAULT

    @property
    def chosen(self) -> Comparison:
        """By the study's metric."""
        return next(one for one in self.comparisons if one.metric == self.metric)

    @property
    def is_better(self) -> bool:
        """Whether the best beats the defaults on held-out workloads by more than chance."""
        return not self.is_default and self.chosen.difference.low > 0.0


@dataclass(frozen=True, slots=True)
class TrialDone:
    """The study's trial of this number; `score` None where it was given up."""

    number: int
    score: float | None
    best_score: float


def split_by_workload(training_set: TrainingSet, workloads: Mapping[TaskKey, WorkloadKey]) -> Split:
    """Hold out a fifth of the workloads, always the same ones.

    Raises:
        ConfigError: there are fewer than `MIN_WORKLOADS`.
    """
    names = tuple(TaskKey(workloads.get(key) or key) for key in training_set.group_tasks)
    by_workload = replace(training_set, group_tasks=names)
    # By their digests: a log that grows holds out the workloads that it held out before.
    ordered = sorted(set(names), key=lambda name: digest("held out", name))
    if len(ordered) < MIN_WORKLOADS:
        raise ConfigError(
            f"the log has trials of {len(ordered)} workloads, and tuning a model's parameters needs "
            f"{MIN_WORKLOADS} or more: tune other models first"
        )
    chosen = set(ordered[: round(_HELD_OUT_SHARE * len(ordered))])
    is_held_out = np.array([names[group] in chosen for group in training_set.group], dtype=np.bool_)
    return Split(
        by_workload.subset(~is_held_out),
        by_workload.subset(is_held_out),
        len(ordered) - len(chosen),
        len(chosen),
    )


def tune_model(
    split: Split,
    study: HyperStudy,
    *,
    metric: str,
    num_trials: int | None,
    time_secs: float | None,
    clock: Clock,
    on_trial: Callable[[TrialDone], None] = lambda done: None,
) -> ModelTuning:
    """Go on with a study until it has `num_trials`, or for `time_secs`; then compare its best with the
    defaults.

    Raises:
        ConfigError: no held-out workload has trials that can be ranked.
    """
    folds = list(held_out_tasks(split.study, seed=_SEED))
    started = clock.monotonic()
    while num_trials is None or study.num_done < num_trials:
        if time_secs is not None and study.num_done and clock.monotonic() - started >= time_secs:
            break
        score = _try_next(study, split.study, folds, metric)
        best = study.best
        on_trial(TrialDone(study.num_done, score, best.score if best else float("-inf")))
    best = study.best
    if best is None:
        raise ConfigError("the study has no trial yet: give it --trials or --time-budget")
    params = _parameters(best.values)
    return ModelTuning(
        params=params,
        metric=metric,
        study_scores=(_study_score(DEFAULT, split.study, folds, metric), best.score),
        comparisons=tuple(_compare(split, params)),
        fit_secs=(_fit_secs(DEFAULT, split.study, clock), _fit_secs(params, split.study, clock)),
        num_trials=study.num_done,
        split=split,
    )


def _try_next(
    study: HyperStudy, training_set: TrainingSet, folds: Sequence[Mask], metric: str
) -> float | None:
    """The score of the study's next trial, None where it is given up after some of the folds."""
    params = _parameters(study.ask())
    score = math.nan
    for part, score in enumerate(_scores_so_far(params, training_set, folds, metric)):
        if part + 1 < len(folds) and not study.goes_on(part, score):
            return None
    study.tell(score)
    return score


def _study_score(
    params: HyperParameters, training_set: TrainingSet, folds: Sequence[Mask], metric: str
) -> float:
    *_, score = _scores_so_far(params, training_set, folds, metric)
    return score


def _scores_so_far(
    params: HyperParameters, training_set: TrainingSet, folds: Sequence[Mask], metric: str
) -> Iterator[float]:
    """After each fold, the mean over what has been ranked until then."""
    rankings: list[GroupRanking] = []
    for fold in folds:
        rankings += rank_held_out(training_set, fit_predict(seed=_SEED, params=params), [fold])
        yield mean_metrics(rankings).get(metric, 0.0)


def _compare(split: Split, params: HyperParameters) -> Iterator[Comparison]:
    default, tuned = (_ranked_held_out(split, one) for one in (DEFAULT, params))
    if not default:
        raise ConfigError(
            "none of the workloads that are held out has 4 or more trials that differ in time: measure more "
            "with `tunewright tune`"
        )
    workloads = np.array([ranking.task_key for ranking in default])
    weights = np.array([float(ranking.num_candidates) for ranking in default])
    means = _Means(workloads, weights)
    for metric in METRICS:
        before, after = (np.array([one.metrics[metric] for one in ranked]) for ranked in (default, tuned))
        yield Comparison(metric, means.of(before), means.of(after), means.of(after - before))


def _ranked_held_out(split: Split, params: HyperParameters) -> list[GroupRanking]:
    """The groups that were held out, each metric the mean over models that differ in their seed."""
    by_seed = [
        rank_groups(split.held_out, fit_predict(seed=seed, params=params)(split.study, split.held_out))
        for seed in range(_NUM_MODEL_SEEDS)
    ]
    return [
        replace(
            same[0],
            metrics={
                name: statistics.fmean(ranking.metrics[name] for ranking in same) for name in same[0].metrics
            },
        )
        for same in zip(*by_seed, strict=True)
    ]


class _Means:
    """Means over groups, weighted by their candidates as in `mean_metrics`, with Student's interval over
    workloads: groups of one workload are no independent evidence, and for few workloads, resampling them
    gives intervals that are far too short."""

    def __init__(self, workloads: npt.NDArray[np.str_], weights: Floats) -> None:
        names, self._workload = np.unique(workloads, return_inverse=True)
        self._weights = weights
        self._num_workloads = len(names)

    def of(self, values: Floats) -> Estimate:
        """Of `values` (n_groups,)."""
        from scipy.special import stdtrit  # a second, for this alone

        n, total = self._num_workloads, self._weights.sum()
        mean = float(np.average(values, weights=self._weights))
        if n < 2:
            return Estimate(mean, -math.inf, math.inf)
        residuals = np.bincount(self._workload, weights=self._weights * (values - mean))
        error = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total
        margin = float(stdtrit(n - 1, 1 - _TAIL)) * error
        return Estimate(mean, mean - margin, mean + margin)


def _fit_secs(params: HyperParameters, training_set: TrainingSet, clock: Clock) -> float:
    model = XGBoostCostModel(seed=_SEED, params=params)
    started = clock.monotonic()
    model.fit(training_set)
    return clock.monotonic() - started


def _parameters(values: Mapping[str, Any]) -> HyperParameters:
    return HyperParameters(**values)
