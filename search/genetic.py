"""Evolution by measured times alone: nothing judges a child but its measurement.

It is what `evolutionary` is without its models, its guess of the hardware and other tasks' schedules, with
the same mutations and crossovers: the genetic algorithm that learned searches are compared with.
"""

import itertools
import random
from collections.abc import Mapping

from tunewright.core.types import Draft, Origin
from tunewright.search.decisions import DecisionPoint
from tunewright.search.drafting import DraftingSearch
from tunewright.search.population import Drafts, EvolutionConfig, breed, random_draft
from tunewright.search.space import DesignSpace
from tunewright.search.told_points import ToldPoints

# The fastest trials are the parents: fewer of them, and the population is one family after some batches.
_MAX_PARENTS = 32
_CONFIG = EvolutionConfig()


class GeneticSearch(DraftingSearch):
    """Proposes children of the fastest trials."""

    def __init__(self, space: DesignSpace, *, seed: int) -> None:
        super().__init__("genetic", space, _Breeder, seed=seed)


class _Breeder:
    def __init__(self, told: ToldPoints, _illegal: Mapping[DecisionPoint, int], seed: int) -> None:
        fastest = itertools.islice(told.fastest_first().items(), _MAX_PARENTS)
        self._space = told.decisions
        self._parents = [(point, Draft(one, point.decisions, Origin.REPLAY)) for point, one in fastest]
        self._examples = [(point, applied.candidate) for point, applied in told.examples.items()]
        self._rng = random.Random(seed)

    def draft(self, n: int) -> Drafts:
        drafts: Drafts = {}
        if self._parents and self._examples:
            for _ in range(n):
                drafts.setdefault(*self._child())
        return drafts

    def refuse(self, point: DecisionPoint) -> None:
        """Nothing to learn: only measured points have children."""

    def _child(self) -> tuple[DecisionPoint, Draft]:
        kind = self._rng.random()
        if kind < _CONFIG.fresh_share:
            return random_draft(self._space, self._examples, self._rng)
        crosses = kind < _CONFIG.fresh_share + _CONFIG.crossover_share
        return breed(self._space, self._parents, crosses, self._rng, _CONFIG)
