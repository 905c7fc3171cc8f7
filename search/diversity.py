"""What keeps a batch from being one family: the models' favourites tend to be neighbours of each other."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

from tunewright.core.types import ORPHANS, CandidateKey
from tunewright.search.decisions import distance
from tunewright.search.population import Drafts
from tunewright.search.strategy import Proposal


def diverse_drafts(drafts: Drafts, n: int, max_sibling_share: float) -> Drafts:
    """`n` if there are as many: few siblings and none that differ in one decision only, then whoever is best.

    A small space soon has too few that differ; the rest of the best are worth more than random points.
    """
    families = _Families(n, max_sibling_share)
    chosen: Drafts = {}
    for point, draft in drafts.items():
        if len(chosen) == n:
            break
        parent = draft.parent.key if draft.origin not in ORPHANS else None
        if all(distance(point, other) > 1 for other in chosen) and families.admit(parent):
            chosen[point] = draft
    rest = (item for item in drafts.items() if item[0] not in chosen)
    chosen.update(itertools.islice(rest, n - len(chosen)))
    return chosen


def diverse_proposals(ranked: Sequence[Proposal], n: int, max_sibling_share: float) -> list[Proposal]:
    """At most `n`, in their order: few siblings, and one of those that the cost model cannot tell apart."""
    families = _Families(n, max_sibling_share)
    seen_features: set[bytes] = set()
    chosen: list[Proposal] = []
    for proposal in ranked:
        if len(chosen) == n:
            break
        features = proposal.applied.features.tobytes()
        if features not in seen_features and families.admit(proposal.applied.candidate.parent_key):
            seen_features.add(features)
            chosen.append(proposal)
    return chosen


class _Families:
    """Lets a share of `n` candidates of each parent pass, at least one, and all without a parent."""

    def __init__(self, n: int, max_sibling_share: float) -> None:
        self._limit = max(1, math.ceil(max_sibling_share * n))
        self._admitted: Counter[CandidateKey] = Counter()

    def admit(self, parent: CandidateKey | None) -> bool:
        if parent is None:
            return True
        self._admitted[parent] += 1
        return self._admitted[parent] <= self._limit
