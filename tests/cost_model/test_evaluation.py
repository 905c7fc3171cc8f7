from dataclasses import replace

import numpy as np
import pytest

from tests.cost_model.trials import batch_of, features, success, trial
from tunewright.core.types import RecordedTrial, TaskKey
from tunewright.cost_model import TrainingSet
from tunewright.cost_model.evaluation import evaluate, mean_metrics, online_accuracy, rank_unseen_tasks

METRICS = ("spearman", "pairwise_accuracy", "top_quarter_recall", "top_1_score", "top_5_score")


def make_set(n_groups: int, per_group: int) -> TrainingSet:
    """Every candidate's label can be read in its features, so that a fake model may cheat."""
    n = n_groups * per_group
    label = np.random.default_rng(0).permutation(n).astype(np.float32) / n
    arrays = [np.full((1, 164), value, dtype=np.float32) for value in label]
    group = np.arange(n, dtype=np.int32) % n_groups
    return TrainingSet(batch_of(arrays), label, group, tasks(n_groups))


def tasks(n_groups: int) -> tuple[TaskKey, ...]:
    return tuple(TaskKey(f"task-{group}") for group in range(n_groups))


def oracle(train: TrainingSet, test: TrainingSet) -> np.ndarray:
    return test.features.rows[:, 0].astype(np.float64)


def test_an_oracle_is_perfect_on_both_splits() -> None:
    result = evaluate(make_set(4, 30), oracle, seed=0)
    assert set(result) == {f"{split}_{metric}" for split in ("within_task", "by_task") for metric in METRICS}
    assert list(result.values()) == pytest.approx([1.0] * 10)


def test_a_constant_model_is_at_chance() -> None:
    result = evaluate(make_set(4, 200), lambda train, test: np.zeros(len(test)), seed=0)
    assert result["within_task_spearman"] == 0.0
    assert result["by_task_pairwise_accuracy"] == 0.5
    assert 0.1 < result["by_task_top_quarter_recall"] < 0.4


def test_nothing_held_out_is_trained_on() -> None:
    data = make_set(5, 20)
    shares: list[float] = []
    whole_groups: list[bool] = []

    def spy(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        assert not set(train.label) & set(test.label)  # labels are unique here
        assert len(train) + len(test) == len(data)
        shares.append(len(test) / len(data))
        whole_groups.append(not set(train.group) & set(test.group))
        return oracle(train, test)

    evaluate(data, spy, seed=3)
    assert shares == pytest.approx([0.2] * 6)
    assert whole_groups == [False, True, True, True, True, True]
    assert sum(shares[1:]) == pytest.approx(1.0)


def test_a_task_is_held_out_on_all_its_machines() -> None:
    data = make_set(4, 20)
    two_machines = TrainingSet(data.features, data.label, data.group, (TaskKey("a"), TaskKey("b")) * 2)
    seen: list[set[int]] = []

    def spy(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        seen.append(set(test.group.tolist()))
        return oracle(train, test)

    rankings = rank_unseen_tasks(two_machines, spy, seed=0)
    assert sorted(seen, key=min) == [{0, 2}, {1, 3}]
    assert [(r.group, r.task_key, r.num_candidates) for r in rankings] == [
        (0, "a", 20),
        (1, "b", 20),
        (2, "a", 20),
        (3, "b", 20),
    ]


def test_the_mean_is_weighted_by_candidates() -> None:
    data = make_set(2, 40)
    kept = data.subset((data.group == 0) | (np.arange(80) < 20))  # 40 and 10

    def right_for_the_first(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        return oracle(train, test) * np.where(test.group == 0, 1, -1)

    rankings = rank_unseen_tasks(kept, right_for_the_first, seed=0)
    assert [r.metrics["pairwise_accuracy"] for r in rankings] == [1.0, 0.0]
    assert mean_metrics(rankings)["pairwise_accuracy"] == pytest.approx(0.8)


def test_one_task_is_too_few_for_a_split_by_task() -> None:
    assert {name.split("_task_")[0] for name in evaluate(make_set(1, 30), oracle, seed=0)} == {"within"}


def test_few_or_equal_trials_give_no_numbers() -> None:
    assert evaluate(make_set(1, 3), oracle, seed=0) == {}
    failures = TrainingSet(
        batch_of([features(seed) for seed in range(40)]),
        np.zeros(40, dtype=np.float32),
        np.zeros(40, dtype=np.int32),
        tasks(1),
    )
    assert evaluate(failures, lambda train, test: np.zeros(len(test)), seed=0) == {}


def scored(
    secs: float, score: float | None, *, model: str = "a", task: str = "task", seed: int
) -> RecordedTrial:
    recorded = trial(success(secs), task=task, seed=seed)
    model_id = model if score is not None else None
    return replace(recorded, record=replace(recorded.record, model_id=model_id, predicted_score=score))


def test_online_accuracy_compares_scores_of_one_model_and_task_only() -> None:
    right = [scored(1.0 + n, -float(n), seed=n) for n in range(4)]
    # Higher scores for slower candidates: of another model, of another task, and one that nobody scored.
    other_model = [scored(10.0 + n, 100.0 - n, model="b", seed=10 + n) for n in range(4)]
    other_task = [scored(20.0 + n, 200.0 - n, task="other", seed=20 + n) for n in range(4)]
    unscored = scored(0.1, None, seed=30)
    assert online_accuracy(right + other_model + other_task + [unscored]) == 1.0
    wrong = [scored(1.0 + n, float(n), model="c", seed=40 + n) for n in range(4)]
    assert online_accuracy(right + wrong) == 0.5
    assert online_accuracy([unscored, *right[:3]]) is None
