import numpy as np
import pytest

from tunewright.core.errors import ModelNotFittedError
from tunewright.cost_model.draft_model import DraftTrees
from tunewright.cost_model.metrics import spearman
from tunewright.search import DraftModel


def points(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 6) and labels: slower by a factor for each decision that is off; failures at the edge."""
    vectors = np.random.default_rng(seed).integers(0, 6, (n, 6)).astype(np.float32)
    labels = np.exp2(-np.abs(vectors - np.array([1, 2, 3, 4, 2, 3])).sum(axis=1) / 4)
    labels[vectors[:, 0] == 5] = 0.0
    return vectors, labels.astype(np.float32)


def test_ranks_points_that_it_has_not_seen() -> None:
    model: DraftModel = DraftTrees(seed=0)
    model.fit(*points(200, seed=1), np.zeros(200))
    vectors, labels = points(300, seed=2)
    scores = model.predict(vectors, np.zeros(300))
    assert scores.shape == (300,) and scores.dtype == np.float64 and np.isfinite(scores).all()
    assert spearman(labels, scores) > 0.75
    assert scores[labels == 0].mean() < scores[labels > 0].mean() - 1


def test_equal_data_and_seeds_give_equal_scores_and_fit_forgets() -> None:
    one, other, changed = (DraftTrees(seed=2**70 + 3) for _ in range(3))
    changed.fit(*points(100, seed=9), np.zeros(100))
    for model in (one, other, changed):
        model.fit(*points(50, seed=1), np.zeros(50))
    (vectors, _), none = points(40, seed=2), np.zeros(40)
    assert one.predict(vectors, none).tolist() == other.predict(vectors, none).tolist()
    assert one.predict(vectors, none).tolist() == changed.predict(vectors, none).tolist()
    assert one.predict(vectors[:0], none[:0]).shape == (0,)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_constant_label_gives_a_constant_score(label: float) -> None:
    model = DraftTrees(seed=0)
    vectors, _ = points(8, seed=1)
    model.fit(vectors, np.full(8, label, dtype=np.float32), np.zeros(8))
    assert np.ptp(model.predict(vectors, np.zeros(8))) == pytest.approx(0.0, abs=1e-6)


def test_predicting_before_fitting_is_refused() -> None:
    with pytest.raises(ModelNotFittedError, match="fit"):
        DraftTrees(seed=0).predict(points(1, seed=0)[0], np.zeros(1))


def test_what_is_believed_holds_until_trials_tell_otherwise() -> None:
    """The belief knows all but which points fail; a dozen trials show little more than that."""
    vectors, labels = points(12, seed=1)
    unseen, truth = points(300, seed=2)

    def believe(points: np.ndarray) -> np.ndarray:
        return np.asarray(
            -np.abs(points[:, 1:] - np.array([2, 3, 4, 2, 3])).sum(axis=1) / 4, dtype=np.float64
        )

    blank, believing = DraftTrees(seed=0), DraftTrees(seed=0)
    blank.fit(vectors, labels, np.zeros(12))
    believing.fit(vectors, labels, believe(vectors))
    known = spearman(truth, believing.predict(unseen, believe(unseen)))
    assert known > spearman(truth, blank.predict(unseen, np.zeros(300))) + 0.1

    wrong = DraftTrees(seed=0)
    many, many_labels = points(300, seed=3)
    wrong.fit(many, many_labels, -believe(many))
    assert spearman(truth, wrong.predict(unseen, -believe(unseen))) > 0.5
