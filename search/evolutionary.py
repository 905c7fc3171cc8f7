"""Evolutionary search in two stages: draft thousands of points, apply few, measure the best of those.

Evolution guided by a cost model is Ansor's (Zheng et al., OSDI 2020, §5) and MetaSchedule's, which apply
every candidate of every generation: minutes of CPU per batch. Here a model of the decisions alone, fit to the
task's trials before each batch, drafts the candidates, as in Pruner (Qiao et al., ASPLOS 2025); twice as many
as the batch takes are applied, and there the cost model, which reads whole programs and knows other tasks
too, has its say.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    RecordedTrial,
    known_secs,
)
from tunewright.search.decisions import DecisionPoint, DecisionSpace
from tunewright.search.diversity import diverse_drafts, diverse_proposals
from tunewright.search.population import Drafts, EvolutionConfig, Scores, evolve, random_draft
from tunewright.search.random import draw_new
from tunewright.search.space import DesignSpace
from tunewright.search.strategy import CostModel, DraftModel, Proposal, ProposalLedger

# The draft model needs something to compare: before, candidates are random.
_MIN_TRIALS_TO_DRAFT = 8


@dataclass(frozen=True, slots=True)
class EvolutionaryConfig:
    """How a batch is made."""

    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    # Applying a candidate costs 5 ms (matmul) to 30 ms (convolution) of CPU, spread over all cores.
    applied_per_trial: float = 2.0
    # Picked at random: the models only learn where they are wrong from trials that they did not choose.
    random_share: float = 0.06
    # At most this share of a batch may descend from one parent: siblings differ in few decisions.
    max_sibling_share: float = 0.15
    # Drafts that compete again before the next batch, and applied candidates (some 8 kB each).
    max_survivors: int = 128
    max_pool: int = 64

    def __post_init__(self) -> None:
        if self.applied_per_trial < 1.0:
            raise ValueError(f"applied_per_trial is {self.applied_per_trial}, expected at least 1")
        for name in ("random_share", "max_sibling_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1")


class EvolutionarySearch:
    """Proposes what the models rank best among the descendants of what was measured, kept diverse.

    The drafts that survive and the applied candidates that wait are a cache: a restart loses them and finds
    others, nothing that `tell` has to restore.
    """

    name = "evolutionary"

    def __init__(
        self,
        space: DesignSpace,
        model: CostModel,
        draft_model: DraftModel,
        *,
        seed: int,
        config: EvolutionaryConfig | None = None,
    ) -> None:
        self._space = space
        self._model = model
        self._draft_model = draft_model
        self._config = config or EvolutionaryConfig()
        self._ledger = ProposalLedger(seed)
        self._decisions = DecisionSpace()
        self._secs: dict[DecisionPoint, float] = {}  # of told points, infinite for failures
        self._measured: dict[DecisionPoint, Candidate] = {}  # those of them that ran to the end
        self._drafted: set[DecisionPoint] = set()  # never to be applied again
        self._survivors: Drafts = {}
        self._pool: dict[DecisionPoint, AppliedCandidate] = {}

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)
        for trial in trials:
            candidate, result = trial.record.candidate, trial.record.result
            if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
                continue  # not the candidate's fault
            point = self._decisions.learn(candidate.trace_json)
            if point is not None:
                self._secs[point] = known_secs(result)
                if isinstance(result, MeasureSuccess):
                    self._measured[point] = candidate

    def ask(self, n: int) -> list[Proposal]:
        batch: list[Proposal] = []
        if n > 0:
            batch = self._draft_and_verify(n) if self._can_draft() else self._sample_and_rank(n)
        for proposal in batch:
            self._ledger.propose(proposal.applied)
        fresh = draw_new(self._space, self._ledger, n - len(batch))
        return batch + [Proposal(applied, score=None) for applied in fresh]

    def _can_draft(self) -> bool:
        return len(self._secs) >= _MIN_TRIALS_TO_DRAFT and bool(self._measured)

    def _sample_and_rank(self, n: int) -> list[Proposal]:
        """Little is known of this task: random candidates, ranked by what the model learnt of others."""
        if not self._model.is_fitted:
            return []
        size = round(n * self._config.applied_per_trial)
        programs = {a.program_key: a for a in self._space.sample(size, self._ledger.next_seed())}
        candidates = [applied for applied in programs.values() if self._ledger.is_new(applied)]
        scores = self._model.predict([applied.features for applied in candidates]).score
        order = np.argsort(-scores, kind="stable")[:n]
        return [Proposal(candidates[index], float(scores[index])) for index in order]

    def _draft_and_verify(self, n: int) -> list[Proposal]:
        config, rng = self._config, random.Random(self._ledger.next_seed())
        self._fit_draft_model()
        parents = dict(sorted(self._measured.items(), key=lambda item: (self._secs[item[0]], item[1].key)))
        drafts = evolve(self._decisions, parents, self._survivors, self._draft_scores, rng, config.evolution)
        drafts = {p: draft for p, draft in drafts.items() if p not in self._drafted and p not in self._secs}
        self._survivors = dict(itertools.islice(drafts.items(), config.max_survivors))
        n_random = min(n, math.floor(config.random_share * n + rng.random()))
        wild = dict(random_draft(self._decisions, list(parents.items()), rng) for _ in range(n_random))
        n_chosen = round(n * config.applied_per_trial) - n_random
        chosen = diverse_drafts(drafts, n_chosen, config.max_sibling_share)
        self._pool = {p: applied for p, applied in self._pool.items() if self._ledger.is_new(applied)}
        self._pool |= self._realise(wild | chosen)
        ranked = self._rank(self._pool)
        self._pool = {point: proposal.applied for point, proposal in ranked[: config.max_pool]}
        return self._pick(ranked, wild, n)

    def _fit_draft_model(self) -> None:
        secs = np.array(list(self._secs.values()))
        labels = np.where(np.isfinite(secs), secs.min() / secs, 0.0).astype(np.float32)
        self._draft_model.fit(self._decisions.vectors(list(self._secs)), labels)

    def _draft_scores(self, points: Sequence[DecisionPoint]) -> Scores:
        return self._draft_model.predict(self._decisions.vectors(points))

    def _realise(self, drafts: Drafts) -> dict[DecisionPoint, AppliedCandidate]:
        """The drafts that are legal and whose programs are new."""
        self._drafted.update(drafts)
        programs = {applied.program_key for applied in self._pool.values()}
        realised: dict[DecisionPoint, AppliedCandidate] = {}
        for point, applied in zip(drafts, self._space.realise(list(drafts.values())), strict=True):
            if applied and applied.program_key not in programs and self._ledger.is_new(applied):
                programs.add(applied.program_key)
                realised[point] = applied
        return realised

    def _rank(self, pool: Mapping[DecisionPoint, AppliedCandidate]) -> list[tuple[DecisionPoint, Proposal]]:
        """Best first, by the mean of the places that both models give: each knows what the other does not."""
        points, candidates = list(pool), list(pool.values())
        places = _places(self._draft_scores(points))
        scores: Sequence[float | None] = [None] * len(candidates)
        if self._model.is_fitted and candidates:
            predicted = self._model.predict([applied.features for applied in candidates]).score
            scores = predicted.tolist()
            places = places + _places(predicted)
        return [
            (points[index], Proposal(candidates[index], scores[index]))
            for index in np.argsort(places, kind="stable")
        ]

    def _pick(self, ranked: Sequence[tuple[DecisionPoint, Proposal]], wild: Drafts, n: int) -> list[Proposal]:
        """The batch: the best under the rules of diversity, the random ones, then whatever is best."""
        lottery = [proposal for point, proposal in ranked if point in wild]
        rest = [proposal for point, proposal in ranked if point not in wild]
        batch = diverse_proposals(rest, n - len(lottery), self._config.max_sibling_share) + lottery
        chosen = {id(proposal) for proposal in batch}
        return batch + [p for p in rest if id(p) not in chosen][: n - len(batch)]


def _places(scores: Scores) -> npt.NDArray[np.float64]:
    """Place of each score, the best 0; equal ones in their order."""
    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places
