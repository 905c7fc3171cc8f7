"""Sessions in a real log, for tests that read what is drawn from one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    SessionInfo,
    TargetSpec,
    TensorSpec,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.tuning_logs import TuningLog

START = datetime(2026, 1, 2, tzinfo=UTC)
MACHINE = MachineInfo("Test CPU", 2, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")
OTHER_MACHINE = replace(MACHINE, cpu_model="Other CPU")


def make_task(name: str) -> TuningTask:
    shape = TensorSpec((8, 8), "float32")
    workload = Workload(name, WorkloadKey(name), "{}", (shape, shape, shape), flop=1024.0)
    return TuningTask(workload, TargetSpec("skylake-avx512", 2))


CONV, MATMUL = make_task("conv2d 8x8 -> 8x8"), make_task("matmul 8x8 -> 8x8")
WEIGHTS = {CONV.key: 3, MATMUL.key: 1}


def success(secs: float, *, is_verified: bool = True) -> MeasureSuccess:
    return MeasureSuccess((secs,), build_secs=0.1, wall_secs=0.5, is_verified=is_verified)


def failure(kind: FailureKind = FailureKind.BUILD, message: str = "no") -> MeasureFailure:
    return MeasureFailure(kind, message, 0.1)


def add_session(
    log: TuningLog,
    session_id: str,
    results: Sequence[tuple[TuningTask, MeasureResult]],
    *,
    tasks: Sequence[TuningTask] = (CONV, MATMUL),
    weights: Mapping[str, int] | None = None,
    model_name: str = "net.onnx",
    strategy: str = "random",
    seed: int = 7,
    machine: MachineInfo = MACHINE,
    scores: Sequence[float] | None = None,
    begin: datetime = START,
) -> list[RecordedTrial]:
    """A session whose trials take a second each; each task's first trial is its default schedule."""
    log.add_tasks(tasks)
    by_task = dict(WEIGHTS if weights is None else weights)
    info = SessionInfo(session_id, model_name, tasks[0].target, strategy, seed, machine, by_task, begin)
    log.start_session(info)
    seen: set[str] = set()
    records = []
    for index, (task, result) in enumerate(results):
        origin = Origin.RANDOM if task.key in seen else Origin.SEED
        seen.add(task.key)
        record = TuningRecord(
            session_id=session_id,
            trial_index=index,
            candidate=Candidate(task.key, f'["{session_id}",{index}]', origin),
            result=result,
            evaluator=EvaluatorConfig(),
            machine=machine,
            strategy=strategy,
            seed=seed,
            finished_at=begin + timedelta(seconds=index + 1),
            code_version="0",
            model_id=None if scores is None else "m" * 64,
            predicted_score=None if scores is None else scores[index],
        )
        records.append(record)
    return log.append([(record, None) for record in records])
