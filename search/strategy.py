"""Ask for candidates, tell what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tunewright.core.keys import digest
from tunewright.core.types import (
    AppliedCandidate,
    CandidateKey,
    FloatArray,
    Prediction,
    RecordedTrial,
)

Scores = npt.NDArray[np.float64]


class CostModel(Protocol):
    """Scores of candidates that nobody has measured; higher is better inside one task."""

    @property
    def is_fitted(self) -> bool: ...

    def predict(self, candidates: Sequence[AppliedCandidate]) -> Prediction: ...


class DraftModel(Protocol):
    """Values of one task's decision vectors: cheap enough to be refit before every batch."""

    def fit(self, vectors: FloatArray, labels: FloatArray) -> None:
        """Learn anew from `vectors` (n, n_columns) with `labels` (n,) in [0, 1], higher is better."""
        ...

    def predict(self, vectors: FloatArray) -> Scores:
        """log2 of the labels (n,) of `vectors` (n, n_columns)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A candidate worth a trial. `score` is the cost model's, None where no model was asked."""

    applied: AppliedCandidate
    score: float | None


class SearchStrategy(Protocol):
    """Chooses the trials of one task.

    Everything that steers the search is rebuilt by `tell` alone: a killed session goes on by telling a new
    strategy all recorded trials. Random seeds derive from (seed, number of told trials).
    """

    @property
    def name(self) -> str: ...

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` distinct legal candidates that were neither told nor asked before.

        Distinct by candidate key and, among all that this object proposed, by program key. Empty where the
        space seems to be exhausted.
        """
        ...

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        """Learn of measured candidates, one's own or another session's; telling one again changes nothing."""
        ...


class ProposalLedger:
    """What has been told and proposed, and the seeds that follow from it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._told: set[CandidateKey] = set()
        self._proposed: set[CandidateKey] = set()
        self._programs: set[str] = set()
        self._num_seeds = 0

    def told(self, trials: Sequence[RecordedTrial]) -> None:
        before = len(self._told)
        self._told.update(trial.record.candidate.key for trial in trials)
        if len(self._told) > before:
            self._num_seeds = 0

    def next_seed(self) -> int:
        """A 31-bit seed: equal for equal (seed, number of told trials, calls since the last told trial)."""
        self._num_seeds += 1
        return int(digest(str(self._seed), str(len(self._told)), str(self._num_seeds))[:8], 16) >> 1

    def is_new(self, applied: AppliedCandidate) -> bool:
        """Whether it may still be proposed."""
        key = applied.candidate.key
        return (
            key not in self._told and key not in self._proposed and applied.program_key not in self._programs
        )

    def propose(self, applied: AppliedCandidate) -> None:
        self._proposed.add(applied.candidate.key)
        self._programs.add(applied.program_key)
