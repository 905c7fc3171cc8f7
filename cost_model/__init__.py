"""The learner: from recorded trials to scores of candidates that nobody has measured.

`XGBoostCostModel` lives in `tunewright.cost_model.xgboost_model` and is not imported here: xgboost takes a
second to load, and who only builds training sets or metrics does not need it.
"""

from tunewright.cost_model.dataset import make_training_set, usable_trials
from tunewright.cost_model.types import FeatureBatch, TrainingSet

__all__ = ["FeatureBatch", "TrainingSet", "make_training_set", "usable_trials"]
