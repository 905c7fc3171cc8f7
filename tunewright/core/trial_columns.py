"""Trials as arrays: a picture of a hundred thousand of them needs sums and minima, not objects."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tunewright.core.types import FailureKind, Origin, TaskKey

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_Name = TypeVar("_Name")

ORIGINS = tuple(Origin)
FAILURE_KINDS = tuple(FailureKind)
SUCCEEDED = -1


@dataclass(frozen=True, slots=True, eq=False)
class TrialColumns:
    """Trials, oldest first, as arrays of shape (n_trials,); a number that there is not is NaN.

    `task`, `model`, `origin` and `failure` are places in `task_keys`, `model_ids`, `ORIGINS` and
    `FAILURE_KINDS`; the failure of a success is `SUCCEEDED`. `usable_secs` is what a trial ranks by where it
    may be called best: verified, and not in quarantine. `sample_secs` is the median of its own samples,
    whatever its races said, and of a pruned candidate the censored one. `finished_at` is UTC.
    """

    task_keys: tuple[TaskKey, ...]
    model_ids: tuple[str | None, ...]
    record_id: Codes = field(repr=False)
    task: Codes = field(repr=False)
    model: Codes = field(repr=False)
    origin: Codes = field(repr=False)
    failure: Codes = field(repr=False)
    is_verified: Flags = field(repr=False)
    is_in_quarantine: Flags = field(repr=False)
    is_duplicate: Flags = field(repr=False)
    usable_secs: Floats = field(repr=False)
    sample_secs: Floats = field(repr=False)
    build_secs: Floats = field(repr=False)
    wall_secs: Floats = field(repr=False)
    yardstick_secs: Floats = field(repr=False)
    predicted_score: Floats = field(repr=False)
    finished_at: npt.NDArray[np.datetime64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.record_id)

    def rows(self, chosen: Flags | Codes) -> "TrialColumns":
        """Some of the trials: those where a mask is true, or of those indices."""
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return TrialColumns(self.task_keys, self.model_ids, **arrays)

    def followed_by(self, later: "TrialColumns") -> "TrialColumns":
        """These trials and then the others."""
        arrays = {name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in _ARRAYS}
        task_keys, arrays["task"] = _concatenated(self.task_keys, self.task, later.task_keys, later.task)
        model_ids, arrays["model"] = _concatenated(self.model_ids, self.model, later.model_ids, later.model)
        return TrialColumns(task_keys, model_ids, **arrays)


_ARRAYS = tuple(one.name for one in fields(TrialColumns))[2:]


def encoded(names: Sequence[_Name]) -> tuple[tuple[_Name, ...], Codes]:
    """Each name once, and the place of each in them."""
    place_of: defaultdict[_Name, int] = defaultdict(lambda: len(place_of))
    places = np.array([place_of[name] for name in names], dtype=np.int64)
    return tuple(place_of), places


def _concatenated(
    names: Sequence[_Name], places: Codes, later_names: Sequence[_Name], later_places: Codes
) -> tuple[tuple[_Name, ...], Codes]:
    """Places in all of the names."""
    every, place_of = encoded([*names, *later_names])
    return every, np.concatenate([places, place_of[len(names) :][later_places]])
