"""What a strategy needs of a task's design space."""

from collections.abc import Sequence
from typing import Protocol

from tunewright.core.types import AppliedCandidate, Candidate


class DesignSpace(Protocol):
    """All schedules of one task that may be chosen.

    Both methods apply the traces that they make, so what they return is legal and has features; illegal
    draws are dropped, so that they may return fewer than `n`, and they may return the same program twice.
    Deterministic: equal arguments give equal candidates in equal order.
    """

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        """At most `n` random candidates."""
        ...

    def mutate(self, parents: Sequence[Candidate], n: int, seed: int) -> list[AppliedCandidate]:
        """At most `n` neighbours of one or more parents; draw i starts from parent i mod len(parents)."""
        ...
