"""Small tasks, sessions and records, for the tests and for the scripts that they run as processes."""

from datetime import UTC, datetime, timedelta

import numpy as np

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FloatArray,
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

MACHINE = MachineInfo(
    cpu_model="Test CPU",
    num_cpus=2,
    has_smt=False,
    governor="performance",
    os_kernel="6.1",
    tvm_version="0.27.0.post1",
    tvm_ffi_version="0.1.14.post1",
    llvm_version="22",
)
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def make_task(size: int = 64, *, mcpu: str = "skylake-avx512", num_threads: int = 2) -> TuningTask:
    mod_json = canonical_json({"matmul": size})
    matrix = TensorSpec((size, size), "float32")
    workload = Workload(
        name=f"matmul_{size}",
        key=WorkloadKey(digest(mod_json)),
        mod_json=mod_json,
        args=(matrix, matrix, matrix),
        flop=2.0 * size**3,
    )
    return TuningTask(workload, TargetSpec(mcpu=mcpu, num_threads=num_threads))


def make_session(
    *tasks: TuningTask, session_id: str = "session-1", machine: MachineInfo = MACHINE
) -> SessionInfo:
    return SessionInfo(
        session_id=session_id,
        model_name="model.onnx",
        target=tasks[0].target,
        strategy="evolutionary",
        seed=1,
        machine=machine,
        task_weights={task.key: position + 1 for position, task in enumerate(tasks)},
        created_at=START,
    )


def success(*run_secs: float, is_verified: bool = True) -> MeasureSuccess:
    return MeasureSuccess(run_secs=run_secs, build_secs=0.3, wall_secs=0.5, is_verified=is_verified)


def make_record(
    task: TuningTask,
    number: int,
    result: MeasureResult | None = None,
    *,
    session_id: str = "session-1",
    machine: MachineInfo = MACHINE,
) -> TuningRecord:
    """The `number`-th trial: another number is another candidate."""
    trace_json = canonical_json([[["SampleCategorical", [], [[0, 16], [0.5, 0.5]], ["v1"]]], [[0, number]]])
    return TuningRecord(
        session_id=session_id,
        trial_index=number,
        candidate=Candidate(task.key, trace_json, Origin.RANDOM),
        result=success(0.002, 0.001, 0.004) if result is None else result,
        evaluator=EvaluatorConfig(),
        machine=machine,
        strategy="evolutionary",
        seed=1,
        finished_at=START + timedelta(seconds=number),
        code_version="0.1.0",
    )


def make_features(number: int, *, n_stores: int = 2) -> FloatArray:
    rng = np.random.default_rng(number)
    return rng.standard_normal((n_stores, 164)).astype(np.float32)
