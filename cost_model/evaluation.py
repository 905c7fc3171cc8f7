"""How well a cost model ranks candidates that it has not seen, inside known tasks and on new ones."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunewright.core.types import RecordedTrial, TaskKey
from tunewright.cost_model.dataset import make_training_set, usable_trials
from tunewright.cost_model.metrics import pairwise_accuracy, spearman, top_k_recall, top_k_score
from tunewright.cost_model.types import TrainingSet

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
FitPredict = Callable[[TrainingSet, TrainingSet], Scores]

MIN_TASKS = 2  # a held-out task says something about new tasks only if another remains to learn from
_HELD_OUT_SHARE = 0.2
_MAX_FOLDS = 5
_MIN_HELD_OUT = 4  # fewer candidates of a group cannot be ranked in any telling way
_TOP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class GroupRanking:
    """How well the held-out candidates of one group, a task on one machine, were ranked."""

    group: int
    task_key: TaskKey
    num_candidates: int
    metrics: Mapping[str, float]


def evaluate(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> dict[str, float]:
    """Held-out metrics, each the mean over groups weighted by their held-out candidates.

    `within_task_*`: a seeded fifth of every group is held out. `by_task_*`: see `rank_unseen_tasks`. After
    each prefix, the names of `rank_metrics`.

    Returns: no entry for what the data are too few to tell; finite values.
    """
    known = rank_held_out(training_set, fit_predict, [held_out_fifth(training_set, seed=seed)])
    unseen = rank_unseen_tasks(training_set, fit_predict, seed=seed)
    return {f"within_task_{name}": value for name, value in mean_metrics(known).items()} | {
        f"by_task_{name}": value for name, value in mean_metrics(unseen).items()
    }


def online_accuracy(trials: Sequence[RecordedTrial]) -> float | None:
    """Pairwise accuracy of the scores that trials carry from before they were measured, in [0, 1].

    Only scores of one model compare, and only of one task on one machine; the mean over such groups, weighted
    by their trials. A search measures what it takes for the best, whose order is the hardest to tell: this is
    lower than the accuracy on a random sample.

    Returns: None where no group can be ranked.
    """
    by_model: dict[str, list[RecordedTrial]] = {}
    for trial in usable_trials(trials):
        if trial.record.model_id is not None and trial.record.predicted_score is not None:
            by_model.setdefault(trial.record.model_id, []).append(trial)
    rankings: list[GroupRanking] = []
    for scored in by_model.values():
        scores = np.array([trial.record.predicted_score for trial in scored], dtype=np.float64)
        rankings += rank_groups(make_training_set(scored), scores)
    return mean_metrics(rankings).get("pairwise_accuracy")


def rank_unseen_tasks(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> list[GroupRanking]:
    """Hold out whole tasks, on all their machines, in turn, in at most five folds.

    Args:
        fit_predict: trains on its first argument and returns scores (n,) of its second.

    Returns: one for each group that can be ranked; none with fewer than two tasks.
    """
    if len(set(task_of_each(training_set))) < MIN_TASKS:
        return []
    return rank_held_out(training_set, fit_predict, held_out_tasks(training_set, seed=seed))


def mean_metrics(rankings: Sequence[GroupRanking]) -> dict[str, float]:
    """The mean of each metric over groups, weighted by their candidates; empty for none.

    TenSet weights its top-k by seconds and calls of a network's tasks instead. A log holds tasks of many
    models, and a group of a few candidates is easy, so that equal weights would flatter.
    """
    total = sum(ranking.num_candidates for ranking in rankings)
    names = rankings[0].metrics if rankings else ()
    return {name: sum(r.metrics[name] * r.num_candidates for r in rankings) / total for name in names}


def rank_metrics(label: npt.NDArray[np.float32], score: Scores) -> dict[str, float]:
    """All metrics of one group; empty where it has too few candidates, or none better than another.

    `spearman`, `pairwise_accuracy`, `top_quarter_recall` (recall@k of top-k with k = a quarter of the
    candidates, so that chance is 1/4 whatever their number), `top_1_score` and `top_5_score`.
    """
    n = len(label)
    if n < _MIN_HELD_OUT or label.min() == label.max():
        return {}
    return {
        "spearman": spearman(label, score),
        "pairwise_accuracy": pairwise_accuracy(label, score),
        "top_quarter_recall": top_k_recall(label, score, math.ceil(_TOP_SHARE * n)),
        "top_1_score": top_k_score(label, score, 1),
        "top_5_score": top_k_score(label, score, 5),
    }


def rank_held_out(
    training_set: TrainingSet, fit_predict: FitPredict, folds: Iterable[Mask]
) -> list[GroupRanking]:
    """Hold out the candidates of each mask, bool (n,), in turn; one for each group that can be ranked."""
    rankings: list[GroupRanking] = []
    for held_out in folds:
        if not held_out.any() or held_out.all():
            continue
        test = training_set.subset(held_out)
        rankings += rank_groups(test, fit_predict(training_set.subset(~held_out), test))
    return sorted(rankings, key=lambda ranking: ranking.group)


def rank_groups(test: TrainingSet, score: Scores) -> list[GroupRanking]:
    """How well scores (n,) rank the candidates of each group that can be ranked, in the groups' order."""
    rankings = []
    for group in np.unique(test.group):
        member = test.group == group
        metrics = rank_metrics(test.label[member], score[member])
        if metrics:
            rankings.append(GroupRanking(int(group), test.group_tasks[group], int(member.sum()), metrics))
    return rankings


def held_out_fifth(training_set: TrainingSet, *, seed: int) -> Mask:
    """A seeded fifth of every group, (n_candidates,)."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(training_set), dtype=np.bool_)
    for group in np.unique(training_set.group):
        members = rng.permutation(np.flatnonzero(training_set.group == group))
        held_out[members[: round(_HELD_OUT_SHARE * len(members))]] = True
    return held_out


def held_out_tasks(training_set: TrainingSet, *, seed: int) -> Iterator[Mask]:
    """Each task once, on all its machines, in at most five folds of whole tasks."""
    task = np.array(task_of_each(training_set))
    tasks = np.random.default_rng(seed).permutation(np.unique(task))
    n_folds = min(_MAX_FOLDS, len(tasks))
    for fold in range(n_folds):
        yield np.isin(task, tasks[fold::n_folds])


def task_of_each(training_set: TrainingSet) -> list[TaskKey]:
    """The task of each candidate."""
    return [training_set.group_tasks[group] for group in training_set.group]
