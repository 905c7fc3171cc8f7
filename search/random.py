"""The baseline: uniform draws from the design space's own distribution."""

from collections.abc import Sequence

from tunewright.core.types import AppliedCandidate, RecordedTrial
from tunewright.search.space import DesignSpace
from tunewright.search.strategy import Proposal, ProposalLedger

# A draw of one from a small space hits what is known already most of the time: draw several, and believe
# that the space is exhausted only when this many draws in a row brought nothing.
_MIN_DRAW = 8
_MAX_EMPTY_DRAWS = 4


class RandomSearch:
    """Proposes random candidates, each once."""

    name = "random"

    def __init__(self, space: DesignSpace, *, seed: int) -> None:
        self._space = space
        self._ledger = ProposalLedger(seed)

    def ask(self, n: int) -> list[Proposal]:
        fresh = draw_new(self._space, self._ledger, n)
        return [Proposal(applied, score=None) for applied in fresh]

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)


def draw_new(space: DesignSpace, ledger: ProposalLedger, n: int) -> list[AppliedCandidate]:
    """At most `n` random candidates that are new to the ledger, and proposed there; [] if there are none."""
    drawn: list[AppliedCandidate] = []
    empty_draws = 0
    while len(drawn) < n and empty_draws < _MAX_EMPTY_DRAWS:
        before = len(drawn)
        for applied in space.sample(max(n - len(drawn), _MIN_DRAW), ledger.next_seed()):
            if len(drawn) < n and ledger.is_new(applied):
                ledger.propose(applied)
                drawn.append(applied)
        empty_draws = empty_draws + 1 if len(drawn) == before else 0
    return drawn
