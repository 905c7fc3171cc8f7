"""From recorded trials to a training set."""

from collections.abc import Sequence

import numpy as np

from tunewright.core.types import FailureKind, MeasureFailure, RecordedTrial, TaskKey, calibrated_secs
from tunewright.cost_model.types import FeatureBatch, TrainingSet, has_valid_features


def usable_trials(trials: Sequence[RecordedTrial]) -> list[RecordedTrial]:
    """Those that `make_training_set` labels, in its order: what was whose candidate.

    Not usable: trials without features, with those of another feature version (known by their shape), and
    those whose worker was lost, which is not their candidate's fault.
    """
    return [trial for trial in trials if _is_usable(trial)]


def make_training_set(trials: Sequence[RecordedTrial]) -> TrainingSet:
    """Label every trial that says something about its candidate; `usable_trials` says which do.

    The label is the best time of the trial's group, (task key, machine fingerprint), divided by its own
    time, both calibrated by the reference kernel. A pruned trial has one censored sample, which is its time
    here. Every other failure has label 0 and full weight, so that the model learns where programs break;
    TVM's own model weights samples by their label and thereby never sees a failure.
    """
    usable = usable_trials(trials)
    group_of: dict[tuple[TaskKey, str], int] = {}
    groups = np.array([group_of.setdefault(_group_key(t), len(group_of)) for t in usable], dtype=np.int32)
    labels = np.zeros(len(usable), dtype=np.float32)
    for group in range(len(group_of)):
        (members,) = np.nonzero(groups == group)
        secs = np.array(calibrated_secs([usable[member].record.result for member in members]))
        has_time = np.isfinite(secs)
        labels[members[has_time]] = secs.min() / secs[has_time]
    return TrainingSet(
        features=FeatureBatch.of_programs(
            [trial.features for trial in usable if trial.features is not None],
            [trial.record.candidate.trace_json for trial in usable],
        ),
        label=labels,
        group=groups,
        group_tasks=tuple(task_key for task_key, _ in group_of),
    )


def _is_usable(trial: RecordedTrial) -> bool:
    result = trial.record.result
    if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
        return False
    return trial.features is not None and has_valid_features(trial.features)


def _group_key(trial: RecordedTrial) -> tuple[TaskKey, str]:
    return trial.record.task_key, trial.record.machine.fingerprint
