"""Targets, setups and dictionaries of their own make a trial a third as large; verifications are kept.

Every table that changes is made anew and filled from the old one, with the same ids. A log on a server is
always fresh here: earlier versions knew SQLite only.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_RESHAPED = ("features", "races", "trials", "session_tasks", "peaks", "sessions", "tasks")  # children first
_INDEXES = ("tw_tasks_workload_id", "tw_trials_ranking", "tw_races_trial_id", "tw_peaks_machine_id")
_IS_USABLE = "failure_kind IS NULL AND unusable_reason IS NULL AND is_verified"
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ROWS_AT_ONCE = 500


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    for name in _INDEXES:
        op.drop_index(f"ix_{name}")
    for name in _RESHAPED:
        if is_sqlite:
            op.rename_table(f"tw_{name}", f"tw_old_{name}")
        else:
            op.drop_table(f"tw_{name}")
    _create_what_is_tuned()
    _create_trials()
    _create_what_belongs_to_trials()
    if is_sqlite:
        _copy_what_is_tuned()
        _copy_trials(connection)
        _copy_features(connection)
        for name in _RESHAPED:
            op.drop_table(f"tw_old_{name}")
    _create_indexes()


def _column(name: str, kind: sa.types.TypeEngine[Any], *, is_null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=is_null)


def _reference(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=f"fk_{table}_{column}_{parent}")


def _create_what_is_tuned() -> None:
    op.create_table(
        "tw_targets",
        _column("id", sa.Integer()),
        _column("target_json", sa.Text()),
        _column("kind", sa.Text()),
        _column("mcpu", sa.Text()),
        _column("num_threads", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name="pk_tw_targets"),
        sa.UniqueConstraint("target_json", name="uq_tw_targets_target_json"),
    )
    op.create_table(
        "tw_tasks",
        _column("id", sa.Integer()),
        _column("task_key", sa.Text()),
        _column("workload_id", sa.Integer()),
        _column("target_id", sa.Integer()),
        _reference("tw_tasks", "workload_id", "tw_workloads"),
        _reference("tw_tasks", "target_id", "tw_targets"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_tasks"),
        sa.UniqueConstraint("task_key", name="uq_tw_tasks_task_key"),
    )
    op.create_table(
        "tw_sessions",
        _column("id", sa.Integer()),
        _column("session_id", sa.Text()),
        _column("model_name", sa.Text()),
        _column("target_id", sa.Integer()),
        _column("strategy", sa.Text()),
        _column("seed", sa.BigInteger()),
        _column("machine_id", sa.Integer()),
        _column("created_at", sa.DateTime()),
        _column("elapsed_secs", sa.Double()),
        _reference("tw_sessions", "target_id", "tw_targets"),
        _reference("tw_sessions", "machine_id", "tw_machines"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_sessions"),
        sa.UniqueConstraint("session_id", name="uq_tw_sessions_session_id"),
    )
    op.create_table(
        "tw_session_tasks",
        _column("session_id", sa.Integer()),
        _column("task_id", sa.Integer()),
        _column("position", sa.Integer()),
        _column("weight", sa.Integer()),
        _reference("tw_session_tasks", "session_id", "tw_sessions"),
        _reference("tw_session_tasks", "task_id", "tw_tasks"),
        sa.PrimaryKeyConstraint("session_id", "task_id", name="pk_tw_session_tasks"),
    )
    op.create_table(
        "tw_peaks",
        _column("id", sa.Integer()),
        _column("machine_id", sa.Integer()),
        _column("target_id", sa.Integer()),
        _column("flop_per_sec", sa.Double()),
        _column("bandwidths_json", sa.Text()),
        _column("measured_at", sa.DateTime()),
        _reference("tw_peaks", "machine_id", "tw_machines"),
        _reference("tw_peaks", "target_id", "tw_targets"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_peaks"),
    )


def _create_trials() -> None:
    op.create_table(
        "tw_setups",
        _column("id", sa.Integer()),
        _column("setup_key", sa.Text()),
        _column("strategy", sa.Text()),
        _column("seed", sa.BigInteger()),
        _column("model_id", sa.Text(), is_null=True),
        _column("code_version", sa.Text()),
        _column("schema_version", sa.Integer()),
        _column("evaluator_json", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_tw_setups"),
        sa.UniqueConstraint("setup_key", name="uq_tw_setups_setup_key"),
    )
    op.create_table(
        "tw_dictionaries",
        _column("id", sa.Integer()),
        _column("task_id", sa.Integer()),
        _column("kind", sa.Text()),
        _column("content_zlib", sa.LargeBinary()),
        _reference("tw_dictionaries", "task_id", "tw_tasks"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_dictionaries"),
        sa.UniqueConstraint("task_id", "kind", name="uq_tw_dictionaries_task_id_kind"),
    )
    op.create_table(
        "tw_trials",
        _column("id", _ROW_ID),
        _column("session_id", sa.Integer()),
        _column("task_id", sa.Integer()),
        _column("machine_id", sa.Integer()),
        _column("setup_id", sa.Integer()),
        _column("trial_index", sa.Integer()),
        _column("candidate_key", sa.LargeBinary()),
        _column("parent_key", sa.LargeBinary(), is_null=True),
        _column("origin", sa.Text()),
        _column("failure_kind", sa.Text(), is_null=True),
        _column("failure_message", sa.Text(), is_null=True),
        _column("is_verified", sa.Boolean()),
        _column("verified_machine_id", sa.Integer(), is_null=True),
        _column("run_secs_json", sa.Text()),
        _column("ranked_secs", sa.Double(), is_null=True),
        _column("unusable_reason", sa.Text(), is_null=True),
        _column("build_secs", sa.Double()),
        _column("wall_secs", sa.Double()),
        _column("steal_ratio", sa.Double(), is_null=True),
        _column("object_key", sa.Text(), is_null=True),
        _column("is_duplicate", sa.Boolean()),
        _column("yardstick_secs", sa.Double(), is_null=True),
        _column("is_noisy", sa.Boolean()),
        _column("predicted_score", sa.Double(), is_null=True),
        _column("finished_at", sa.DateTime()),
        _column("dictionary_id", sa.Integer()),
        _column("trace_zlib", sa.LargeBinary()),
        _reference("tw_trials", "session_id", "tw_sessions"),
        _reference("tw_trials", "task_id", "tw_tasks"),
        _reference("tw_trials", "machine_id", "tw_machines"),
        _reference("tw_trials", "setup_id", "tw_setups"),
        _reference("tw_trials", "verified_machine_id", "tw_machines"),
        _reference("tw_trials", "dictionary_id", "tw_dictionaries"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_trials"),
        sa.UniqueConstraint("session_id", "candidate_key", name="uq_tw_trials_session_id_candidate_key"),
        sqlite_autoincrement=True,
    )


def _create_what_belongs_to_trials() -> None:
    op.create_table(
        "tw_features",
        _column("trial_id", _ROW_ID),
        _column("feature_version", sa.Text()),
        _column("n_rows", sa.Integer()),
        _column("n_features", sa.Integer()),
        _column("dictionary_id", sa.Integer()),
        _column("values_zlib", sa.LargeBinary()),
        _reference("tw_features", "trial_id", "tw_trials"),
        _reference("tw_features", "dictionary_id", "tw_dictionaries"),
        sa.PrimaryKeyConstraint("trial_id", name="pk_tw_features"),
    )
    op.create_table(
        "tw_races",
        _column("id", sa.Integer()),
        _column("trial_id", _ROW_ID),
        _column("run_secs_json", sa.Text()),
        _column("raced_at", sa.DateTime()),
        _reference("tw_races", "trial_id", "tw_trials"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_races"),
    )
    op.create_table(
        "tw_verifications",
        _column("id", sa.Integer()),
        _column("trial_id", _ROW_ID),
        _column("machine_id", sa.Integer()),
        _column("failure_kind", sa.Text(), is_null=True),
        _column("message", sa.Text(), is_null=True),
        _column("verified_at", sa.DateTime()),
        _reference("tw_verifications", "trial_id", "tw_trials"),
        _reference("tw_verifications", "machine_id", "tw_machines"),
        sa.PrimaryKeyConstraint("id", name="pk_tw_verifications"),
    )


def _create_indexes() -> None:
    op.create_index("ix_tw_tasks_workload_id", "tw_tasks", ["workload_id"])
    op.create_index("ix_tw_tasks_target_id", "tw_tasks", ["target_id"])
    op.create_index("ix_tw_peaks_machine_id", "tw_peaks", ["machine_id"])
    op.create_index("ix_tw_races_trial_id", "tw_races", ["trial_id"])
    op.create_index("ix_tw_verifications_trial_id", "tw_verifications", ["trial_id"])
    op.create_index("ix_tw_trials_task", "tw_trials", ["task_id", "failure_kind"])
    op.create_index(
        "ix_tw_trials_usable",
        "tw_trials",
        ["task_id", "ranked_secs", "id", "machine_id", "verified_machine_id"],
        sqlite_where=sa.text(f"{_IS_USABLE} = 1"),
        postgresql_where=sa.text(_IS_USABLE),
    )
    op.execute(
        "CREATE VIEW tw_champions AS SELECT tw_tasks.id AS task_id, best.id AS trial_id, best.ranked_secs, "
        "best.session_id, best.machine_id, best.verified_machine_id FROM tw_tasks JOIN tw_trials AS best "
        "ON best.id = (SELECT id FROM tw_trials WHERE task_id = tw_tasks.id AND failure_kind IS NULL "
        "AND unusable_reason IS NULL AND is_verified ORDER BY ranked_secs, id LIMIT 1)"
    )


def _copy_what_is_tuned() -> None:
    targets = (
        "SELECT target_json FROM tw_old_tasks UNION SELECT target_json FROM tw_old_sessions "
        "UNION SELECT target_json FROM tw_old_peaks"
    )
    op.execute(
        "INSERT INTO tw_targets (target_json, kind, mcpu, num_threads) SELECT target_json, "
        "json_extract(target_json, '$.kind'), json_extract(target_json, '$.mcpu'), "
        f"json_extract(target_json, '$.\"num-cores\"') FROM ({targets})"
    )
    target_id = "(SELECT id FROM tw_targets WHERE tw_targets.target_json = old.target_json)"
    op.execute(
        "INSERT INTO tw_tasks (id, task_key, workload_id, target_id) "
        f"SELECT id, task_key, workload_id, {target_id} FROM tw_old_tasks AS old"
    )
    op.execute(
        "INSERT INTO tw_sessions (id, session_id, model_name, target_id, strategy, seed, machine_id, "
        f"created_at, elapsed_secs) SELECT id, session_id, model_name, {target_id}, strategy, seed, "
        "machine_id, created_at, elapsed_secs FROM tw_old_sessions AS old"
    )
    op.execute("INSERT INTO tw_session_tasks SELECT * FROM tw_old_session_tasks")
    op.execute(
        "INSERT INTO tw_peaks (id, machine_id, target_id, flop_per_sec, bandwidths_json, measured_at) "
        f"SELECT id, machine_id, {target_id}, flop_per_sec, bandwidths_json, measured_at "
        "FROM tw_old_peaks AS old"
    )


def _copy_trials(connection: sa.Connection) -> None:
    setups: dict[tuple[object, ...], int] = {}
    dictionaries: dict[int, tuple[int, bytes]] = {}
    insert = _insert_statement(
        "tw_trials",
        "id session_id task_id machine_id setup_id trial_index candidate_key parent_key origin "
        "failure_kind failure_message is_verified verified_machine_id run_secs_json ranked_secs "
        "unusable_reason build_secs wall_secs steal_ratio object_key is_duplicate yardstick_secs is_noisy "
        "predicted_score finished_at "
        "dictionary_id trace_zlib",
    )
    for rows in _rows(connection, "SELECT * FROM tw_old_trials ORDER BY id"):
        new = []
        for row in rows:
            trace = zlib.decompress(row["trace_zlib"])
            dictionary_id, trace_zlib = _deflated(connection, dictionaries, row["task_id"], "trace", trace)
            parent_key = row["parent_key"]
            new.append(
                {
                    **row,
                    "setup_id": _setup_id(connection, setups, row),
                    "candidate_key": bytes.fromhex(row["candidate_key"]),
                    "parent_key": None if parent_key is None else bytes.fromhex(parent_key),
                    "verified_machine_id": row["machine_id"] if row["is_verified"] else None,
                    "dictionary_id": dictionary_id,
                    "trace_zlib": trace_zlib,
                }
            )
        connection.execute(insert, new)
    connection.execute(sa.text("INSERT INTO tw_races SELECT * FROM tw_old_races"))


def _copy_features(connection: sa.Connection) -> None:
    by_version: dict[str, dict[int, tuple[int, bytes]]] = {}
    insert = _insert_statement(
        "tw_features", "trial_id feature_version n_rows n_features dictionary_id values_zlib"
    )
    query = (
        "SELECT f.*, t.task_id FROM tw_old_features AS f JOIN tw_old_trials AS t ON t.id = f.trial_id "
        "ORDER BY f.trial_id"
    )
    for rows in _rows(connection, query):
        new = []
        for row in rows:
            version = row["feature_version"]
            known = by_version.setdefault(version, {})
            values = zlib.decompress(row["values_zlib"])
            dictionary_id, values_zlib = _deflated(connection, known, row["task_id"], version, values)
            new.append({**row, "dictionary_id": dictionary_id, "values_zlib": values_zlib})
        connection.execute(insert, new)


def _insert_statement(table: str, columns: str) -> sa.TextClause:
    names = columns.split()
    values = ", ".join(f":{name}" for name in names)
    return sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})")


def _rows(connection: sa.Connection, query: str) -> Iterator[list[dict[str, Any]]]:
    result = connection.execute(sa.text(query)).mappings()
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield [dict(row) for row in rows]


def _setup_id(connection: sa.Connection, known: dict[tuple[object, ...], int], row: dict[str, Any]) -> int:
    names = ("strategy", "seed", "model_id", "code_version", "schema_version", "evaluator_json")
    values = tuple(row[name] for name in names)
    if values not in known:
        text = json.dumps(values, separators=(",", ":")).encode()
        key = hashlib.sha256(len(text).to_bytes(8, "big") + text).hexdigest()
        fields = dict(zip(names, values, strict=True))
        insert = _insert_statement("tw_setups", f"setup_key {' '.join(names)}")
        result = connection.execute(insert, {"setup_key": key, **fields})
        known[values] = result.lastrowid
    return known[values]


def _deflated(
    connection: sa.Connection, known: dict[int, tuple[int, bytes]], task_id: int, kind: str, content: bytes
) -> tuple[int, bytes]:
    """The id of the task's dictionary, which its first content becomes, and the compressed content."""
    if task_id not in known:
        insert = _insert_statement("tw_dictionaries", "task_id kind content_zlib")
        row = {"task_id": task_id, "kind": kind, "content_zlib": zlib.compress(content)}
        known[task_id] = (connection.execute(insert, row).lastrowid, content)
    dictionary_id, dictionary = known[task_id]
    compressor = zlib.compressobj(zdict=dictionary)
    return dictionary_id, compressor.compress(content) + compressor.flush()
