"""Recorded trials with random features and chosen outcomes."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    FloatArray,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TaskKey,
    TuningRecord,
)
from tunewright.cost_model import FeatureBatch, TrainingSet


def success(secs: float) -> MeasureSuccess:
    return MeasureSuccess((secs, secs * 1.01, secs * 0.99), build_secs=0.1, wall_secs=0.2, is_verified=True)


def failure(kind: FailureKind, *run_secs: float) -> MeasureFailure:
    return MeasureFailure(kind, "chosen by the test", wall_secs=0.1, run_secs=run_secs)


def features(seed: int, n_stores: int = 2) -> FloatArray:
    rows = np.random.default_rng(seed).uniform(0.0, 20.0, (n_stores, 164))
    return rows.astype(np.float32)


def batch_of(arrays: Sequence[FloatArray]) -> FeatureBatch:
    """Of programs without a tile of accumulators."""
    return FeatureBatch.of_programs(arrays, ["[[],[]]"] * len(arrays))


def trial(
    result: MeasureResult,
    *,
    task: str = "task",
    machine: str = "machine",
    seed: int = 0,
    rows: FloatArray | None = None,
) -> RecordedTrial:
    return RecordedTrial(
        record_id=seed,
        record=TuningRecord(
            session_id="session",
            trial_index=seed,
            candidate=Candidate(TaskKey(task), f"[{seed}]", Origin.RANDOM),
            result=result,
            evaluator=EvaluatorConfig(),
            machine=MachineInfo(machine, 4, False, "performance", "linux", "0", "0", "0"),
            strategy="random",
            seed=0,
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
            code_version="test",
        ),
        features=features(seed) if rows is None else rows,
    )


def learnable_set(n: int, *, seed: int, n_groups: int = 1) -> TrainingSet:
    """Labels follow from two columns of the first row; candidates have one to three stores."""
    rng = np.random.default_rng(seed)
    arrays = [features(int(rng.integers(1 << 30)), int(rng.integers(1, 4))) for _ in range(n)]
    heavy = np.array([array[np.argmax(array[:, :16].max(axis=1))] for array in arrays])
    label = 1.0 / (1.0 + 0.05 * (heavy[:, 30] - 12.0) ** 2 + 0.1 * heavy[:, 80])
    return TrainingSet(
        batch_of(arrays),
        (label / label.max()).astype(np.float32),
        rng.integers(n_groups, size=n).astype(np.int32),
        tuple(TaskKey(f"task-{group}") for group in range(n_groups)),
    )
