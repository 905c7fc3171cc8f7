"""How well scores rank the candidates of one task.

All functions take `label` and `score`, both (n,), higher is better, of one group. The names follow the
literature, whose definitions differ: each docstring says which one this is.
"""

import math

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]


def spearman(label: Vector, score: Vector) -> float:
    """Spearman's rank correlation in [-1, 1]: Pearson's of the ranks, ties sharing their mean rank.

    0 where either side is constant: such scores rank nothing.
    """
    a, b = _mean_ranks(label), _mean_ranks(score)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0


def pairwise_accuracy(label: Vector, score: Vector) -> float:
    """Share of pairs with different labels that the scores order right, in [0, 1]; equal scores count 1/2.

    As in TenSet (Zheng et al., NeurIPS 2021), which drops ties; 1/2 keeps a constant model at chance
    level. NaN where all labels are equal.
    """
    order = np.argsort(label, kind="stable")
    sorted_label, sorted_score = label[order], score[order]
    right, total = 0.0, 0
    for index in range(1, len(order)):
        # Everything before the first equal label is a worse candidate.
        n_worse = int(np.searchsorted(sorted_label, sorted_label[index], side="left"))
        worse = sorted_score[:n_worse]
        right += int(np.count_nonzero(worse < sorted_score[index]))
        right += 0.5 * int(np.count_nonzero(worse == sorted_score[index]))
        total += n_worse
    return right / total if total else float("nan")


def top_k_recall(label: Vector, score: Vector, k: int) -> float:
    """Share of the k best labels found among the k best scores, in [0, 1]: Ansor's "recall@k of top-k".

    Where labels tie at the k-th place, any of the tied counts. A perfect model has 1, chance is k / n.
    """
    k = min(k, len(label))
    threshold = np.partition(label, -k)[-k]
    return float(np.count_nonzero(label[_best(score, k)] >= threshold)) / k


def top_k_score(label: Vector, score: Vector, k: int) -> float:
    """Best latency / best latency among the k best scores, in [0, 1], for one task.

    This is TLP's and TenSet's top-k score restricted to one task (they weight tasks by their calls). It
    is neither TenSet's "peak score@k", which averages over the first k picks, nor MetaSchedule's
    "a-peak@32". NaN where no candidate has a label above 0.
    """
    best = float(label.max())
    return float(label[_best(score, min(k, len(label)))].max()) / best if best > 0 else float("nan")


def _best(score: Vector, k: int) -> npt.NDArray[np.intp]:
    return np.argsort(-score, kind="stable")[:k]


def _mean_ranks(values: Vector) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last_rank - (counts - 1) / 2.0)[inverse]
    return ranks
