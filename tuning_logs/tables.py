"""The tables of the tuning log. They are changed by a migration only (`migrations/versions/`).

Trials are kept raw: every sample, every failure. Derived are `TrialRow.ranked_secs` and
`verified_machine_id` alone, because indexes need them. JSON columns hold canonical JSON text, blobs are
zlib-compressed, times are UTC. The view `tw_champions` has the best usable trial of each task.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Double, ForeignKey, Index, LargeBinary, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tunewright.tuning_logs.columns import Digest, RowId, SafeText, UtcDateTime


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
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy's)
        str: SafeText(),
        float: Double(),
        bytes: LargeBinary(),
        datetime: UtcDateTime(),
    }


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


class TargetRow(Base):
    """What code is generated for. `mcpu` and `num_threads` repeat what `target_json` says, for queries."""

    __tablename__ = "tw_targets"

    id: Mapped[int] = mapped_column(primary_key=True)
    target_json: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    mcpu: Mapped[str]
    num_threads: Mapped[int]


class WorkloadRow(Base):
    __tablename__ = "tw_workloads"

    id: Mapped[int] = mapped_column(primary_key=True)
    workload_key: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    args_json: Mapped[str]  # [[shape, dtype], ...]
    flop: Mapped[float]
    module_zlib: Mapped[bytes]


class TaskRow(Base):
    """A workload on a target."""

    __tablename__ = "tw_tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(unique=True)
    workload_id: Mapped[int] = mapped_column(ForeignKey(WorkloadRow.id), index=True)
    target_id: Mapped[int] = mapped_column(ForeignKey(TargetRow.id), index=True)


class SessionRow(Base):
    __tablename__ = "tw_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(unique=True)
    model_name: Mapped[str]
    target_id: Mapped[int] = mapped_column(ForeignKey(TargetRow.id))
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


class SetupRow(Base):
    """What the trials of a batch have in common: how they were chosen and measured."""

    __tablename__ = "tw_setups"

    id: Mapped[int] = mapped_column(primary_key=True)
    setup_key: Mapped[str] = mapped_column(unique=True)  # digest of all that follows
    strategy: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    model_id: Mapped[str | None]  # no foreign key, so that models can be pruned
    code_version: Mapped[str]
    schema_version: Mapped[int]
    evaluator_json: Mapped[str]


class DictionaryRow(Base):
    """A preset dictionary of zlib: the first trace, or the first features, of a task.

    Those of the task's other trials differ from it in little, and take a quarter of the bytes.
    """

    __tablename__ = "tw_dictionaries"
    __table_args__ = (UniqueConstraint("task_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.id))
    kind: Mapped[str]  # "trace", or a version of features
    content_zlib: Mapped[bytes]


_IS_USABLE = "failure_kind IS NULL AND unusable_reason IS NULL AND is_verified"


class TrialRow(Base):
    """One measured candidate. `failure_kind` is NULL for a success."""

    __tablename__ = "tw_trials"
    __table_args__ = (
        UniqueConstraint("session_id", "candidate_key"),
        # `best` reads the first few of it; the summaries count in it without touching the blobs.
        Index(
            "ix_tw_trials_usable",
            "task_id",
            "ranked_secs",
            "id",
            "machine_id",
            "verified_machine_id",
            sqlite_where=text(f"{_IS_USABLE} = 1"),
            postgresql_where=text(_IS_USABLE),
        ),
        Index("ix_tw_trials_task", "task_id", "failure_kind"),
        {"sqlite_autoincrement": True},  # a number is never given twice, even when its trial has been pruned
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey(SessionRow.id))
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.id))
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id))
    setup_id: Mapped[int] = mapped_column(ForeignKey(SetupRow.id))
    trial_index: Mapped[int]
    candidate_key: Mapped[str] = mapped_column(Digest)
    parent_key: Mapped[str | None] = mapped_column(Digest)
    origin: Mapped[str]
    failure_kind: Mapped[str | None]
    failure_message: Mapped[str | None]
    is_verified: Mapped[bool]
    # With which machine's software its outputs were last found right; NULL where they never were.
    verified_machine_id: Mapped[int | None] = mapped_column(ForeignKey(MachineRow.id))
    run_secs_json: Mapped[str]  # raw samples; of a pruned candidate the censored one
    # Derived: median of the newest race, else of run_secs_json; NULL for a failure.
    ranked_secs: Mapped[float | None]
    unusable_reason: Mapped[str | None]  # set: in quarantine, never best again
    build_secs: Mapped[float]
    wall_secs: Mapped[float]  # building included: the rest is what it cost on the device
    steal_ratio: Mapped[float | None]
    object_key: Mapped[str | None]  # digest of the machine code
    is_duplicate: Mapped[bool]  # run_secs_json is an earlier trial's of equal machine code
    yardstick_secs: Mapped[float | None]  # what the reference kernel took around the batch
    is_noisy: Mapped[bool]
    predicted_score: Mapped[float | None]
    finished_at: Mapped[datetime]
    dictionary_id: Mapped[int] = mapped_column(ForeignKey(DictionaryRow.id))
    trace_zlib: Mapped[bytes]


class FeatureRow(Base):
    """The cost model's input of a trial: float32 little-endian (n_rows, n_features), C order."""

    __tablename__ = "tw_features"

    trial_id: Mapped[int] = mapped_column(RowId, ForeignKey(TrialRow.id), primary_key=True)
    feature_version: Mapped[str]
    n_rows: Mapped[int]
    n_features: Mapped[int]
    dictionary_id: Mapped[int] = mapped_column(ForeignKey(DictionaryRow.id))
    values_zlib: Mapped[bytes]


class RaceRow(Base):
    """One final interleaved race of a trial against the other contenders of its task."""

    __tablename__ = "tw_races"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(RowId, ForeignKey(TrialRow.id), index=True)
    run_secs_json: Mapped[str]
    raced_at: Mapped[datetime]


class VerificationRow(Base):
    """One time that a stored record was replayed and its outputs were compared again.

    `failure_kind` is NULL where they were right. The machine's row says with which software.
    """

    __tablename__ = "tw_verifications"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(RowId, ForeignKey(TrialRow.id), index=True)
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id))
    failure_kind: Mapped[str | None]
    message: Mapped[str | None]
    verified_at: Mapped[datetime]


class PeakRow(Base):
    """What a machine can do at most; the newest of a machine and target counts."""

    __tablename__ = "tw_peaks"

    id: Mapped[int] = mapped_column(primary_key=True)
    machine_id: Mapped[int] = mapped_column(ForeignKey(MachineRow.id), index=True)
    target_id: Mapped[int] = mapped_column(ForeignKey(TargetRow.id))
    flop_per_sec: Mapped[float]
    bandwidths_json: Mapped[str]  # [[bytes of the working set, bytes per second], ...]
    measured_at: Mapped[datetime]


class ModelRow(Base):
    """A trained cost model."""

    __tablename__ = "tw_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    feature_version: Mapped[str]
    n_records: Mapped[int]
    metrics_json: Mapped[str]
    trained_at: Mapped[datetime]
    booster_ubj: Mapped[bytes]
