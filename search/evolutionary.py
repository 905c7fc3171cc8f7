"""Evolutionary search in two stages: draft thousands of points, apply few, measure the best of those.

Evolution guided by a cost model is Ansor's (Zheng et al., OSDI 2020, §5) and MetaSchedule's, which apply
every candidate of every generation: minutes of CPU per batch. Here a model of the decisions alone, fit to the
task's trials before each batch, drafts the candidates, as in Pruner (Qiao et al., ASPLOS 2025); some more
than the batch takes are applied, and there the cost model, which reads whole programs and knows other tasks
too, has its say.

The first batch comes from other tasks' best schedules and from random points that suit the hardware. When
nothing is gained any more, part of each batch are single steps from the best: coordinate descent, as in
"Explore as a Storm, Exploit as a Raindrop" (Canesche et al., 2024).
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    Draft,
    Origin,
    RecordedTrial,
)
from tunewright.search.decisions import DecisionPoint
from tunewright.search.diversity import diverse_drafts, diverse_proposals
from tunewright.search.population import Drafts, EvolutionConfig, Scorer, best_drafts, evolve, random_draft
from tunewright.search.prior import Hardware
from tunewright.search.random import draw_new
from tunewright.search.scoring import DraftScorer
from tunewright.search.space import DesignSpace
from tunewright.search.strategy import CostModel, DraftModel, Proposal, ProposalLedger, Scores
from tunewright.search.told_points import ToldPoints
from tunewright.search.transfer import transferred_drafts

# The draft model needs something to compare: before, candidates are drafted without it.
_MIN_TRIALS_TO_DRAFT = 8
# Doublings of the time by which another task's schedule may seem behind.
_FAR_BEHIND = 1.0
# Parents of single steps.
_NUM_SUMMITS = 2
_SHARES = ("random_share", "max_sibling_share", "opening_random_share", "transfer_share", "descent_share")

Pool = dict[DecisionPoint, AppliedCandidate]


@dataclass(frozen=True, slots=True)
class EvolutionaryConfig:
    """How a batch is made."""

    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    # Applying a candidate costs 5 ms (matmul) to 30 ms (convolution) of CPU, spread over all cores.
    applied_per_trial: float = 1.25
    # Picked at random: the models only learn where they are wrong from trials that they did not choose.
    random_share: float = 0.03
    # At most this share of a batch may descend from one parent: siblings differ in few decisions.
    max_sibling_share: float = 0.15
    # Drafts that compete again before the next batch, and applied candidates (some 8 kB each).
    max_survivors: int = 128
    max_pool: int = 64
    # First batch: random points that compete by what the hardware makes one expect (0: none do), candidates
    # applied for each trial where the cost model can choose, shares of random and of other tasks' points.
    opening_drafts: int = 2048
    opening_applied_per_trial: float = 6.0
    opening_random_share: float = 0.25
    transfer_share: float = 0.5
    # Single steps from the best take this share of a batch when the last trials brought nothing.
    descent_share: float = 0.25
    descent_patience: int = 32
    # What doubling the build time counts, in doublings of the run time.
    build_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.applied_per_trial < 1.0:
            raise ValueError(f"applied_per_trial is {self.applied_per_trial}, expected at least 1")
        for name in _SHARES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1")


class EvolutionarySearch:
    """Proposes what the models rank best among the descendants of what was measured, kept diverse.

    The drafts that survive and the applied candidates that wait are a cache: a restart loses them and finds
    others, nothing that `tell` has to restore.

    Args:
        model: ranks applied candidates; it may know other tasks.
        draft_model: learns which of the task's decisions are fast.
        build_model: learns which of them are built quickly, None where that does not matter.
        hardware: of the task's target.
        seeds: best trials of other tasks on the same target.
    """

    name = "evolutionary"

    def __init__(
        self,
        space: DesignSpace,
        model: CostModel,
        draft_model: DraftModel,
        build_model: DraftModel | None = None,
        *,
        seed: int,
        hardware: Hardware | None = None,
        seeds: Sequence[RecordedTrial] = (),
        config: EvolutionaryConfig | None = None,
    ) -> None:
        self._space = space
        self._model = model
        self._seeds = seeds
        self._config = config or EvolutionaryConfig()
        self._ledger = ProposalLedger(seed)
        self._told = ToldPoints(hardware)
        self._scorer = DraftScorer(
            self._told.decisions,
            draft_model,
            build_model,
            build_weight=self._config.build_weight,
        )
        self._drafted: set[DecisionPoint] = set()  # never to be applied again
        self._survivors: Drafts = {}
        self._pool: Pool = {}

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)
        self._told.tell(trials)

    def ask(self, n: int) -> list[Proposal]:
        batch: list[Proposal] = []
        if n > 0:
            if not self._told.examples:
                self._told.find_examples(self._space, self._ledger.next_seed())
            batch = self._draft_and_verify(n) if self._can_draft() else self._open(n)
        for proposal in batch:
            self._ledger.propose(proposal.applied)
        fresh = draw_new(self._space, self._ledger, n - len(batch))
        return batch + [Proposal(applied, score=None) for applied in fresh]

    def _can_draft(self) -> bool:
        return len(self._told.secs) >= _MIN_TRIALS_TO_DRAFT and bool(self._told.measured)

    def _open(self, n: int) -> list[Proposal]:
        """Little is known of this task: other tasks' best, random points that suit the hardware, and some
        that are random only."""
        config, rng = self._config, random.Random(self._ledger.next_seed())
        examples = {point: applied.candidate for point, applied in self._told.examples.items()}
        seeds = self._seeds if config.transfer_share > 0.0 else ()
        suited = self._suited(examples, rng)
        foreign = self._promising(transferred_drafts(self._told.decisions, examples, seeds), suited)
        n_foreign = min(len(foreign), round(config.transfer_share * n))
        n_suited = round((1.0 - config.opening_random_share) * (n - n_foreign))
        per_trial = config.opening_applied_per_trial if self._model.is_fitted else 1.0
        suited = diverse_drafts(suited, round(per_trial * n_suited), max_sibling_share=1.0)
        self._survivors = _first(foreign, config.max_survivors)
        realised = self._realise(_first(foreign, round(config.applied_per_trial * n_foreign)) | suited)
        ranked = [proposal for _, proposal in self._rank(realised, self._scorer.believe)]
        batch = [p for p in ranked if p.applied.candidate.origin is Origin.TRANSFER][:n_foreign]
        batch += [p for p in ranked if p.applied.candidate.origin is not Origin.TRANSFER][:n_suited]
        programs = {proposal.applied.program_key for proposal in batch}
        for applied in self._told.examples.values():
            if len(batch) < n and self._ledger.is_new(applied) and applied.program_key not in programs:
                programs.add(applied.program_key)
                batch.append(Proposal(applied, score=None))
        return batch

    def _suited(self, examples: Mapping[DecisionPoint, Candidate], rng: random.Random) -> Drafts:
        """Many random points, best first by what the hardware makes one expect."""
        ancestors = list(examples.items())
        if not ancestors:
            return {}
        drafts = dict(
            random_draft(self._told.decisions, ancestors, rng) for _ in range(self._config.opening_drafts)
        )
        drafts = {p: draft for p, draft in drafts.items() if self._told.decisions.is_reasonable(p)}
        return dict(best_drafts(drafts, self._scorer.believe, len(drafts)))

    def _promising(self, foreign: Drafts, suited: Drafts) -> Drafts:
        """Without those that one expects to be much slower than the best of `suited`: what is good for an
        unlike task may not be for this one."""
        if not foreign or not suited:
            return foreign
        points = [*foreign, next(iter(suited))]
        *beliefs, best = self._scorer.believe(points).tolist()
        kept = zip(foreign.items(), beliefs, strict=True)
        return {point: draft for (point, draft), belief in kept if belief >= best - _FAR_BEHIND}

    def _draft_and_verify(self, n: int) -> list[Proposal]:
        config, rng = self._config, random.Random(self._ledger.next_seed())
        self._scorer.fit(self._told.secs, self._told.build_secs)
        parents = self._told.fastest_first()
        known = self._drafted | self._told.secs.keys()
        drafts = evolve(
            self._told.decisions, parents, known, self._survivors, self._scorer.predict, rng, config.evolution
        )
        drafts = self._with_steps(drafts, parents, known)
        self._survivors = _first(drafts, config.max_survivors)

        n_random = min(n, math.floor(config.random_share * n + rng.random()))
        examples = [(point, applied.candidate) for point, applied in self._told.examples.items()]
        ancestors = examples or list(parents.items())
        wild = dict(random_draft(self._told.decisions, ancestors, rng) for _ in range(n_random))
        n_steps = min(round(config.descent_share * n), n - n_random) if self._is_stalled() else 0
        descent = _first({p: draft for p, draft in drafts.items() if draft.origin is Origin.DESCENT}, n_steps)
        n_chosen = round(n * config.applied_per_trial) - n_random - len(descent)
        chosen = diverse_drafts(drafts, n_chosen, config.max_sibling_share)

        self._pool = {p: applied for p, applied in self._pool.items() if self._ledger.is_new(applied)}
        self._pool |= self._realise(wild | descent | chosen)
        while len(self._pool) < n and (drafts := self._without_drafted(drafts)):
            self._pool |= self._realise(_first(drafts, n - len(self._pool)))
        ranked = self._rank(self._pool, self._scorer.predict)
        self._pool = {point: proposal.applied for point, proposal in ranked[: config.max_pool]}
        return self._pick(ranked, wild.keys() | descent.keys(), n)

    def _is_stalled(self) -> bool:
        secs = list(self._told.secs.values())
        return len(secs) - 1 - secs.index(min(secs)) >= self._config.descent_patience

    def _with_steps(
        self, drafts: Drafts, parents: Mapping[DecisionPoint, Candidate], known: Set[DecisionPoint]
    ) -> Drafts:
        """The drafts, best first, with all single steps from the best parents that are not known."""
        if self._config.descent_share == 0.0:
            return drafts
        for point, candidate in reversed(list(itertools.islice(parents.items(), _NUM_SUMMITS))):
            for step in self._told.decisions.neighbours(point):
                if step not in known and self._told.decisions.is_reasonable(step):
                    drafts[step] = Draft(candidate, step.decisions, Origin.DESCENT)
        return dict(best_drafts(drafts, self._scorer.predict, len(drafts)))

    def _without_drafted(self, drafts: Drafts) -> Drafts:
        return {point: draft for point, draft in drafts.items() if point not in self._drafted}

    def _realise(self, drafts: Drafts) -> Pool:
        """The drafts that are legal and whose programs are new."""
        self._drafted.update(drafts)
        programs = {applied.program_key for applied in self._pool.values()}
        realised: Pool = {}
        for point, applied in zip(drafts, self._space.realise(list(drafts.values())), strict=True):
            if applied and applied.program_key not in programs and self._ledger.is_new(applied):
                programs.add(applied.program_key)
                realised[point] = applied
        return realised

    def _rank(self, pool: Pool, score: Scorer) -> list[tuple[DecisionPoint, Proposal]]:
        """Best first, by the mean of the places that both models give: each knows what the other does not."""
        points, candidates = list(pool), list(pool.values())
        places = _places(score(points))
        scores: Sequence[float | None] = [None] * len(candidates)
        if self._model.is_fitted and candidates:
            predicted = self._model.predict(candidates).score
            scores = predicted.tolist()
            places = places + _places(predicted)
        return [
            (points[index], Proposal(candidates[index], scores[index]))
            for index in np.argsort(places, kind="stable")
        ]

    def _pick(
        self, ranked: Sequence[tuple[DecisionPoint, Proposal]], reserved: Set[DecisionPoint], n: int
    ) -> list[Proposal]:
        """The batch: the best under the rules of diversity, the reserved ones, then whatever is best.

        What seems to build longest comes first, so that the CPUs which build a batch finish together.
        """
        guests = [proposal for point, proposal in ranked if point in reserved]
        rest = [proposal for point, proposal in ranked if point not in reserved]
        batch = diverse_proposals(rest, n - len(guests), self._config.max_sibling_share) + guests
        chosen = {id(proposal) for proposal in batch}
        batch += [p for p in rest if id(p) not in chosen][: n - len(batch)]
        chosen = {id(proposal) for proposal in batch}
        pairs = [(point, proposal) for point, proposal in ranked if id(proposal) in chosen]
        order = np.argsort(-self._scorer.build_costs([point for point, _ in pairs]), kind="stable")
        return [pairs[index][1] for index in order]


def _first(drafts: Drafts, n: int) -> Drafts:
    return dict(itertools.islice(drafts.items(), n))


def _places(scores: Scores) -> npt.NDArray[np.float64]:
    """Place of each score, the best 0; equal ones in their order."""
    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places
