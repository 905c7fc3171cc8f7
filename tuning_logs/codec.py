"""Between rows of the database and the frozen values that everybody else sees."""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple

import numpy as np

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import (
    FEATURE_VERSION,
    Candidate,
    CandidateKey,
    EvaluatorConfig,
    FailureKind,
    FloatArray,
    MachineInfo,
    MachinePeak,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    ModelSnapshot,
    Origin,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    TensorSpec,
    TuningRecord,
    Workload,
    WorkloadKey,
)
from tunewright.tuning_logs.tables import FeatureRow, MachineRow, ModelRow, PeakRow, TrialRow, WorkloadRow


def storable_text(text: str) -> str:
    """UTF-8 has no lone surrogates, but the stderr of a broken candidate may: keep them as escapes."""
    return text.encode(errors="backslashreplace").decode()


def target_from_json(text: str) -> TargetSpec:
    data = json.loads(text)
    return TargetSpec(
        mcpu=data["mcpu"],
        num_threads=data["num-cores"],
        mattr=tuple(data.get("mattr", ())),
        kind=data["kind"],
    )


def args_to_json(args: Sequence[TensorSpec]) -> str:
    return canonical_json([[arg.shape, arg.dtype] for arg in args])


def args_from_json(text: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in json.loads(text))


def samples_from_json(text: str) -> tuple[float, ...]:
    return tuple(json.loads(text))


def workload_to_row(workload: Workload) -> WorkloadRow:
    return WorkloadRow(
        workload_key=workload.key,
        name=storable_text(workload.name),
        args_json=args_to_json(workload.args),
        flop=workload.flop,
        module_zlib=zlib.compress(workload.mod_json.encode()),
    )


def workload_from_row(row: WorkloadRow) -> Workload:
    return Workload(
        name=row.name,
        key=WorkloadKey(row.workload_key),
        mod_json=zlib.decompress(row.module_zlib).decode(),
        args=args_from_json(row.args_json),
        flop=row.flop,
    )


def machine_key(machine: MachineInfo) -> str:
    return digest(*(str(value) for value in astuple(machine)))


def machine_to_row(machine: MachineInfo) -> MachineRow:
    return MachineRow(machine_key=machine_key(machine), fingerprint=machine.fingerprint, **asdict(machine))


def machine_from_row(row: MachineRow) -> MachineInfo:
    return MachineInfo(
        cpu_model=row.cpu_model,
        num_cpus=row.num_cpus,
        has_smt=row.has_smt,
        governor=row.governor,
        os_kernel=row.os_kernel,
        tvm_version=row.tvm_version,
        tvm_ffi_version=row.tvm_ffi_version,
        llvm_version=row.llvm_version,
    )


def peak_to_row(peak: MachinePeak, *, machine_row_id: int) -> PeakRow:
    return PeakRow(
        machine_id=machine_row_id,
        target_json=str(peak.target),
        flop_per_sec=peak.flop_per_sec,
        bandwidths_json=canonical_json(peak.bandwidths),
        measured_at=peak.measured_at,
    )


def peak_from_row(row: PeakRow, machine: MachineRow) -> MachinePeak:
    return MachinePeak(
        machine=machine_from_row(machine),
        target=target_from_json(row.target_json),
        flop_per_sec=row.flop_per_sec,
        bandwidths=tuple((int(size), float(rate)) for size, rate in json.loads(row.bandwidths_json)),
        measured_at=row.measured_at,
    )


def trial_to_row(
    record: TuningRecord, *, session_row_id: int, task_row_id: int, machine_row_id: int
) -> TrialRow:
    result = record.result
    failure = result if isinstance(result, MeasureFailure) else None
    success = result if isinstance(result, MeasureSuccess) else None
    score = record.predicted_score
    return TrialRow(
        session_id=session_row_id,
        task_id=task_row_id,
        machine_id=machine_row_id,
        trial_index=record.trial_index,
        candidate_key=record.candidate.key,
        parent_key=record.candidate.parent_key,
        origin=record.candidate.origin.value,
        failure_kind=failure.kind.value if failure else None,
        failure_message=storable_text(failure.message) if failure else None,
        is_verified=success is not None and success.is_verified,
        run_secs_json=canonical_json(result.run_secs),
        ranked_secs=success.median_secs if success else None,
        build_secs=result.build_secs,
        wall_secs=result.wall_secs,
        steal_ratio=success.steal_ratio if success else None,
        object_key=result.object_key or None,
        yardstick_secs=result.yardstick_secs,
        is_duplicate=success is not None and success.is_duplicate,
        is_noisy=success is not None and success.is_noisy,
        evaluator_json=canonical_json(asdict(record.evaluator)),
        strategy=record.strategy,
        seed=record.seed,
        model_id=record.model_id,
        predicted_score=score if score is not None and math.isfinite(score) else None,
        finished_at=record.finished_at,
        code_version=record.code_version,
        schema_version=record.schema_version,
        trace_zlib=zlib.compress(record.candidate.trace_json.encode()),
    )


def trial_from_row(
    row: TrialRow, *, session_id: str, task_key: str, machine: MachineRow, features: FeatureRow | None
) -> RecordedTrial:
    candidate = Candidate(
        task_key=TaskKey(task_key),
        trace_json=zlib.decompress(row.trace_zlib).decode(),
        origin=Origin(row.origin),
        parent_key=None if row.parent_key is None else CandidateKey(row.parent_key),
    )
    record = TuningRecord(
        session_id=session_id,
        trial_index=row.trial_index,
        candidate=candidate,
        result=_result_from_row(row),
        evaluator=EvaluatorConfig(**json.loads(row.evaluator_json)),
        machine=machine_from_row(machine),
        strategy=row.strategy,
        seed=row.seed,
        finished_at=row.finished_at,
        code_version=row.code_version,
        model_id=row.model_id,
        predicted_score=row.predicted_score,
        schema_version=row.schema_version,
    )
    return RecordedTrial(row.id, record, None if features is None else features_from_row(features))


def _result_from_row(row: TrialRow) -> MeasureResult:
    run_secs = samples_from_json(row.run_secs_json)
    if row.failure_kind is None:
        return MeasureSuccess(
            run_secs=run_secs,
            build_secs=row.build_secs,
            wall_secs=row.wall_secs,
            is_verified=row.is_verified,
            steal_ratio=row.steal_ratio or 0.0,
            object_key=row.object_key or "",
            is_duplicate=row.is_duplicate,
            yardstick_secs=row.yardstick_secs,
            is_noisy=row.is_noisy,
        )
    return MeasureFailure(
        kind=FailureKind(row.failure_kind),
        message=row.failure_message or "",
        wall_secs=row.wall_secs,
        build_secs=row.build_secs,
        run_secs=run_secs,
        object_key=row.object_key or "",
        yardstick_secs=row.yardstick_secs,
    )


def features_to_row(trial_row_id: int, features: FloatArray) -> FeatureRow:
    n_rows, n_features = features.shape
    return FeatureRow(
        trial_id=trial_row_id,
        feature_version=FEATURE_VERSION,
        n_rows=n_rows,
        n_features=n_features,
        values_zlib=zlib.compress(features.astype("<f4").tobytes()),
    )


def features_from_row(row: FeatureRow) -> FloatArray:
    """A read-only array (n_rows, n_features)."""
    values = np.frombuffer(zlib.decompress(row.values_zlib), dtype="<f4")
    return values.astype(np.float32, copy=False).reshape(row.n_rows, row.n_features)


def model_to_row(snapshot: ModelSnapshot) -> ModelRow:
    return ModelRow(
        model_id=snapshot.model_id,
        kind=snapshot.kind,
        feature_version=snapshot.feature_version,
        n_records=snapshot.n_records,
        metrics_json=canonical_json(_finite_or_null(snapshot.metrics)),
        trained_at=snapshot.trained_at,
        booster_ubj=snapshot.booster_ubj,
    )


def model_from_row(row: ModelRow) -> ModelSnapshot:
    metrics = {
        name: math.nan if value is None else value for name, value in json.loads(row.metrics_json).items()
    }
    return ModelSnapshot(
        model_id=row.model_id,
        kind=row.kind,
        booster_ubj=row.booster_ubj,
        feature_version=row.feature_version,
        n_records=row.n_records,
        metrics=metrics,
        trained_at=row.trained_at,
    )


def _finite_or_null(metrics: Mapping[str, float]) -> dict[str, float | None]:
    # A rank correlation over equal labels is NaN, which JSON does not have.
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
