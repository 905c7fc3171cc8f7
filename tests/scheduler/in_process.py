"""Replaying and recording without worker processes or measurements, for tests of what comes after them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    MeasureSuccess,
    Origin,
    SessionInfo,
    TuningRecord,
    TuningTask,
)
from tunewright.tuning_logs import TuningLog

NOW = datetime(2026, 8, 22, 12, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Failure:
    message: str


def replay(items: Sequence[tuple[str, str]]) -> list[str | Failure]:
    """As `workers.process_space.replay_all`, in this process."""
    import tvm

    from tunewright.core.tvm_adapter.kernel import ReplayError
    from tunewright.core.tvm_adapter.kernel import replay as replay_one

    results: list[str | Failure] = []
    for mod_json, trace_json in items:
        try:
            results.append(tvm.ir.save_json(replay_one(mod_json, trace_json)))
        except ReplayError as exc:
            results.append(Failure(str(exc)))
    return results


def sampled_trace(task: TuningTask, *, packs_weights: bool = False) -> str:
    """A legal random schedule; with `packs_weights`, one that changes the layout of a weight."""
    from tunewright.core.tvm_adapter.space import TaskSpace

    space = TaskSpace(task.workload.mod_json, task.target, task.key)
    for seed in range(100):
        applied = space.sample(seed)
        if applied is None:
            continue
        trace_json = applied.candidate.trace_json
        if not packs_weights or "TransformLayout" in trace_json:
            return trace_json
    raise AssertionError(f"no such candidate of {task.workload.name} in 100 samples")


def record(log: TuningLog, task: TuningTask, trace_json: str, secs: float, *, trial_index: int = 0) -> None:
    """Store a verified success of `secs` per call."""
    from tunewright.core.tvm_adapter.target import machine_info

    machine = machine_info()
    log.add_tasks([task])
    log.start_session(
        SessionInfo("s1", "test", task.target, "random", 0, machine, {task.key: task.weight}, NOW)
    )
    trial = TuningRecord(
        session_id="s1",
        trial_index=trial_index,
        candidate=Candidate(task.key, trace_json, Origin.RANDOM),
        result=MeasureSuccess((secs,), build_secs=0.1, wall_secs=0.2, is_verified=True),
        evaluator=EvaluatorConfig(),
        machine=machine,
        strategy="random",
        seed=0,
        finished_at=NOW,
        code_version="test",
    )
    log.append([(trial, None)])
