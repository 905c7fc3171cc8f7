"""Against second implementations: loops over all pairs, and SciPy."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tunewright.cost_model.metrics import pairwise_accuracy, spearman, top_k_recall, top_k_score

# Few distinct values, so that ties are common.
VALUES = st.integers(0, 6).map(lambda value: value / 6)
VECTORS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=25).map(
    lambda pairs: (np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
)


@settings(deadline=None)
@given(VECTORS)
def test_spearman_is_scipys(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    label, score = vectors
    if np.ptp(label) == 0 or np.ptp(score) == 0:
        assert spearman(label, score) == 0.0
    else:
        assert spearman(label, score) == pytest.approx(spearmanr(label, score).statistic, abs=1e-12)


@settings(deadline=None)
@given(VECTORS)
def test_pairwise_accuracy_counts_all_pairs(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    label, score = vectors
    points = []
    for i, j in combinations(range(len(label)), 2):
        if label[i] != label[j]:
            agreement = np.sign(label[i] - label[j]) * np.sign(score[i] - score[j])
            points.append({1: 1.0, 0: 0.5, -1: 0.0}[int(agreement)])
    got = pairwise_accuracy(label, score)
    assert math.isnan(got) if not points else got == pytest.approx(np.mean(points))


@settings(deadline=None)
@given(VECTORS, st.integers(1, 30))
def test_top_k_against_sorted_lists(vectors: tuple[np.ndarray, np.ndarray], k: int) -> None:
    label, score = vectors
    picked = sorted(range(len(score)), key=lambda index: (-score[index], index))[:k]
    kth_best = sorted(label, reverse=True)[min(k, len(label)) - 1]
    recall = sum(label[index] >= kth_best for index in picked) / len(picked)
    assert top_k_recall(label, score, k) == pytest.approx(recall)
    if label.max() > 0:
        secs = [1.0 / label[index] if label[index] else math.inf for index in range(len(label))]
        expected = min(secs) / min(secs[index] for index in picked)
        assert top_k_score(label, score, k) == pytest.approx(expected)
    else:
        assert math.isnan(top_k_score(label, score, k))


def test_a_perfect_and_a_reversed_model() -> None:
    label = np.array([0.1, 0.5, 1.0, 0.2])
    assert spearman(label, label * 9) == pytest.approx(1.0)
    assert pairwise_accuracy(label, -label) == 0.0
    assert top_k_recall(label, label, 2) == 1.0
    assert top_k_score(label, -label, 1) == pytest.approx(0.1)
