"""CostModelContract: what every cost model must do. Subclasses say how to make and to load one."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import pytest

from tests.cost_model.trials import batch_of, features, learnable_set
from tunewright.core.errors import FeatureVersionMismatchError, ModelError, ModelNotFittedError
from tunewright.core.types import FEATURE_VERSION, ModelSnapshot, Prediction
from tunewright.cost_model import FeatureBatch, TrainingSet
from tunewright.cost_model.metrics import spearman


class Model(Protocol):
    @property
    def is_fitted(self) -> bool: ...

    def fit(self, training_set: TrainingSet) -> ModelSnapshot: ...

    def predict(self, batch: FeatureBatch) -> Prediction: ...


class CostModelContract(ABC):
    @abstractmethod
    def make(self, seed: int) -> Model: ...

    @abstractmethod
    def load(self, snapshot: ModelSnapshot) -> Model: ...

    ARRAYS = tuple(features(seed, 1 + seed % 3) for seed in range(1000, 1020))
    UNSEEN = batch_of(ARRAYS)

    def test_predicts_one_finite_score_for_each_candidate(self) -> None:
        model = self.make(0)
        snapshot = model.fit(learnable_set(60, seed=1))
        prediction = model.predict(self.UNSEEN)
        assert prediction.score.shape == (20,) and prediction.score.dtype == np.float64
        assert np.isfinite(prediction.score).all()
        assert prediction.model_id == snapshot.model_id
        assert model.predict(batch_of([])).score.shape == (0,)

    def test_a_candidates_score_does_not_depend_on_its_neighbours(self) -> None:
        model = self.make(0)
        model.fit(learnable_set(60, seed=1))
        together = model.predict(self.UNSEEN).score
        alone = [float(model.predict(batch_of([array])).score[0]) for array in self.ARRAYS]
        np.testing.assert_array_equal(together, alone)

    @pytest.mark.slow
    def test_ranks_candidates_that_it_has_not_seen(self) -> None:
        model, unseen = self.make(0), learnable_set(200, seed=2)
        model.fit(learnable_set(400, seed=1))
        assert spearman(unseen.label, model.predict(unseen.features).score) > 0.6

    def test_a_snapshot_predicts_the_same(self) -> None:
        model = self.make(0)
        snapshot = model.fit(learnable_set(60, seed=1))
        loaded = self.load(snapshot)
        assert loaded.is_fitted
        np.testing.assert_array_equal(loaded.predict(self.UNSEEN).score, model.predict(self.UNSEEN).score)
        assert loaded.predict(self.UNSEEN).model_id == snapshot.model_id
        assert (snapshot.n_records, snapshot.feature_version) == (60, FEATURE_VERSION)

    @pytest.mark.slow
    def test_equal_seeds_give_equal_bytes(self) -> None:
        data = learnable_set(120, seed=1)
        assert self.make(3).fit(data).booster_ubj == self.make(3).fit(data).booster_ubj
        assert self.make(3).fit(data).model_id != self.make(4).fit(data).model_id

    def test_a_refit_replaces_the_model(self) -> None:
        model, fresh = self.make(0), self.make(0)
        model.fit(learnable_set(60, seed=1))
        assert model.fit(learnable_set(60, seed=2)).model_id == fresh.fit(learnable_set(60, seed=2)).model_id

    def test_refuses_another_feature_version(self) -> None:
        snapshot = self.make(0).fit(learnable_set(20, seed=1))
        with pytest.raises(FeatureVersionMismatchError, match=r"old/0.*train a new model"):
            self.load(dataclasses.replace(snapshot, feature_version="old/0"))

    def test_refuses_another_kind_and_damaged_bytes(self) -> None:
        snapshot = self.make(0).fit(learnable_set(20, seed=1))
        with pytest.raises(ModelError, match="of kind 'other'"):
            self.load(dataclasses.replace(snapshot, kind="other"))
        with pytest.raises(ModelError, match="damaged"):
            self.load(dataclasses.replace(snapshot, booster_ubj=snapshot.booster_ubj[:-9]))

    def test_says_when_it_has_seen_no_data(self) -> None:
        model = self.make(0)
        assert not model.is_fitted
        with pytest.raises(ModelNotFittedError, match="seen no data"):
            model.predict(self.UNSEEN)
        with pytest.raises(ModelError, match="training set is empty"):
            model.fit(learnable_set(20, seed=1).subset(np.zeros(20, dtype=np.bool_)))

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_fits_what_has_nothing_to_tell_apart(self, label: float) -> None:
        data = learnable_set(12, seed=1)
        same = TrainingSet(data.features, np.full(12, label, dtype=np.float32), data.group, data.group_tasks)
        one = data.subset(np.arange(12) == 0)
        for training_set in (same, one):
            model = self.make(0)
            model.fit(training_set)
            assert np.isfinite(model.predict(self.UNSEEN).score).all()
