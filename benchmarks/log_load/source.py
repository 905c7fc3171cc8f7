"""Real trials to make others from: a tuning log's, or the small sample that lies beside this file."""

import json
import lzma
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.core.keys import digest
from tunewright.core.types import (
    Candidate,
    CandidateKey,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TargetSpec,
    TensorSpec,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.tuning_logs import TuningLog

SAMPLE = Path(__file__).with_name("sample.json.xz")
_MACHINE = MachineInfo("sample", 1, False, "unknown", "unknown", "0", "0", "0")
_MIN_TRIALS = 16  # of a task that was tuned, beyond its default schedule
_MAX_SAMPLE_MODULE_CHARS = 30_000


@dataclass(frozen=True, slots=True)
class SourceTask:
    """A tuned task with its trials, each with the features that were stored with it."""

    task: TuningTask
    trials: tuple[RecordedTrial, ...]


def read_log(path: Path) -> list[SourceTask]:
    """The well-tuned tasks of an SQLite log. The file stays as it is: a copy is upgraded and read.

    Raises:
        ValueError: it has none.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(path, folder)
        with TuningLog.open(f"sqlite:///{copy}") as log:
            keys = [task.task_key for task in log.tasks() if task.num_trials >= _MIN_TRIALS]
            if not keys:
                raise ValueError(f"{path} has no task with {_MIN_TRIALS} trials: name a log of a tuned model")
            return [SourceTask(log.task(key), tuple(log.trials(key, with_features=True))) for key in keys]


def read_sample(path: Path = SAMPLE) -> list[SourceTask]:
    return [_task_from_json(fields) for fields in json.loads(lzma.decompress(path.read_bytes()))]


def write_sample(source: Sequence[SourceTask], path: Path, *, num_tasks: int, trials_per_task: int) -> None:
    """Store a few tasks of different operators, those with the most trials; of each, trials of all ages."""
    of_operator: dict[str, SourceTask] = {}
    for task in sorted(source, key=lambda task: -len(task.trials)):
        if len(task.task.workload.mod_json) <= _MAX_SAMPLE_MODULE_CHARS:
            of_operator.setdefault(task.task.workload.name.partition(" ")[0], task)
    tasks = [_task_to_json(task, trials_per_task) for task in list(of_operator.values())[:num_tasks]]
    text = json.dumps(tasks, separators=(",", ":"))
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def _task_to_json(source: SourceTask, num_trials: int) -> dict[str, Any]:
    workload = source.task.workload
    step = max(1, len(source.trials) // num_trials)
    return {
        "name": workload.name,
        "mod_json": workload.mod_json,
        "args": [[arg.shape, arg.dtype] for arg in workload.args],
        "flop": workload.flop,
        "target": asdict(source.task.target),
        "trials": [_trial_to_json(trial) for trial in source.trials[::step][:num_trials]],
    }


def _task_from_json(fields: Mapping[str, Any]) -> SourceTask:
    workload = Workload(
        name=fields["name"],
        key=WorkloadKey(digest(fields["mod_json"])),
        mod_json=fields["mod_json"],
        args=tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in fields["args"]),
        flop=fields["flop"],
    )
    target = TargetSpec(**{**fields["target"], "mattr": tuple(fields["target"]["mattr"])})
    task = TuningTask(workload, target)
    return SourceTask(task, tuple(_trial_from_json(task, n, t) for n, t in enumerate(fields["trials"])))


def _trial_to_json(trial: RecordedTrial) -> dict[str, Any]:
    record, features = trial.record, trial.features
    return {
        "trace": record.candidate.trace_json,
        "origin": record.candidate.origin.value,
        "has_parent": record.candidate.parent_key is not None,
        "result": _result_to_json(record.result),
        "has_score": record.predicted_score is not None,
        "finished_at": record.finished_at.isoformat(),
        # As text: equal values are equal bytes wherever they stand, so all of it is packed to a third.
        "features": None if features is None else [[_short(value) for value in row] for row in features],
    }


def _result_to_json(result: MeasureResult) -> dict[str, Any]:
    fields = {
        name: _short(value) if isinstance(value, float) else value for name, value in asdict(result).items()
    }
    return {**fields, "run_secs": [_short(secs) for secs in result.run_secs], "object_key": ""}


def _short(value: float) -> float:
    """Enough digits to make others from."""
    return float(f"{value:.4g}")


def _trial_from_json(task: TuningTask, index: int, fields: Mapping[str, Any]) -> RecordedTrial:
    parent_key = CandidateKey(task.key) if fields["has_parent"] else None  # which one, is not kept
    record = TuningRecord(
        session_id="sample",
        trial_index=index,
        candidate=Candidate(task.key, fields["trace"], Origin(fields["origin"]), parent_key),
        result=_result_from_json(fields["result"]),
        evaluator=EvaluatorConfig(),
        machine=_MACHINE,
        strategy="evolutionary",
        seed=0,
        finished_at=datetime.fromisoformat(fields["finished_at"]),
        code_version="sample",
        model_id=task.key if fields["has_score"] else None,  # like a model's: 64 hexadecimal digits
        predicted_score=0.0 if fields["has_score"] else None,
    )
    features = fields["features"]
    return RecordedTrial(
        index + 1, record, None if features is None else np.array(features, dtype=np.float32)
    )


def _result_from_json(fields: Mapping[str, Any]) -> MeasureResult:
    fields = {**fields, "run_secs": tuple(fields["run_secs"])}
    if "kind" in fields:
        return MeasureFailure(**{**fields, "kind": FailureKind(fields["kind"])})
    return MeasureSuccess(**fields)
