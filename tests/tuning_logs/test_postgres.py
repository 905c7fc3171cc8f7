"""What is PostgreSQL's own: many writers at once, roles, a server that is not there."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from log_samples import make_features, make_record, make_session, make_task, success
from postgres_server import PostgresServer

from tunewright.core.errors import ConfigError, StoreBusyError, StoreError
from tunewright.tuning_logs import TuningLog

HERE = Path(__file__).parent
TASK = make_task()


def start_writers(url: str, count: int, *, num_batches: int, batch_size: int, stride: int) -> list[str]:
    """Run writers side by side, each on its own numbers; what each of them acknowledged."""
    script = [sys.executable, str(HERE / "writer_process.py"), url]
    writers = [
        subprocess.Popen(
            [*script, str(number * stride), str(num_batches), str(batch_size)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    outputs = [writer.communicate(timeout=240) for writer in writers]
    for writer, (_, noise) in zip(writers, outputs, strict=True):
        assert (writer.returncode, noise) == (0, "")
    return [output for output, _ in outputs]


@pytest.mark.slow
def test_many_writers_at_once(postgres_url: str) -> None:
    start_writers(postgres_url, 6, num_batches=10, batch_size=10, stride=100)
    with TuningLog.open(postgres_url, read_only=True) as log:
        trials = log.trials(TASK.key, with_features=True)
    assert sorted(trial.record.trial_index for trial in trials) == list(range(600))
    assert all(trial.features is not None for trial in trials)


@pytest.mark.slow
def test_writers_that_store_the_same_store_it_once(postgres_url: str) -> None:
    """They meet in a fresh log: its schema, task, session, dictionary and trials are everybody's."""
    start_writers(postgres_url, 4, num_batches=5, batch_size=10, stride=0)
    with TuningLog.open(postgres_url, read_only=True) as log:
        assert len(log.tasks()) == len(log.sessions()) == 1
        assert sorted(trial.record.trial_index for trial in log.trials(TASK.key)) == list(range(50))


def test_reading_never_writes(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="holds no tuning log"):
        TuningLog.open(postgres_url, read_only=True)
    TuningLog.open(postgres_url).close()
    with TuningLog.open(postgres_url, read_only=True) as log:
        with pytest.raises(StoreError, match="read-only"):
            log.add_tasks([TASK])
        assert log.tasks() == []


def test_a_reader_needs_no_right_but_to_read(postgres: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.split("?")[0].split("/")[-1]
    with TuningLog.open(postgres_url) as log:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
        log.append([(make_record(TASK, 1), make_features(1))])
    postgres.run("CREATE ROLE ci LOGIN")
    postgres.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ci", database=database)
    ci_url = postgres.url(database, user="ci")

    with TuningLog.open(ci_url, read_only=True) as log:
        assert len(log.best(TASK)) == 1
        assert log.stats().num_trials == 1
    with pytest.raises(StoreError, match="cannot be written by the role ci: ask for the rights of a tuner"):
        TuningLog.open(ci_url)


def test_a_tuner_needs_no_right_to_change_the_schema(postgres: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.split("?")[0].split("/")[-1]
    TuningLog.open(postgres_url).close()
    postgres.run("CREATE ROLE tuner LOGIN")
    grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tuner"
    postgres.run(grant, database=database)
    postgres.run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tuner", database=database)
    with TuningLog.open(postgres.url(database, user="tuner")) as log:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
        [trial] = log.append([(make_record(TASK, 1, success(0.1)), make_features(1))])
        log.add_race(trial.record_id, [0.2], trial.record.finished_at)
        assert log.best(TASK)[0].secs == 0.2


def test_a_role_that_may_not_make_the_schema(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.run("CREATE ROLE stranger LOGIN")
    database = postgres_url.split("?")[0].split("/")[-1]
    with pytest.raises(StoreError, match="this role may not do that"):
        TuningLog.open(postgres.url(database, user="stranger"))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be reached: check the server and the URL"):
        TuningLog.open(f"postgresql+psycopg://someone:secret@/log?host={tmp_path}")


def test_a_database_that_is_not_there(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match="does not exist: make it with createdb"):
        TuningLog.open(postgres.url("nowhere"))


def test_no_message_tells_the_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        TuningLog.open(f"postgresql+psycopg://someone:secret@/log?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_without_the_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright.tuning_logs.engine.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'tunewright\[postgresql\]'"):
        TuningLog.open("postgresql+psycopg://someone@localhost/log")


def test_who_waits_too_long_for_a_lock_is_told_so(postgres_url: str) -> None:
    with TuningLog.open(postgres_url) as log:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
    with (
        psycopg.connect(postgres_url.replace("+psycopg", "")) as other,
        TuningLog.open(postgres_url, busy_timeout_secs=0.05) as log,
    ):
        other.execute("LOCK TABLE tw_trials IN EXCLUSIVE MODE")
        with pytest.raises(StoreBusyError, match="is locked by another process"):
            log.append([(make_record(TASK, 1), None)])
        other.rollback()
        assert len(log.append([(make_record(TASK, 1), None)])) == 1


def test_a_connection_that_broke_is_made_anew(postgres: PostgresServer, postgres_url: str) -> None:
    database = postgres_url.split("?")[0].split("/")[-1]
    with TuningLog.open(postgres_url) as log:
        log.add_tasks([TASK])
        with psycopg.connect(postgres.url("postgres").replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
            )
        assert len(log.tasks()) == 1
