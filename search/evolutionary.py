"""Evolutionary search guided by the cost model: mutate the best measured and the best predicted.

The idea is Ansor's (Zheng et al., OSDI 2020, §5) and MetaSchedule's. Theirs evolves populations of 512 and
more before each batch; here that would cost minutes of CPU per batch, so evolution goes on across batches:
few candidates are applied for each trial, and those that were not picked stay as parents and contenders.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    CandidateKey,
    MeasureSuccess,
    Origin,
    RecordedTrial,
)
from tunewright.search.random import draw_new
from tunewright.search.space import DesignSpace
from tunewright.search.strategy import CostModel, Proposal, ProposalLedger


@dataclass(frozen=True, slots=True)
class EvolutionaryConfig:
    """How much is tried before each batch, and how the batch is mixed."""

    # Applying a candidate costs 7 ms (matmul) to 42 ms (convolution) of CPU spread over all cores, a trial
    # 100-300 ms of wall time: five per trial keep the search well below the measuring.
    candidates_per_trial: int = 5
    # The second generation mutates what the model likes of the first; more would only split the same budget.
    num_generations: int = 2
    # New blood in the first generation: without it the population ends in the basin of the first batch.
    fresh_share: float = 0.25
    # Picked at random: the model only learns where it is wrong from trials that it did not choose.
    random_share: float = 0.06
    # Parents from either side, best measured and best predicted; the better ones are drawn more often.
    num_elites: int = 8
    # At most this share of a batch may have one parent: siblings differ in one decision.
    max_sibling_share: float = 0.25
    # Best predicted candidates that wait for later batches; some 8 kB each.
    max_pool: int = 128

    def __post_init__(self) -> None:
        for field in ("candidates_per_trial", "num_generations", "num_elites", "max_pool"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, expected at least 1")
        for field in ("fresh_share", "random_share", "max_sibling_share"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ValueError(f"{field} is {getattr(self, field)}, expected a share between 0 and 1")


class EvolutionarySearch:
    """Proposes what the model ranks best among mutations of good candidates, kept diverse.

    While the model is not fitted it proposes random candidates. The pool of unmeasured candidates is a
    cache: a restart loses it and finds others, nothing that `tell` has to restore.
    """

    name = "evolutionary"

    def __init__(
        self,
        space: DesignSpace,
        model: CostModel,
        *,
        seed: int,
        config: EvolutionaryConfig | None = None,
    ) -> None:
        self._space = space
        self._model = model
        self._config = config or EvolutionaryConfig()
        self._ledger = ProposalLedger(seed)
        self._measured: dict[CandidateKey, tuple[float, Candidate]] = {}
        self._pool: list[AppliedCandidate] = []

    @property
    def pool(self) -> tuple[AppliedCandidate, ...]:
        """Applied candidates that wait for a later batch, best predicted first."""
        return tuple(self._pool)

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)
        for trial in trials:
            candidate, result = trial.record.candidate, trial.record.result
            if isinstance(result, MeasureSuccess):
                self._measured[candidate.key] = (result.median_secs, candidate)

    def ask(self, n: int) -> list[Proposal]:
        if not self._model.is_fitted:
            return [Proposal(applied, score=None) for applied in draw_new(self._space, self._ledger, n)]
        rng = np.random.default_rng(self._ledger.next_seed())
        batch = self._pick(self._evolve(n, rng), n, rng)
        for proposal in batch:
            self._ledger.propose(proposal.applied)
        self._pool = [applied for applied in self._pool if self._ledger.is_new(applied)]
        del self._pool[self._config.max_pool :]
        if len(batch) < n:
            batch += self._score(draw_new(self._space, self._ledger, n - len(batch)))
        return batch

    def _evolve(self, n: int, rng: np.random.Generator) -> list[Proposal]:
        """Grow the pool by all generations; returns it scored, best first."""
        config = self._config
        budget = n * config.candidates_per_trial
        ranked = self._rank(self._pool)
        for generation in range(config.num_generations):
            size = math.ceil(budget / config.num_generations)
            n_fresh = round(config.fresh_share * budget) if generation == 0 else 0
            parents = self._draw_parents(ranked, max(0, size - n_fresh), rng)
            # A first batch of a new task has no parents, and a small share may round to nothing.
            candidates = [proposal.applied for proposal in ranked]
            if parents:
                candidates += self._space.mutate(parents, len(parents), self._ledger.next_seed())
            if n_fresh or not parents:
                n_samples = n_fresh if parents else size
                candidates += self._space.sample(n_samples, self._ledger.next_seed())
            ranked = self._rank(candidates)
        self._pool = [proposal.applied for proposal in ranked]
        return ranked

    def _draw_parents(self, ranked: Sequence[Proposal], n: int, rng: np.random.Generator) -> list[Candidate]:
        """`n` parents with repetition: alternately measured and predicted, better ranks more often."""
        limit = self._config.num_elites
        measured = sorted(self._measured.values(), key=lambda entry: (entry[0], entry[1].key))
        sides = [
            [candidate for _, candidate in measured[:limit]],
            [proposal.applied.candidate for proposal in ranked[:limit]],
        ]
        sides = [side for side in sides if side]
        return [_draw_by_rank(sides[i % len(sides)], rng) for i in range(n)] if sides else []

    def _rank(self, candidates: Iterable[AppliedCandidate]) -> list[Proposal]:
        """What may still be proposed, each program once, scored, best first."""
        programs = {c.program_key: c for c in candidates if self._ledger.is_new(c)}
        return sorted(self._score(list(programs.values())), key=_by_score)

    def _score(self, candidates: Sequence[AppliedCandidate]) -> list[Proposal]:
        if not candidates:
            return []
        scores = self._model.predict([c.features for c in candidates]).score
        return [Proposal(c, float(score)) for c, score in zip(candidates, scores, strict=True)]

    def _pick(self, ranked: Sequence[Proposal], n: int, rng: np.random.Generator) -> list[Proposal]:
        """The batch: best scores under the rules of diversity, some random ones, then whatever is best."""
        n_random = min(n, math.floor(self._config.random_share * n + rng.random()))
        batch = self._pick_diverse(ranked, n - n_random)
        chosen = {id(proposal) for proposal in batch}
        rest = [proposal for proposal in ranked if id(proposal) not in chosen]
        lottery = [p for p in rest if p.applied.candidate.origin is Origin.RANDOM]
        for index in rng.permutation(len(lottery))[:n_random]:
            batch.append(lottery[int(index)])
            rest.remove(lottery[int(index)])
        return batch + rest[: n - len(batch)]

    def _pick_diverse(self, ranked: Sequence[Proposal], n: int) -> list[Proposal]:
        """At most `n`, best first: few siblings, and one of those that the model cannot tell apart."""
        max_siblings = max(1, math.ceil(self._config.max_sibling_share * n))
        siblings: dict[CandidateKey, int] = {}
        seen_features: set[bytes] = set()
        batch: list[Proposal] = []
        for proposal in ranked:
            if len(batch) == n:
                break
            parent, features = proposal.applied.candidate.parent_key, proposal.applied.features.tobytes()
            if features in seen_features or (parent and siblings.get(parent, 0) >= max_siblings):
                continue
            seen_features.add(features)
            if parent:
                siblings[parent] = siblings.get(parent, 0) + 1
            batch.append(proposal)
        return batch


def _draw_by_rank(ranked: Sequence[Candidate], rng: np.random.Generator) -> Candidate:
    """One of them, the first of k being drawn k times as often as the last."""
    weights = np.arange(len(ranked), 0, -1, dtype=np.float64)
    return ranked[int(rng.choice(len(ranked), p=weights / weights.sum()))]


def _by_score(proposal: Proposal) -> tuple[float, CandidateKey]:
    assert proposal.score is not None
    return -proposal.score, proposal.applied.candidate.key
