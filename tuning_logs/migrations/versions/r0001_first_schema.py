"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_what_is_tuned()
    _create_trials()
    op.create_table(
        "tw_models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("feature_version", sa.Text(), nullable=False),
        sa.Column("n_records", sa.Integer(), nullable=False),
        sa.Column("metrics_json", sa.Text(), nullable=False),
        sa.Column("trained_at", sa.DateTime(), nullable=False),
        sa.Column("booster_ubj", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tw_models"),
        sa.UniqueConstraint("model_id", name="uq_tw_models_model_id"),
    )


def _create_what_is_tuned() -> None:
    op.create_table(
        "tw_machines",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("machine_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("cpu_model", sa.Text(), nullable=False),
        sa.Column("num_cpus", sa.Integer(), nullable=False),
        sa.Column("has_smt", sa.Boolean(), nullable=False),
        sa.Column("governor", sa.Text(), nullable=False),
        sa.Column("os_kernel", sa.Text(), nullable=False),
        sa.Column("tvm_version", sa.Text(), nullable=False),
        sa.Column("tvm_ffi_version", sa.Text(), nullable=False),
        sa.Column("llvm_version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tw_machines"),
        sa.UniqueConstraint("machine_key", name="uq_tw_machines_machine_key"),
    )
    op.create_index("ix_tw_machines_fingerprint", "tw_machines", ["fingerprint"])
    op.create_table(
        "tw_workloads",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workload_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("args_json", sa.Text(), nullable=False),
        sa.Column("flop", sa.Double(), nullable=False),
        sa.Column("module_zlib", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tw_workloads"),
        sa.UniqueConstraint("workload_key", name="uq_tw_workloads_workload_key"),
    )
    op.create_table(
        "tw_tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_key", sa.Text(), nullable=False),
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("target_json", sa.Text(), nullable=False),
        sa.Column("mcpu", sa.Text(), nullable=False),
        sa.Column("num_threads", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload_id"], ["tw_workloads.id"], name="fk_tw_tasks_workload_id_tw_workloads"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tw_tasks"),
        sa.UniqueConstraint("task_key", name="uq_tw_tasks_task_key"),
    )
    op.create_index("ix_tw_tasks_workload_id", "tw_tasks", ["workload_id"])
    op.create_table(
        "tw_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("target_json", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("elapsed_secs", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["tw_machines.id"], name="fk_tw_sessions_machine_id_tw_machines"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tw_sessions"),
        sa.UniqueConstraint("session_id", name="uq_tw_sessions_session_id"),
    )
    op.create_table(
        "tw_session_tasks",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["tw_sessions.id"], name="fk_tw_session_tasks_session_id_tw_sessions"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tw_tasks.id"], name="fk_tw_session_tasks_task_id_tw_tasks"),
        sa.PrimaryKeyConstraint("session_id", "task_id", name="pk_tw_session_tasks"),
    )


def _create_trials() -> None:
    op.create_table(
        "tw_trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("trial_index", sa.Integer(), nullable=False),
        sa.Column("candidate_key", sa.Text(), nullable=False),
        sa.Column("parent_key", sa.Text(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("run_secs_json", sa.Text(), nullable=False),
        sa.Column("ranked_secs", sa.Double(), nullable=True),
        sa.Column("unusable_reason", sa.Text(), nullable=True),
        sa.Column("build_secs", sa.Double(), nullable=False),
        sa.Column("wall_secs", sa.Double(), nullable=False),
        sa.Column("steal_ratio", sa.Double(), nullable=True),
        sa.Column("evaluator_json", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=True),
        sa.Column("predicted_score", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("trace_zlib", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["tw_sessions.id"], name="fk_tw_trials_session_id_tw_sessions"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tw_tasks.id"], name="fk_tw_trials_task_id_tw_tasks"),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["tw_machines.id"], name="fk_tw_trials_machine_id_tw_machines"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tw_trials"),
        sa.UniqueConstraint("session_id", "candidate_key", name="uq_tw_trials_session_id_candidate_key"),
    )
    op.create_index(
        "ix_tw_trials_ranking",
        "tw_trials",
        ["task_id", "is_verified", "unusable_reason", "ranked_secs", "failure_kind", "machine_id"],
    )
    op.create_table(
        "tw_features",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("feature_version", sa.Text(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("n_features", sa.Integer(), nullable=False),
        sa.Column("values_zlib", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["tw_trials.id"], name="fk_tw_features_trial_id_tw_trials"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_tw_features"),
    )
    op.create_table(
        "tw_races",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("run_secs_json", sa.Text(), nullable=False),
        sa.Column("raced_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["tw_trials.id"], name="fk_tw_races_trial_id_tw_trials"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_races"),
    )
    op.create_index("ix_tw_races_trial_id", "tw_races", ["trial_id"])
