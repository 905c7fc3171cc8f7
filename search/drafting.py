"""Strategies that need no cost model: draft points, apply them, propose those that are legal and new."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tunewright.core.types import AppliedCandidate, RecordedTrial
from tunewright.search.decisions import DecisionPoint
from tunewright.search.population import Drafts
from tunewright.search.random import draw_new
from tunewright.search.space import DesignSpace
from tunewright.search.strategy import Proposal, ProposalLedger
from tunewright.search.told_points import NUM_EXAMPLES, ToldPoints

# Of what a round drafts, some is illegal and some a known program: how often the rest of a batch is drafted
# again, before random candidates take its places.
_MAX_ROUNDS = 8


class Drafter(Protocol):
    """Drafts the points of one batch."""

    def draft(self, n: int) -> Drafts:
        """At most `n` points, also such as are known already; {} where it has none."""
        ...

    def refuse(self, point: DecisionPoint) -> None:
        """A point that this drafted is illegal."""
        ...


# From what was told, the points known to be illegal with the number of points that were told before, a seed.
MakeDrafter = Callable[[ToldPoints, Mapping[DecisionPoint, int], int], Drafter]


class DraftingSearch:
    """Begins with random candidates, and goes on with what a drafter makes of the trials.

    A new drafter is made from the told trials for each batch. Illegal points that were found on the way are a
    cache: a restart loses them and may find them again.
    """

    def __init__(self, name: str, space: DesignSpace, make_drafter: MakeDrafter, *, seed: int) -> None:
        self.name = name
        self._space = space
        self._make_drafter = make_drafter
        self._ledger = ProposalLedger(seed)
        self._told = ToldPoints()
        self._drafted: set[DecisionPoint] = set()  # never to be applied again
        self._illegal: dict[DecisionPoint, int] = {}

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)
        self._told.tell(trials)

    def ask(self, n: int) -> list[Proposal]:
        if n < 1:
            return []
        if not self._told.examples:
            self._told.find_examples(self._space, self._ledger.next_seed())
        batch = self._open(n)
        drafter = self._make_drafter(self._told, self._illegal, self._ledger.next_seed())
        for _ in range(_MAX_ROUNDS):
            if len(batch) == n:
                break
            batch += self._realise(drafter, n - len(batch))
        batch += draw_new(self._space, self._ledger, n - len(batch))
        return [Proposal(applied, score=None) for applied in batch]

    def _open(self, n: int) -> list[AppliedCandidate]:
        """The random candidates that showed the sketches, until there are as many trials."""
        opening: list[AppliedCandidate] = []
        for applied in self._told.examples.values():
            if len(opening) < min(n, NUM_EXAMPLES - len(self._told.secs)) and self._ledger.is_new(applied):
                self._ledger.propose(applied)
                opening.append(applied)
        return opening

    def _realise(self, drafter: Drafter, n: int) -> list[AppliedCandidate]:
        known = self._drafted | self._told.secs.keys() | self._told.examples.keys()
        drafts = {point: draft for point, draft in drafter.draft(n).items() if point not in known}
        self._drafted.update(drafts)
        legal: list[AppliedCandidate] = []
        for point, applied in zip(drafts, self._space.realise(list(drafts.values())), strict=True):
            if applied is None:
                self._illegal[point] = len(self._told.secs)
                drafter.refuse(point)
            elif self._ledger.is_new(applied):
                self._ledger.propose(applied)
                legal.append(applied)
        return legal
