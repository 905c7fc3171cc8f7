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
    model.fit(*points(200, seed=1))
    vectors, labels = points(300, seed=2)
    scores = model.predict(vectors)
    assert scores.shape == (300,) and scores.dtype == np.float64 and np.isfinite(scores).all()
    assert spearman(labels, scores) > 0.75
    assert scores[labels == 0].mean() < scores[labels > 0].mean() - 1


def test_equal_data_and_seeds_give_equal_scores_and_fit_forgets() -> None:
    one, other, changed = (DraftTrees(seed=2**70 + 3) for _ in range(3))
    changed.fit(*points(100, seed=9))
    for model in (one, other, changed):
        model.fit(*points(50, seed=1))
    vectors, _ = points(40, seed=2)
    assert one.predict(vectors).tolist() == other.predict(vectors).tolist()
    assert one.predict(vectors).tolist() == changed.predict(vectors).tolist()
    assert one.predict(vectors[:0]).shape == (0,)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_constant_label_gives_a_constant_score(label: float) -> None:
    model = DraftTrees(seed=0)
    vectors, _ = points(8, seed=1)
    model.fit(vectors, np.full(8, label, dtype=np.float32))
    assert np.ptp(model.predict(vectors)) == pytest.approx(0.0, abs=1e-6)


def test_predicting_before_fitting_is_refused() -> None:
    with pytest.raises(ModelNotFittedError, match="fit"):
        DraftTrees(seed=0).predict(points(1, seed=0)[0])
