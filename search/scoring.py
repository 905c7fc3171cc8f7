"""What is thought of points that nobody has applied: how fast they run, and how long they build."""

from collections.abc import Mapping, Sequence

import numpy as np

from tunewright.search.decisions import DecisionPoint, DecisionSpace
from tunewright.search.strategy import DraftModel, Scores


class DraftScorer:
    """Scores the points of one task: log2 of their speed up to a constant, less what their builds cost.

    Before a trial that is what the hardware makes one expect, afterwards what the models have learnt.
    `build_weight`: what doubling the build time counts, in doublings of the run time.
    """

    def __init__(
        self,
        decisions: DecisionSpace,
        draft_model: DraftModel,
        build_model: DraftModel | None,
        *,
        build_weight: float,
    ) -> None:
        self._decisions = decisions
        self._draft_model = draft_model
        self._build_model = build_model if build_weight > 0.0 else None
        self._build_weight = build_weight
        self._knows_builds = False
        self._known: dict[DecisionPoint, float] = {}  # since the last fit: generations share most points

    def fit(self, secs: Mapping[DecisionPoint, float], build_secs: Mapping[DecisionPoint, float]) -> None:
        """Learn from told points: seconds per call, at least one finite, infinite for failures; and seconds
        of the builds."""
        self._known.clear()
        points = list(secs)
        self._draft_model.fit(self._decisions.vectors(points), _labels(secs))
        self._knows_builds = self._build_model is not None and bool(build_secs)
        if self._build_model is not None and build_secs:
            points = list(build_secs)
            self._build_model.fit(self._decisions.vectors(points), _labels(build_secs))

    def believe(self, points: Sequence[DecisionPoint]) -> Scores:
        """Scores (n_points,) without any trial."""
        return self._decisions.guesses(points)

    def predict(self, points: Sequence[DecisionPoint]) -> Scores:
        """Scores (n_points,) after `fit`."""
        missing = [point for point in points if point not in self._known]
        self._known.update(zip(missing, self._predict(missing).tolist(), strict=True))
        return np.array([self._known[point] for point in points])

    def build_costs(self, points: Sequence[DecisionPoint]) -> Scores:
        """log2 of how long the points (n_points,) build, up to a constant; zeros where nothing is known."""
        if self._build_model is None or not self._knows_builds:
            return np.zeros(len(points))
        return -self._build_model.predict(self._decisions.vectors(points))

    def _predict(self, points: Sequence[DecisionPoint]) -> Scores:
        scores = self._draft_model.predict(self._decisions.vectors(points))
        return scores - self._build_weight * self.build_costs(points)


def _labels(secs: Mapping[DecisionPoint, float]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = np.array(list(secs.values()))
    return np.where(np.isfinite(values), values.min() / values, 0.0).astype(np.float32)
