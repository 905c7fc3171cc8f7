"""Tasks and records that need no TVM, for tests of what is read from the log."""

from dataclasses import replace
from datetime import UTC, datetime

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    MachineInfo,
    MeasureResult,
    MeasureSuccess,
    Origin,
    SessionInfo,
    TargetSpec,
    TensorSpec,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.scheduler.partition import Partition
from tunewright.tuning_logs import TuningLog

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
HERE = MachineInfo("This CPU", 4, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")
OTHER = replace(HERE, cpu_model="Other CPU")
OLD_TVM = replace(HERE, tvm_version="0.26.0")
TARGET = TargetSpec("znver5", 4)


def make_task(
    size: int = 64,
    *,
    op: str = "matmul",
    target: TargetSpec = TARGET,
    dtype: str = "float32",
    weight: int = 1,
) -> TuningTask:
    mod_json = canonical_json({op: [size, dtype]})
    matrix = TensorSpec((size, size), dtype)
    key = WorkloadKey(f"w1-{digest(mod_json)}")
    name = f"{op} {size}x{size} -> {size}x{size}"
    return TuningTask(Workload(name, key, mod_json, (matrix, matrix, matrix), 2.0 * size**3), target, weight)


def partition_of(*tasks: TuningTask) -> Partition:
    """A model that calls each of the tasks once."""
    return Partition(tasks, {f"f{number}": task.key for number, task in enumerate(tasks)}, {})


def make_record(
    task: TuningTask,
    number: int,
    result: MeasureResult,
    *,
    session_id: str = "session-1",
    machine: MachineInfo = HERE,
) -> TuningRecord:
    trace_json = canonical_json([[["SampleCategorical", [], [[0, 16], [0.5, 0.5]], ["v1"]]], [[0, number]]])
    return TuningRecord(
        session_id=session_id,
        trial_index=number,
        candidate=Candidate(task.key, trace_json, Origin.RANDOM),
        result=result,
        evaluator=EvaluatorConfig(),
        machine=machine,
        strategy="evolutionary",
        seed=1,
        finished_at=NOW,
        code_version="0.1.0",
        predicted_score=0.1 + number,
    )


def success(secs: float, *, is_verified: bool = True) -> MeasureSuccess:
    return MeasureSuccess((secs * 1.1, secs, secs * 0.9), 0.3, 0.5, is_verified)


def store(
    log: TuningLog, task: TuningTask, *results: MeasureResult, machine: MachineInfo = HERE
) -> list[int]:
    """Trials of a task, one for each result, in one session per task and machine; their ids."""
    session_id = digest(task.key, machine.cpu_model, machine.tvm_version)[:12]
    log.add_tasks([task])
    weights = {task.key: task.weight}
    log.start_session(SessionInfo(session_id, "net", task.target, "evolutionary", 1, machine, weights, NOW))
    known = log.count_trials(session_id).get(task.key, 0)
    trials = log.append(
        [
            (make_record(task, known + number, result, session_id=session_id, machine=machine), None)
            for number, result in enumerate(results)
        ]
    )
    return [trial.record_id for trial in trials]
