"""What only the learner sees: features of candidates packed into arrays, and labelled training data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from tunewright.core.types import FEATURE_VERSION, FloatArray, TaskKey
from tunewright.cost_model.tiles import tile_rows

N_FEATURES = 164


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBatch:
    """Features of many candidates: one row per store statement of each program, and what its tile is.

    `rows`: float32 (n_rows, 164), C-order; `owner`: int64 (n_rows,), the candidate of each row, ascending
    from 0 to `n_candidates` - 1 with at least one row each; `tiles`: float32 (n_candidates, 8), `tile_rows`.
    """

    rows: FloatArray
    owner: npt.NDArray[np.int64]
    tiles: FloatArray
    feature_version: str = FEATURE_VERSION

    def __post_init__(self) -> None:
        for array in (self.rows, self.owner, self.tiles):
            array.flags.writeable = False

    @property
    def n_candidates(self) -> int:
        return len(self.tiles)

    @classmethod
    def of_programs(cls, features: Sequence[FloatArray], traces: Sequence[str]) -> Self:
        """Pack one (n_stores, 164) array and one trace, canonical JSON, per candidate.

        Raises:
            ValueError: an array has another shape, no row, or a value that is not finite.
        """
        for index, array in enumerate(features):
            if not has_valid_features(array):
                raise ValueError(
                    f"features of candidate {index} have shape {array.shape}, "
                    f"expected finite (n_stores >= 1, {N_FEATURES})"
                )
        counts = [len(array) for array in features]
        rows = np.concatenate(features) if features else np.empty((0, N_FEATURES))
        return cls(
            rows=np.ascontiguousarray(rows, dtype=np.float32),
            owner=np.repeat(np.arange(len(features), dtype=np.int64), counts),
            tiles=tile_rows(traces),
        )

    def subset(self, keep: npt.NDArray[np.bool_]) -> Self:
        """The candidates where `keep`, bool (n_candidates,), is set, in the same order."""
        new_index = np.cumsum(keep) - 1
        row_mask = keep[self.owner]
        return type(self)(
            rows=self.rows[row_mask],
            owner=new_index[self.owner[row_mask]].astype(np.int64),
            tiles=self.tiles[keep],
            feature_version=self.feature_version,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled candidates.

    `label`: float32 (n_candidates,) in [0, 1], best seconds of the group / seconds, failures 0.
    `group`: int32 (n_candidates,), one id per (task, machine) from 0 up; labels compare only inside one.
    `group_tasks`: the task of each group; it names the groups that a subset has lost, too.
    """

    features: FeatureBatch
    label: npt.NDArray[np.float32]
    group: npt.NDArray[np.int32]
    group_tasks: tuple[TaskKey, ...]

    def __post_init__(self) -> None:
        n = self.features.n_candidates
        if self.label.shape != (n,) or self.group.shape != (n,):
            raise ValueError(
                f"label has {self.label.shape}, group {self.group.shape}, expected ({n},): one per candidate"
            )
        if n and not 0 <= self.group.min() <= self.group.max() < len(self.group_tasks):
            raise ValueError(
                f"groups are {self.group.min()} to {self.group.max()}, "
                f"expected ids of the {len(self.group_tasks)} group tasks"
            )
        self.label.flags.writeable = False
        self.group.flags.writeable = False

    def __len__(self) -> int:
        return self.features.n_candidates

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.group))

    def subset(self, keep: npt.NDArray[np.bool_]) -> Self:
        """The candidates where `keep`, bool (n_candidates,), is set; labels and groups stay as they are."""
        return type(self)(self.features.subset(keep), self.label[keep], self.group[keep], self.group_tasks)


def has_valid_features(features: FloatArray) -> bool:
    """Whether an array is finite with shape (n_stores >= 1, 164), as this feature version makes them."""
    return (
        features.ndim == 2
        and features.shape[0] >= 1
        and features.shape[1] == N_FEATURES
        and bool(np.isfinite(features).all())
    )
