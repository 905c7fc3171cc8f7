"""What a strategy needs of a task's design space."""

from collections.abc import Sequence
from typing import Protocol

from tunewright.core.types import AppliedCandidate, Draft


class DesignSpace(Protocol):
    """All schedules of one task that may be chosen.

    Both methods apply traces, so what they return is legal and has features. They may return the same
    program twice. Deterministic: equal arguments give equal candidates in equal order.
    """

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        """At most `n` random candidates: illegal draws are dropped."""
        ...

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        """Each draft applied, or None where it is illegal.

        The result may have other decisions than its draft: a block is computed at the nearest legal loop.
        """
        ...
