"""The tables of the tuning log. They are changed by a migration only (`migrations/versions/`).

Trials are kept raw: every sample, every failure. The one derived column is `TrialRow.ranked_secs`, because
an index needs it. JSON columns hold canonical JSON text, blobs are zlib-compressed, times are UTC.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes, stored as naive UTC: SQLite drops the zone without a word."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"datetime {value} has no time zone, expected an aware one")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    # Names that do not depend on the database make later migrations able to find the constraints.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text(), float: Double(), bytes: LargeBinary(), datetime: UtcDateTime()}  # noqa: RUF012 (SQLAlchemy's)


class MachineRow(Base):
    """One machine with one software stack; several rows may share the fingerprint."""

    __tablename__ = "tw_machines"

    id: Mapped[int] = mapped_column(primary_key=True)
    machine_key: Mapped[str] = mapped_column(unique=True)  # digest of all that follows
    fingerprint: Mapped[str] = mapped_column(index=True)
    cpu_model: Mapped[str]
    num_cpus: Mapped[int]
    has_smt: Mapped[bool]
    governor: Mapped[str]
    os_kernel: Mapped[str]
    tvm_version: Mapped[str]
    tvm_ffi_version: Mapped[str]
    llvm_version: Mapped[str]


class WorkloadRow(Base):
    __tablename__ = "tw_workloads"

    id: Mapped[int] = mapped_column(primary_key=True)
    workload_key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    args_json: Mapped[str]  # [[shape, dtype], ...]
    flop: Mapped[float]
    module_zlib: Mapped[bytes]


class TaskRow(Base):
    """A workload on a target. `mcpu` and `num_threads` repeat what `target_json` says, for queries."""

    __tablename__ = "tw_tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(unique=True)
    workload_id: Mapped[int] = mapped_column(ForeignKey(WorkloadRow.id), index=True)
    target_json: Mapped[str]
    mcpu: Mapped[str]
    num_threads: Mapped[int]


class SessionRow(Base):
    __tablename__ = "tw_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(unique=True)
    model_name: Mapped[str]
    target_json: Mapped[str]
    strategy: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id))
    created_at: Mapped[datetime]
    elapsed_secs: Mapped[float]


class SessionTaskRow(Base):
    """The tasks of a session in the order of the model, with the calls per run of the model."""

    __tablename__ = "tw_session_tasks"

    session_id: Mapped[int] = mapped_column(ForeignKey(SessionRow.id), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.id), primary_key=True)
    position: Mapped[int]
    weight: Mapped[int]


class TrialRow(Base):
    """One measured candidate. `failure_kind` is NULL for a success."""

    __tablename__ = "tw_trials"
    __table_args__ = (
        UniqueConstraint("session_id", "candidate_key"),
        # `best` reads it in order; the summaries are answered by it alone, without touching the blobs.
        Index(
            "ix_tw_trials_ranking",
            "task_id",
            "is_verified",
            "unusable_reason",
            "ranked_secs",
            "failure_kind",
            "machine_id",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey(SessionRow.id))
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.id))
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id))
    trial_index: Mapped[int]
    candidate_key: Mapped[str]
    parent_key: Mapped[str | None]
    origin: Mapped[str]
    failure_kind: Mapped[str | None]
    failure_message: Mapped[str | None]
    is_verified: Mapped[bool]
    run_secs_json: Mapped[str]  # raw samples; of a pruned candidate the censored one
    # Derived: median of the newest race, else of run_secs_json; NULL for a failure.
    ranked_secs: Mapped[float | None]
    unusable_reason: Mapped[str | None]  # set: in quarantine, never best again
    build_secs: Mapped[float]
    wall_secs: Mapped[float]
    steal_ratio: Mapped[float | None]
    object_key: Mapped[str | None]  # digest of the machine code
    is_duplicate: Mapped[bool]  # run_secs_json is an earlier trial's of equal machine code
    yardstick_secs: Mapped[float | None]  # what the reference kernel took around the batch
    is_noisy: Mapped[bool]
    evaluator_json: Mapped[str]
    strategy: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    model_id: Mapped[str | None]
    predicted_score: Mapped[float | None]
    finished_at: Mapped[datetime]
    code_version: Mapped[str]
    schema_version: Mapped[int]
    trace_zlib: Mapped[bytes]


class FeatureRow(Base):
    """The cost model's input of a trial: float32 little-endian (n_rows, n_features), C order."""

    __tablename__ = "tw_features"

    trial_id: Mapped[int] = mapped_column(ForeignKey(TrialRow.id), primary_key=True)
    feature_version: Mapped[str]
    n_rows: Mapped[int]
    n_features: Mapped[int]
    values_zlib: Mapped[bytes]


class RaceRow(Base):
    """One final interleaved race of a trial against the other contenders of its task."""

    __tablename__ = "tw_races"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey(TrialRow.id), index=True)
    run_secs_json: Mapped[str]
    raced_at: Mapped[datetime]


class PeakRow(Base):
    """What a machine can do at most; the newest of a machine and target counts."""

    __tablename__ = "tw_peaks"

    id: Mapped[int] = mapped_column(primary_key=True)
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id), index=True)
    target_json: Mapped[str]
    flop_per_sec: Mapped[float]
    bandwidths_json: Mapped[str]  # [[bytes of the working set, bytes per second], ...]
    measured_at: Mapped[datetime]


class ModelRow(Base):
    """A trained cost model. Trials name it without a foreign key, so that models can be pruned."""

    __tablename__ = "tw_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    feature_version: Mapped[str]
    n_records: Mapped[int]
    metrics_json: Mapped[str]
    trained_at: Mapped[datetime]
    booster_ubj: Mapped[bytes]
