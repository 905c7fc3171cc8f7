"""From recorded trials to a training set."""

from collections.abc import Sequence

import numpy as np

from tunewright.core.types import FailureKind, MeasureFailure, RecordedTrial, TaskKey, known_secs
from tunewright.cost_model.types import FeatureBatch, TrainingSet, has_valid_features


def make_training_set(trials: Sequence[RecordedTrial]) -> TrainingSet:
    """Label every trial that says something about its candidate.

    The label is the best time of the trial's group, (task key, machine fingerprint), divided by its own
    time. A pruned trial has one censored sample, which is its time here. Every other failure has label 0
    and full weight, so that the model learns where programs break; TVM's own model weights samples by
    their label and thereby never sees a failure.

    Skipped: trials without features, with those of another feature version (known by their shape), and
    those whose worker was lost, which is not their candidate's fault.
    """
    usable = [trial for trial in trials if _is_usable(trial)]
    secs = [known_secs(trial.record.result) for trial in usable]
    group_of: dict[tuple[TaskKey, str], int] = {}
    groups = [group_of.setdefault(_group_key(trial), len(group_of)) for trial in usable]
    best = [float("inf")] * len(group_of)
    for group, trial_secs in zip(groups, secs, strict=True):
        best[group] = min(best[group], trial_secs)
    labels = [
        best[group] / trial_secs if trial_secs != float("inf") else 0.0
        for group, trial_secs in zip(groups, secs, strict=True)
    ]
    return TrainingSet(
        features=FeatureBatch.from_arrays([t.features for t in usable if t.features is not None]),
        label=np.array(labels, dtype=np.float32),
        group=np.array(groups, dtype=np.int32),
        group_tasks=tuple(task_key for task_key, _ in group_of),
    )


def _is_usable(trial: RecordedTrial) -> bool:
    result = trial.record.result
    if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
        return False
    return trial.features is not None and has_valid_features(trial.features)


def _group_key(trial: RecordedTrial) -> tuple[TaskKey, str]:
    return trial.record.task_key, trial.record.machine.fingerprint
