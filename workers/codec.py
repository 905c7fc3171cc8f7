"""Between the shared types and the plain dictionaries that cross to a child."""

import base64
from dataclasses import asdict
from typing import Any

import numpy as np

from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    CandidateKey,
    Draft,
    EvaluatorConfig,
    MachineInfo,
    Origin,
    TargetSpec,
    TaskKey,
    TensorSpec,
    TuningTask,
)
from tunewright.workers.frames import Message


def target_to_dict(target: TargetSpec) -> Message:
    """All fields of a target."""
    return asdict(target)


def target_from_dict(fields: Message) -> TargetSpec:
    """Inverse of `target_to_dict`."""
    return TargetSpec(**{**fields, "mattr": tuple(fields["mattr"])})


def task_to_dict(task: TuningTask) -> Message:
    """What a child needs to know of a task."""
    return {
        "mod_json": task.workload.mod_json,
        "target": target_to_dict(task.target),
        "args": [[list(spec.shape), spec.dtype] for spec in task.workload.args],
        "flop": task.workload.flop,
    }


def args_from_dict(fields: Message) -> tuple[TensorSpec, ...]:
    """The tensors of `task_to_dict`."""
    return tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in fields["args"])


def evaluator_from_dict(fields: Message) -> EvaluatorConfig:
    """Inverse of `asdict`."""
    return EvaluatorConfig(**fields)


def machine_from_dict(fields: Message) -> MachineInfo:
    """Inverse of `asdict`."""
    return MachineInfo(**fields)


def applied_to_dict(applied: AppliedCandidate) -> Message:
    """A candidate with its features as base64 of little-endian float32, C order."""
    candidate = applied.candidate
    return {
        "trace": candidate.trace_json,
        "origin": candidate.origin,
        "parent": candidate.parent_key,
        "program": applied.program_key,
        "shape": list(applied.features.shape),
        "features": base64.b64encode(applied.features.astype("<f4").tobytes()).decode(),
    }


def applied_from_dict(fields: dict[str, Any], task_key: TaskKey) -> AppliedCandidate:
    """Inverse of `applied_to_dict`; the features are read-only."""
    features = np.frombuffer(base64.b64decode(fields["features"]), dtype="<f4").reshape(fields["shape"])
    parent = fields["parent"]
    return AppliedCandidate(
        candidate=Candidate(
            task_key=task_key,
            trace_json=fields["trace"],
            origin=Origin(fields["origin"]),
            parent_key=CandidateKey(parent) if parent is not None else None,
        ),
        features=features.astype(np.float32, copy=False),
        program_key=fields["program"],
    )


def draft_to_dict(draft: Draft) -> Message:
    """A draft without its parent."""
    return {"decisions": draft.decisions, "origin": draft.origin}


def draft_from_dict(fields: Message, parent: Candidate) -> Draft:
    """Inverse of `draft_to_dict`."""
    values = (tuple(value) if isinstance(value, list) else int(value) for value in fields["decisions"])
    return Draft(parent, tuple(values), Origin(fields["origin"]))
