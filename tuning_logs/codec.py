"""Between rows of the database and the frozen values that everybody else sees.

Rows of the tables with many rows are plain dictionaries on their way in, and rows of a query on their way
out: the object-relational mapper would take most of the time.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

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
from tunewright.tuning_logs.columns import storable_text
from tunewright.tuning_logs.compression import Dictionary
from tunewright.tuning_logs.tables import ModelRow, PeakRow, WorkloadRow

Fields = dict[str, Any]
"""The columns of a row that is written."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the trials of a batch have in common."""

    strategy: str
    seed: int
    model_id: str | None
    code_version: str
    schema_version: int
    evaluator: EvaluatorConfig


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


def target_fields(target: TargetSpec) -> Fields:
    return {
        "target_json": str(target),
        "kind": target.kind,
        "mcpu": target.mcpu,
        "num_threads": target.num_threads,
    }


def workload_fields(workload: Workload) -> Fields:
    return {
        "workload_key": workload.key,
        "name": workload.name,
        "args_json": args_to_json(workload.args),
        "flop": workload.flop,
        "module_zlib": zlib.compress(workload.mod_json.encode()),
    }


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


def machine_fields(machine: MachineInfo) -> Fields:
    return {"machine_key": machine_key(machine), "fingerprint": machine.fingerprint, **asdict(machine)}


def machine_from_fields(fields: Mapping[str, Any]) -> MachineInfo:
    return MachineInfo(
        cpu_model=fields["cpu_model"],
        num_cpus=fields["num_cpus"],
        has_smt=fields["has_smt"],
        governor=fields["governor"],
        os_kernel=fields["os_kernel"],
        tvm_version=fields["tvm_version"],
        tvm_ffi_version=fields["tvm_ffi_version"],
        llvm_version=fields["llvm_version"],
    )


def peak_to_row(peak: MachinePeak, *, machine_row_id: int, target_row_id: int) -> PeakRow:
    return PeakRow(
        machine_id=machine_row_id,
        target_id=target_row_id,
        flop_per_sec=peak.flop_per_sec,
        bandwidths_json=canonical_json(peak.bandwidths),
        measured_at=peak.measured_at,
    )


def peak_from_row(row: PeakRow, machine: MachineInfo, target: TargetSpec) -> MachinePeak:
    return MachinePeak(
        machine=machine,
        target=target,
        flop_per_sec=row.flop_per_sec,
        bandwidths=tuple((int(size), float(rate)) for size, rate in json.loads(row.bandwidths_json)),
        measured_at=row.measured_at,
    )


def setup_of(record: TuningRecord) -> Setup:
    return Setup(
        record.strategy,
        record.seed,
        record.model_id,
        record.code_version,
        record.schema_version,
        record.evaluator,
    )


def setup_fields(setup: Setup) -> Fields:
    evaluator_json = canonical_json(asdict(setup.evaluator))
    values = (setup.strategy, setup.seed, setup.model_id, setup.code_version, setup.schema_version)
    return {
        "setup_key": digest(canonical_json([*values, evaluator_json])),
        "strategy": setup.strategy,
        "seed": setup.seed,
        "model_id": setup.model_id,
        "code_version": setup.code_version,
        "schema_version": setup.schema_version,
        "evaluator_json": evaluator_json,
    }


def setup_from_fields(fields: Mapping[str, Any]) -> Setup:
    return Setup(
        strategy=fields["strategy"],
        seed=fields["seed"],
        model_id=fields["model_id"],
        code_version=fields["code_version"],
        schema_version=fields["schema_version"],
        evaluator=EvaluatorConfig(**json.loads(fields["evaluator_json"])),
    )


def result_fields(result: MeasureResult) -> Fields:
    """The columns of a trial that say what measuring it gave."""
    failure = result if isinstance(result, MeasureFailure) else None
    success = result if isinstance(result, MeasureSuccess) else None
    return {
        "failure_kind": failure.kind.value if failure else None,
        "failure_message": failure.message if failure else None,
        "is_verified": success is not None and success.is_verified,
        "run_secs_json": canonical_json(result.run_secs),
        "ranked_secs": success.median_secs if success else None,
        "build_secs": result.build_secs,
        "wall_secs": result.wall_secs,
        "steal_ratio": success.steal_ratio if success else None,
        "object_key": result.object_key or None,
        "is_duplicate": success is not None and success.is_duplicate,
        "yardstick_secs": result.yardstick_secs,
        "is_noisy": success is not None and success.is_noisy,
    }


def trial_fields(record: TuningRecord, *, machine_row_id: int, dictionary: Dictionary) -> Fields:
    """The columns of a trial but for its candidate's key and the numbers of its session, task and setup."""
    fields = result_fields(record.result)
    return {
        **fields,
        "machine_id": machine_row_id,
        "trial_index": record.trial_index,
        "parent_key": record.candidate.parent_key,
        "origin": record.candidate.origin.value,
        "verified_machine_id": machine_row_id if fields["is_verified"] else None,
        "unusable_reason": None,
        "predicted_score": _finite_score(record),
        "finished_at": record.finished_at,
        "dictionary_id": dictionary.row_id,
        "trace_zlib": dictionary.deflate(trace_bytes(record)),
    }


def trace_bytes(record: TuningRecord) -> bytes:
    return record.candidate.trace_json.encode()


def stored(record: TuningRecord) -> TuningRecord:
    """The record as it will be read: without what a database cannot hold."""
    result = record.result
    if isinstance(result, MeasureFailure):
        message = storable_text(result.message)
        if message != result.message:
            result = replace(result, message=message)
    score = _finite_score(record)
    if result is record.result and score == record.predicted_score:
        return record
    return replace(record, result=result, predicted_score=score)


def trial_from_row(
    row: Any, *, machine: MachineInfo, setup: Setup, dictionaries: Mapping[int, Dictionary]
) -> RecordedTrial:
    """A trial of `queries.trial_columns`, with what it refers to."""
    candidate = Candidate(
        task_key=TaskKey(row.task_key),
        trace_json=dictionaries[row.dictionary_id].inflate(row.trace_zlib).decode(),
        origin=Origin(row.origin),
        parent_key=None if row.parent_key is None else CandidateKey(row.parent_key),
    )
    record = TuningRecord(
        session_id=row.session_name,
        trial_index=row.trial_index,
        candidate=candidate,
        result=_result_from_row(row),
        evaluator=setup.evaluator,
        machine=machine,
        strategy=setup.strategy,
        seed=setup.seed,
        finished_at=row.finished_at,
        code_version=setup.code_version,
        model_id=setup.model_id,
        predicted_score=row.predicted_score,
        schema_version=setup.schema_version,
    )
    return RecordedTrial(row.id, record, _features_from_row(row, dictionaries))


def _result_from_row(row: Any) -> MeasureResult:
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


def feature_fields(trial_row_id: int, features: FloatArray, dictionary: Dictionary) -> Fields:
    n_rows, n_features = features.shape
    return {
        "trial_id": trial_row_id,
        "feature_version": FEATURE_VERSION,
        "n_rows": n_rows,
        "n_features": n_features,
        "dictionary_id": dictionary.row_id,
        "values_zlib": dictionary.deflate(feature_bytes(features)),
    }


def feature_bytes(features: FloatArray) -> bytes:
    return features.astype("<f4").tobytes()


def features_from_bytes(content: bytes, n_rows: int, n_features: int) -> FloatArray:
    """A read-only array (n_rows, n_features)."""
    values = np.frombuffer(content, dtype="<f4")
    return values.astype(np.float32, copy=False).reshape(n_rows, n_features)


def _features_from_row(row: Any, dictionaries: Mapping[int, Dictionary]) -> FloatArray | None:
    if row.values_zlib is None:
        return None
    content = dictionaries[row.feature_dictionary_id].inflate(row.values_zlib)
    return features_from_bytes(content, row.n_rows, row.n_features)


def _finite_score(record: TuningRecord) -> float | None:
    score = record.predicted_score
    return score if score is not None and math.isfinite(score) else None


def model_fields(snapshot: ModelSnapshot) -> Fields:
    return {
        "model_id": snapshot.model_id,
        "kind": snapshot.kind,
        "feature_version": snapshot.feature_version,
        "n_records": snapshot.n_records,
        "metrics_json": canonical_json(_finite_or_null(snapshot.metrics)),
        "trained_at": snapshot.trained_at,
        "booster_ubj": snapshot.booster_ubj,
    }


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
