"""The cost model: boosted trees over pooled per-store features, one model for all tasks of a log."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tunewright.core.clock import Clock, SystemClock
from tunewright.core.errors import FeatureVersionMismatchError, ModelError, ModelNotFittedError
from tunewright.core.types import FEATURE_VERSION, FloatArray, ModelSnapshot, Prediction
from tunewright.cost_model.evaluation import evaluate
from tunewright.cost_model.pooling import POOLING_VERSION, pool_rows
from tunewright.cost_model.types import FeatureBatch, TrainingSet

MODEL_KIND = f"xgboost-logistic/{POOLING_VERSION}"

# Chosen with benchmarks/cost_model_objectives.py on real logs. The label is a throughput in [0, 1], so its
# cross-entropy (reg:logistic) is a proper loss; it ranks better than squared error and rank:pairwise, inside
# tasks and on tasks never seen. More or deeper trees cost time and gain nothing; 32 bins halve the time.
# Weights are equal: max(label, 0.2) finds the best of unseen tasks a little more often, but ranks slightly
# worse and, on the tests' landscapes, proposes 1.5 times as many candidates that fail; a build that times out
# costs as much as dozens of good trials.
XGB_PARAMS: Mapping[str, Any] = {
    "objective": "reg:logistic",
    "tree_method": "hist",
    "max_depth": 5,
    "max_bin": 32,
    "eta": 0.15,
    "min_child_weight": 0.5,
    "colsample_bynode": 0.4,
    "verbosity": 0,
}
NUM_ROUNDS = 64


class XGBoostCostModel:
    """Predicts best seconds of the task / seconds, a score that compares only inside one task.

    Deterministic: equal data, seed and number of threads give equal models, byte for byte.
    """

    def __init__(self, *, seed: int, num_threads: int, clock: Clock | None = None) -> None:
        self._seed = seed
        self._num_threads = num_threads
        self._clock = clock or SystemClock()
        self._booster: xgb.Booster | None = None
        self._columns: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._model_id = ""

    @property
    def is_fitted(self) -> bool:
        return self._booster is not None

    def fit(self, training_set: TrainingSet, *, metrics: Mapping[str, float] | None = None) -> ModelSnapshot:
        """Replace the model by one trained on `training_set` alone.

        Args:
            metrics: what `evaluate` found, to be kept in the snapshot.

        Raises:
            ModelError: the training set is empty.
        """
        if len(training_set) == 0:
            raise ModelError("the training set is empty: the model needs at least one trial with features")
        pooled = pool_rows(training_set.features)
        columns = _informative_columns(pooled)
        # The columns that it reads are the booster's feature names, so that its bytes are the whole model.
        data = xgb.DMatrix(
            pooled[:, columns],
            label=training_set.label,
            feature_names=[str(column) for column in columns],
            nthread=self._num_threads,
        )
        # The logistic loss has no intercept where all labels are 0 or all are 1.
        base_score = float(np.clip(training_set.label.mean(), 0.01, 0.99))
        params = {**XGB_PARAMS, "seed": self._seed, "nthread": self._num_threads, "base_score": base_score}
        booster = xgb.train(params, data, num_boost_round=NUM_ROUNDS)
        booster_ubj = bytes(booster.save_raw("ubj"))
        self._booster, self._columns, self._model_id = booster, columns, _model_id(booster_ubj)
        return ModelSnapshot(
            model_id=self._model_id,
            kind=MODEL_KIND,
            booster_ubj=booster_ubj,
            feature_version=training_set.features.feature_version,
            n_records=len(training_set),
            metrics=dict(metrics or {}),
            trained_at=self._clock.now(),
        )

    def predict(self, features: Sequence[FloatArray]) -> Prediction:
        """Score candidates, one float32 (n_stores, 164) array each; higher is better, within [0, 1].

        Raises:
            ModelNotFittedError: there is no model yet.
            ValueError: features of another shape, or not finite.
        """
        return self.predict_batch(FeatureBatch.from_arrays(features))

    def predict_batch(self, batch: FeatureBatch) -> Prediction:
        """`predict` for features that are packed already.

        Raises:
            ModelNotFittedError: there is no model yet.
        """
        if self._booster is None:
            raise ModelNotFittedError("the cost model has seen no data: call fit() or from_snapshot() first")
        if batch.n_candidates == 0:
            return Prediction(np.empty(0, dtype=np.float64), self._model_id)
        scores = self._booster.inplace_predict(pool_rows(batch)[:, self._columns])
        return Prediction(np.asarray(scores, dtype=np.float64), self._model_id)

    @classmethod
    def from_snapshot(cls, snapshot: ModelSnapshot, *, seed: int, num_threads: int) -> Self:
        """The model that a snapshot holds: equal features get equal scores.

        Raises:
            FeatureVersionMismatchError: it was trained on another feature version.
            ModelError: it is of another kind, or its bytes are damaged.
        """
        if snapshot.feature_version != FEATURE_VERSION:
            raise FeatureVersionMismatchError(
                f"model {snapshot.model_id[:12]} was trained on features {snapshot.feature_version!r}, this "
                f"program computes {FEATURE_VERSION!r}: train a new model from the log"
            )
        if snapshot.kind != MODEL_KIND:
            raise ModelError(
                f"model {snapshot.model_id[:12]} is of kind {snapshot.kind!r}, expected {MODEL_KIND!r}: "
                "train a new model from the log"
            )
        if _model_id(snapshot.booster_ubj) != snapshot.model_id:
            raise ModelError(
                f"model {snapshot.model_id[:12]} is damaged: its bytes do not have this digest; "
                "train a new model from the log"
            )
        booster = xgb.Booster({"nthread": num_threads}, model_file=bytearray(snapshot.booster_ubj))
        model = cls(seed=seed, num_threads=num_threads)
        model._booster = booster
        model._columns = np.array([int(name) for name in booster.feature_names or []], dtype=np.intp)
        model._model_id = snapshot.model_id
        return model


def evaluate_xgboost(training_set: TrainingSet, *, seed: int, num_threads: int) -> dict[str, float]:
    """`evaluate` of this model: up to five fits, so ask for it now and then, not at every refit."""

    def fit_predict(train: TrainingSet, test: TrainingSet) -> npt.NDArray[np.float64]:
        model = XGBoostCostModel(seed=seed, num_threads=num_threads)
        model.fit(train)
        return model.predict_batch(test.features).score

    return evaluate(training_set, fit_predict, seed=seed)


def _model_id(booster_ubj: bytes) -> str:
    return hashlib.sha256(booster_ubj).hexdigest()


def _informative_columns(pooled: FloatArray) -> npt.NDArray[np.intp]:
    """Columns that vary, each content once: half of TVM's features are constant on any one log.

    A training set whose columns are all constant keeps the first: a booster needs one.
    """
    first_with: dict[bytes, int] = {}
    varying = np.flatnonzero(np.ptp(pooled, axis=0) > 0)
    for column in varying:
        first_with.setdefault(pooled[:, column].tobytes(), int(column))
    return np.array(sorted(first_with.values()) or [0], dtype=np.intp)
