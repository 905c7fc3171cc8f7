"""The log's schema: made, checked, upgraded with a copy kept; every past one still opens."""

import gzip
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from log_samples import MACHINE, START, make_features, make_session, make_task

from tunewright.core.errors import SchemaVersionError, StoreError
from tunewright.core.types import FailureKind, MachinePeak, MeasureFailure, MeasureSuccess, Origin
from tunewright.tuning_logs import Race, TuningLog
from tunewright.tuning_logs.engine import make_engine
from tunewright.tuning_logs.place import Place
from tunewright.tuning_logs.schema import HEAD_REVISION, MIGRATIONS, VERSION_TABLE, ensure_schema
from tunewright.tuning_logs.tables import Base

NEXT_REVISION = f"{int(HEAD_REVISION) + 1:04}"
GOLDEN_LOGS = sorted((Path(__file__).parent / "data").glob("schema_*.db.gz"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of today's schema with one task."""
    file = tmp_path / "tuning.db"
    with TuningLog.open(f"sqlite:///{file}") as log:
        log.add_tasks([make_task()])
    return file


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [revision])


def migrations_with(tmp_path: Path, statements: str) -> Path:
    """Our migrations and one more."""
    migrations = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    (migrations / "versions" / f"r{NEXT_REVISION}_next.py").write_text(
        f"from alembic import op\nrevision = '{NEXT_REVISION}'\ndown_revision = '{HEAD_REVISION}'\n"
        f"def upgrade():\n    op.execute('ALTER TABLE tw_tasks ADD COLUMN note TEXT')\n    {statements}\n"
    )
    return migrations


def test_the_migrations_lead_to_the_tables_that_the_code_uses(path: Path) -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD_REVISION
    engine = make_engine(Place(path), read_only=True, busy_timeout_secs=1)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_schema_is_refused_in_one_sentence(path: Path, read_only: bool) -> None:
    set_revision(path, "0999")
    before = path.read_bytes()
    with pytest.raises(
        SchemaVersionError, match=r"tuning\.db was written by a newer .* 0999.*: upgrade Tunewright"
    ):
        TuningLog.open(f"sqlite:///{path}", read_only=read_only)
    assert path.read_bytes() == before
    assert [file.suffix for file in path.parent.iterdir() if not file.name.endswith("-journal")] == [".db"]


def test_an_older_schema_is_upgraded_after_a_copy(path: Path, tmp_path: Path) -> None:
    engine = make_engine(Place(path), read_only=False, busy_timeout_secs=1)
    ensure_schema(
        engine, Place(path), read_only=False, head=NEXT_REVISION, migrations=migrations_with(tmp_path, "pass")
    )
    engine.dispose()

    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT note FROM tw_tasks").fetchall() == [(None,)]
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(NEXT_REVISION,)]
    # Today's program refuses the upgraded file; the copy is a log as it was.
    with pytest.raises(SchemaVersionError):
        TuningLog.open(f"sqlite:///{path}")
    copy = path.with_name(f"tuning.db.schema-{HEAD_REVISION}.bak")
    with TuningLog.open(f"sqlite:///{copy}") as log:
        assert len(log.tasks()) == 1


def test_an_upgrade_that_fails_leaves_the_old_log(path: Path, tmp_path: Path) -> None:
    engine = make_engine(Place(path), read_only=False, busy_timeout_secs=1)
    migrations = migrations_with(tmp_path, "raise RuntimeError('power cut')")
    with pytest.raises(RuntimeError, match="power cut"):
        ensure_schema(engine, Place(path), read_only=False, head=NEXT_REVISION, migrations=migrations)
    engine.dispose()
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert len(log.tasks()) == 1


def test_an_older_schema_cannot_be_upgraded_read_only(path: Path, tmp_path: Path) -> None:
    engine = make_engine(Place(path), read_only=True, busy_timeout_secs=1)
    migrations = migrations_with(tmp_path, "pass")
    with pytest.raises(
        SchemaVersionError, match=f"has the older schema {HEAD_REVISION} and is opened read-only"
    ):
        ensure_schema(engine, Place(path), read_only=True, head=NEXT_REVISION, migrations=migrations)
    engine.dispose()


def test_an_empty_file_becomes_a_log_only_by_writing(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    path.touch()
    with pytest.raises(StoreError, match="holds no tuning log"):
        TuningLog.open(f"sqlite:///{path}", read_only=True)
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert log.tasks() == []


def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('theirs')")
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert log.tasks() == []
    with closing(sqlite3.connect(path)) as connection, connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("theirs",)]
    assert all(name.startswith("tw_") for name in tables - {"alembic_version", "sqlite_sequence"})


def test_there_is_a_golden_log_of_every_schema() -> None:
    revisions = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    assert {file.name for file in GOLDEN_LOGS} == {f"schema_{revision}.db.gz" for revision in revisions}


@pytest.mark.parametrize("golden", GOLDEN_LOGS, ids=lambda file: file.name)
def test_a_golden_log_opens_for_ever(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    path.write_bytes(gzip.decompress(golden.read_bytes()))
    task = make_task(128)
    with TuningLog.open(f"sqlite:///{path}") as log:
        ranked = log.best(task, k=5)
        trials = log.trials(task.key, with_features=True)
        [model] = log.models()
        state = log.start_session(make_session(task))
        assert log.task(task.key) == task
        assert log.races(2) == [Race((0.000195, 0.000197, 0.000196), log.races(2)[0].raced_at)]
        assert log.unusable_reason(6) == "does not replay"
        assert len(log.near_misses(task.workload.key)) == 2
        peak = log.peak(task.target, machine_fingerprint=MACHINE.fingerprint)

    assert [(r.trial.record_id, r.secs, r.is_raced) for r in ranked] == [
        (2, 0.000196, True),
        (1, 0.00021, False),
    ]
    best = trials[1].record
    assert isinstance(best.result, MeasureSuccess)
    assert best.result.run_secs == (0.00018, 0.0002, 0.00019)
    assert (best.candidate.origin, best.candidate.parent_key) == (
        Origin.MUTATION,
        trials[0].record.candidate.key,
    )
    assert (best.model_id, best.predicted_score) == ("a" * 64, 0.75)
    first = trials[0].record.result
    assert isinstance(first, MeasureSuccess)
    is_first_schema = golden.name == "schema_0001.db.gz"
    noted = (first.object_key, first.yardstick_secs, first.is_noisy)
    assert noted == (("", None, False) if is_first_schema else ("c" * 64, 0.25, True))
    assert isinstance(trials[3].record.result, MeasureFailure)
    assert trials[3].record.result.kind is FailureKind.RUN
    np.testing.assert_array_equal(trials[5].features, make_features(5))
    assert (state.num_trials, state.elapsed_secs, state.is_new) == (6, 12.5, False)
    if golden.name >= "schema_0003":
        bandwidths = ((1 << 18, 8e10), (1 << 30, 1.1e10))
        assert peak == MachinePeak(MACHINE, task.target, 3.2e11, bandwidths, START)
    else:
        assert peak is None
    assert (model.booster_ubj, model.metrics) == (b"ubj", {"rank_correlation": 0.5})


NUM_COPIES = 150


def inflate(path: Path) -> int:
    """Copy the trials of a golden log, so that its upgrade takes a while; their number."""
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(tw_trials)")]
        copied = [name for name in columns if name not in ("id", "candidate_key")]
        names = ", ".join(["candidate_key", *copied])
        for copy in range(NUM_COPIES):
            key = f"printf('%064x', id + 1000 * {copy + 1})"
            values = f"{key}, {', '.join(copied)}"
            connection.execute(f"INSERT INTO tw_trials ({names}) SELECT {values} FROM tw_trials WHERE id < 8")
        return int(connection.execute("SELECT count(*) FROM tw_trials").fetchone()[0])


def revision_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return str(connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()[0])


@pytest.mark.slow
def test_an_upgrade_that_is_killed_leaves_the_old_log_or_the_new(tmp_path: Path) -> None:
    """kill -9 at random instants of an upgrade over all schemas; then it is simply done again."""
    original = tmp_path / "original.db"
    original.write_bytes(gzip.decompress(GOLDEN_LOGS[0].read_bytes()))
    num_trials = inflate(original)
    with closing(sqlite3.connect(original)) as connection:
        keys = {key for (key,) in connection.execute("SELECT candidate_key FROM tw_trials")}
    rng = random.Random(1)
    paths = [tmp_path / f"log-{number}.db" for number in range(20)]
    arguments = []
    for path in paths:
        shutil.copy(original, path)
        arguments += [f"{rng.uniform(0, 0.3):.4f}", str(path)]
    script = str(Path(__file__).parent / "upgrade_process.py")
    subprocess.run([sys.executable, script, *arguments], check=True, timeout=120)

    revisions = {revision_of(path) for path in paths}
    assert "0001" in revisions  # some were killed before they had finished
    assert revisions <= {"0001", HEAD_REVISION}
    for path in paths:
        with TuningLog.open(f"sqlite:///{path}") as log:
            assert log.stats().num_trials == num_trials
        assert revision_of(path) == HEAD_REVISION
        with closing(sqlite3.connect(path)) as connection:
            assert {key.hex() for (key,) in connection.execute("SELECT candidate_key FROM tw_trials")} == keys
