"""The cost model: boosted trees over pooled per-store features, one model for all tasks of a log."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tunewright.core.clock import Clock, SystemClock
from tunewright.core.errors import FeatureVersionMismatchError, ModelError, ModelNotFittedError
from tunewright.core.types import FEATURE_VERSION, FloatArray, ModelSnapshot, Prediction
from tunewright.cost_model.evaluation import FitPredict, Scores, evaluate
from tunewright.cost_model.hyper_parameters import DEFAULT, HyperParameters
from tunewright.cost_model.pooling import POOLING_VERSION, pool_rows
from tunewright.cost_model.types import FeatureBatch, TrainingSet

MODEL_KIND = f"xgboost-centred-log/{POOLING_VERSION}"

# One thread: on a machine whose cores are busy, OpenMP's barriers turn a fit of 0.5 s into many seconds.
_FIXED_PARAMS: Mapping[str, Any] = {
    "objective": "reg:squarederror",
    "base_score": 0.0,
    "tree_method": "hist",
    "verbosity": 0,
}
XGB_PARAMS: Mapping[str, Any] = {**_FIXED_PARAMS, **DEFAULT.of_xgboost()}
NUM_ROUNDS = DEFAULT.num_rounds
# On top of a base, this share of the rounds.
_RESIDUAL_SHARE = 0.5
# Failures count as this much slower than the best, and so does what is slower still.
MIN_LABEL = 1 / 32


class XGBoostCostModel:
    """Predicts log2 of the speed of a candidate, up to a constant of its task.

    The loss is the squared error of log2(label) after the mean error of each group was taken away: it counts
    what the errors do to the differences inside a task, which are all that a search needs, and asks nothing
    about how good the trials of one task are beside another's, which is chance. On real logs this ranks
    unseen tasks better than the logistic loss, squared errors, and XGBoost's own ranking losses.

    A model that was loaded from a snapshot is a base: each `fit` forgets the fit before it and boosts on,
    from the base, whose own trees stay as they are. That is for a model without its records: one fit on the
    records of both ranks better.

    Deterministic: equal data, seed and number of threads give equal models, byte for byte.
    """

    def __init__(
        self,
        *,
        seed: int,
        num_threads: int = 1,
        clock: Clock | None = None,
        params: HyperParameters = DEFAULT,
    ) -> None:
        self._seed = seed
        self._params = params
        self._num_threads = num_threads
        self._clock = clock or SystemClock()
        self._base: ModelSnapshot | None = None
        self._booster: xgb.Booster | None = None
        self._model_id = ""

    @property
    def is_fitted(self) -> bool:
        return self._booster is not None

    def fit(self, training_set: TrainingSet, *, metrics: Mapping[str, float] | None = None) -> ModelSnapshot:
        """Learn from `training_set`, on top of the base where there is one, and from nothing else.

        Args:
            metrics: what `evaluate` found, to be kept in the snapshot.

        Returns: the whole model, the base's trees included; its records are those of both.
        Raises:
            ModelError: the training set is empty.
        """
        if len(training_set) == 0:
            raise ModelError("the training set is empty: the model needs at least one trial with features")
        booster = boost(
            pool_rows(training_set.features),
            training_set,
            {
                **_FIXED_PARAMS,
                **self._params.of_xgboost(),
                "seed": self._seed % 2**31,
                "nthread": self._num_threads,
            },
            num_rounds=self._num_rounds(),
            base_ubj=self._base.booster_ubj if self._base else None,
        )
        booster_ubj = bytes(booster.save_raw("ubj"))
        self._booster, self._model_id = booster, _model_id(booster_ubj)
        num_base_records = self._base.n_records if self._base else 0
        return ModelSnapshot(
            model_id=self._model_id,
            kind=MODEL_KIND,
            booster_ubj=booster_ubj,
            feature_version=training_set.features.feature_version,
            n_records=num_base_records + len(training_set),
            metrics=dict(metrics or {}),
            trained_at=self._clock.now(),
        )

    def _num_rounds(self) -> int:
        num_rounds = self._params.num_rounds
        return num_rounds if self._base is None else math.ceil(_RESIDUAL_SHARE * num_rounds)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Score candidates; higher is better, unbounded.

        Within a task, a score that is higher by 1 promises a candidate that is twice as fast.

        Raises:
            ModelNotFittedError: there is no model yet.
        """
        return Prediction(self.predict_pooled(pool_rows(batch)), self._model_id)

    def predict_pooled(self, pooled: FloatArray) -> Scores:
        """Scores (n,) of rows that `pool_rows` made, (n, 336).

        Raises:
            ModelNotFittedError: there is no model yet.
        """
        booster = self._fitted()
        if len(pooled) == 0:
            return np.empty(0, dtype=np.float64)
        return np.asarray(booster.inplace_predict(pooled), dtype=np.float64)

    def contributions(self, pooled: FloatArray) -> Scores:
        """What each column adds to each score, (n, 336): SHAP values (Lundberg et al., Nature MI 2, 2020).

        The columns of a row add up to its score, but for a constant of the model.

        Raises:
            ModelNotFittedError: there is no model yet.
        """
        booster = self._fitted()
        if len(pooled) == 0:
            return np.empty(pooled.shape, dtype=np.float64)
        data = xgb.DMatrix(pooled, nthread=self._num_threads)
        values = np.asarray(booster.predict(data, pred_contribs=True), dtype=np.float64)
        return values[:, :-1]  # the last one is the constant

    @classmethod
    def from_snapshot(
        cls, snapshot: ModelSnapshot, *, seed: int, num_threads: int = 1, params: HyperParameters = DEFAULT
    ) -> Self:
        """The model that a snapshot holds: equal features get equal scores, and `fit` boosts on from it.

        Args:
            params: of the trees that `fit` adds.

        Raises:
            FeatureVersionMismatchError: it was trained on another feature version.
            ModelError: it is of another kind, or its bytes are damaged.
        """
        check_usable(snapshot)
        model = cls(seed=seed, num_threads=num_threads, params=params)
        model._base = snapshot
        model._booster = xgb.Booster({"nthread": num_threads}, model_file=bytearray(snapshot.booster_ubj))
        model._model_id = snapshot.model_id
        return model

    def column_gains(self) -> dict[int, float]:
        """Share of each pooled column in the loss that the trees took away; sums to 1, empty without trees.

        Raises:
            ModelNotFittedError: there is no model yet.
        """
        gains = self._fitted().get_score(importance_type="total_gain")
        total = sum(float(gain) for gain in gains.values() if isinstance(gain, float))
        # XGBoost calls columns without a name f0, f1 and so on.
        return {int(name[1:]): gain / total for name, gain in gains.items() if isinstance(gain, float)}

    def _fitted(self) -> xgb.Booster:
        if self._booster is None:
            raise ModelNotFittedError("the cost model has seen no data: call fit() or from_snapshot() first")
        return self._booster


def boost(
    rows: FloatArray,
    training_set: TrainingSet,
    params: Mapping[str, Any],
    *,
    num_rounds: int,
    base_ubj: bytes | None = None,
) -> xgb.Booster:
    """Boost `num_rounds` trees under the group-centred squared error of log2(label).

    Args:
        rows: float32 (n_candidates, n_columns).
        base_ubj: a model whose trees come first, unchanged.
    """
    target = log2_labels(training_set.label)
    _, group = np.unique(training_set.group, return_inverse=True)
    group_sizes = np.bincount(group)

    def gradient(scores: npt.NDArray[np.float32], data: xgb.DMatrix) -> tuple[Scores, Scores]:
        error = scores - target
        centred = error - (np.bincount(group, weights=error) / group_sizes)[group]
        return centred, np.ones_like(centred)

    data = xgb.DMatrix(rows, label=target, nthread=params["nthread"])
    # From bytes, never from a booster in memory: that would go on with the random numbers of its last use.
    base = bytearray(base_ubj) if base_ubj is not None else None
    return xgb.train(dict(params), data, num_boost_round=num_rounds, obj=gradient, xgb_model=base)


def check_usable(snapshot: ModelSnapshot) -> None:
    """Whether this program can predict with a snapshot.

    Raises:
        FeatureVersionMismatchError: it was trained on another feature version.
        ModelError: it is of another kind, or its bytes are damaged.
    """
    what, remedy = f"cost model {snapshot.model_id[:12]}", "train a new model from the log"
    if snapshot.feature_version != FEATURE_VERSION:
        raise FeatureVersionMismatchError(
            f"{what} was trained on features {snapshot.feature_version!r}, this program computes "
            f"{FEATURE_VERSION!r}: {remedy}"
        )
    if snapshot.kind != MODEL_KIND:
        raise ModelError(f"{what} is of kind {snapshot.kind!r}, expected {MODEL_KIND!r}: {remedy}")
    if _model_id(snapshot.booster_ubj) != snapshot.model_id:
        raise ModelError(f"{what} is damaged: its bytes do not have this digest; {remedy}")


def log2_labels(label: FloatArray) -> Scores:
    """What models learn, (n,): log2 of labels; what is below 1/32, failures too, counts as that."""
    return np.log2(np.maximum(label, MIN_LABEL)).astype(np.float64)


def evaluate_xgboost(
    training_set: TrainingSet, *, seed: int, num_threads: int = 1, params: HyperParameters = DEFAULT
) -> dict[str, float]:
    """`evaluate` of this model: up to six fits, so ask for it now and then, not at every refit."""
    return evaluate(training_set, fit_predict(seed=seed, num_threads=num_threads, params=params), seed=seed)


def fit_predict(*, seed: int, num_threads: int = 1, params: HyperParameters = DEFAULT) -> FitPredict:
    """This model without a base, as the functions of `evaluation` take it."""

    def trained_and_asked(train: TrainingSet, test: TrainingSet) -> Scores:
        model = XGBoostCostModel(seed=seed, num_threads=num_threads, params=params)
        model.fit(train)
        return model.predict(test.features).score

    return trained_and_asked


def _model_id(booster_ubj: bytes) -> str:
    return hashlib.sha256(booster_ubj).hexdigest()
