"""What a model that learnt from some records knows of others: other tasks, few records, single mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunewright.core.types import TaskKey
from tunewright.cost_model.evaluation import (
    FitPredict,
    GroupRanking,
    Mask,
    Scores,
    held_out_fifth,
    held_out_tasks,
    mean_metrics,
    rank_groups,
    task_of_each,
)
from tunewright.cost_model.types import TrainingSet
from tunewright.cost_model.xgboost_model import log2_labels

_NUM_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Transfer:
    """How well a model that learnt from `num_records` of one task ranks another; the metrics' names are those
    of `rank_metrics`.
    """

    learnt_from: TaskKey
    ranked: TaskKey
    num_records: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """Mean metrics after learning from `num_records`: of candidates of known tasks, and of unseen tasks.

    Empty where there are not so many records, or nothing can be ranked.
    """

    num_records: int
    known: Mapping[str, float]
    unseen: Mapping[str, float]


def transfer_matrix(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> list[Transfer]:
    """Learn from each task alone, rank a fifth of every task.

    What is ranked is the same for all, and nobody learns from it; so a task's rank by its own records, also
    here, is what the others' are to be compared with.
    """
    held_out = held_out_fifth(training_set, seed=seed)
    test = training_set.subset(held_out)
    task = np.array(task_of_each(training_set))
    found = []
    for learnt_from in dict.fromkeys(task_of_each(training_set)):
        train = training_set.subset(~held_out & (task == learnt_from))
        rankings = rank_groups(test, fit_predict(train, test)) if len(train) else []
        by_task: dict[TaskKey, list[GroupRanking]] = {}
        for ranking in rankings:
            by_task.setdefault(ranking.task_key, []).append(ranking)
        found += [
            Transfer(learnt_from, ranked, len(train), mean_metrics(members))
            for ranked, members in by_task.items()
        ]
    return found


def learning_curve(
    training_set: TrainingSet, fit_predict: FitPredict, num_records: Sequence[int], *, seed: int
) -> list[LearningPoint]:
    """Learn from so many records, drawn at random from all but those that are then ranked.

    Known tasks: a fifth of every group is ranked. Unseen ones: all of a task, on all its machines, in turn.
    The records of a point are among those of the next, larger one.
    """
    known = [held_out_fifth(training_set, seed=seed)]
    unseen = list(held_out_tasks(training_set, seed=seed))
    order = np.random.default_rng(seed).permutation(len(training_set))
    return [
        LearningPoint(
            number,
            _learnt_from_few(training_set, fit_predict, known, order, number),
            _learnt_from_few(training_set, fit_predict, unseen, order, number),
        )
        for number in sorted(num_records)
    ]


def held_out_scores(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> Scores:
    """log2 of each label, as predicted by a model that learnt from four fifths of all, not from this one.

    A score is known but for a constant of its group; that is taken from the records that were learnt from.

    Returns: (n_candidates,), to be compared with `log2_labels` of the labels; NaN where nothing of a group
        was learnt.
    """
    place = np.random.default_rng(seed).permutation(len(training_set)) % _NUM_FOLDS
    target = log2_labels(training_set.label)
    predicted = np.full(len(training_set), np.nan)
    for fold in range(min(_NUM_FOLDS, len(training_set))):
        held_out = place == fold
        if held_out.all():
            continue
        score = fit_predict(training_set.subset(~held_out), training_set)
        for group in np.unique(training_set.group[held_out]):
            members = training_set.group == group
            learnt = members & ~held_out
            if learnt.any():
                wanted = members & held_out
                predicted[wanted] = score[wanted] + (target[learnt] - score[learnt]).mean()
    return predicted


def _learnt_from_few(
    training_set: TrainingSet,
    fit_predict: FitPredict,
    folds: Sequence[Mask],
    order: npt.NDArray[np.int64],
    num_records: int,
) -> dict[str, float]:
    rankings = []
    for held_out in folds:
        chosen = order[~held_out[order]][:num_records]
        if len(chosen) < num_records or held_out.all() or not held_out.any():
            return {}
        learnt = np.zeros(len(training_set), dtype=np.bool_)
        learnt[chosen] = True
        test = training_set.subset(held_out)
        rankings += rank_groups(test, fit_predict(training_set.subset(learnt), test))
    return mean_metrics(rankings)
