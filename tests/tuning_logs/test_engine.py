"""How files are opened, who may write, and what people are told when it fails."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from log_samples import make_features, make_record, make_session, make_task

from tunewright.core.errors import ConfigError, RetryableError, StoreBusyError, StoreError
from tunewright.tuning_logs import TuningLog
from tunewright.tuning_logs.engine import journal_mode, make_engine, writing
from tunewright.tuning_logs.place import Place

HERE = Path(__file__).parent
TASK = make_task()


def write_some(path: Path, *, num_trials: int = 3) -> None:
    with TuningLog.open(f"sqlite:///{path}") as log:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
        log.append([(make_record(TASK, n), make_features(n)) for n in range(num_trials)])


def start_writer(
    path: Path, *, first_number: int, num_batches: int, batch_size: int
) -> subprocess.Popen[str]:
    script = [sys.executable, str(HERE / "writer_process.py"), str(path)]
    arguments = [str(first_number), str(num_batches), str(batch_size)]
    return subprocess.Popen([*script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "TRUNCATE"),
        ((3, 44, 5), "TRUNCATE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 9), "TRUNCATE"),
        ((3, 50, 6), "TRUNCATE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 2), "TRUNCATE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "TRUNCATE"),
        ((3, 53, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_wal_only_where_its_reset_bug_is_fixed(version: tuple[int, int, int], mode: str) -> None:
    assert journal_mode(version) == mode


@pytest.mark.parametrize("mode", ["TRUNCATE", "WAL"])
def test_settings_of_a_connection(tmp_path: Path, mode: str) -> None:
    place = Place(tmp_path / "tuning.db")
    engine = make_engine(place, read_only=False, busy_timeout_secs=1.5, mode=mode)
    with engine.begin() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas]
    engine.dispose()
    assert values == [mode.lower(), 2, 1, 1500]


def test_a_writing_transaction_takes_the_lock_when_it_begins(tmp_path: Path) -> None:
    place = Place(tmp_path / "tuning.db")
    write_some(tmp_path / "tuning.db")
    engine = make_engine(place, read_only=False, busy_timeout_secs=0)
    other = sqlite3.connect(tmp_path / "tuning.db", isolation_level=None, timeout=0)
    with engine.begin():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    with writing(engine).begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tuning.db", "write sqlite:///FILE"),
        ("mysql://host/db", "kept in SQLite or PostgreSQL, not 'mysql'"),
        ("postgresql+psycopg2://host/db", "through psycopg 3, not 'postgresql.psycopg2'"),
        ("postgresql+psycopg://host", "names no database"),
        ("sqlite://tuning.db", "three slashes"),
        ("sqlite:///tuning.db?mode=ro", "%3F"),
    ],
)
def test_what_is_not_a_log_url(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TuningLog.open(url)


def test_a_locked_log_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    write_some(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for read_only in (False, True):
        with pytest.raises(StoreBusyError, match=r"tuning\.db is locked by another process") as caught:
            TuningLog.open(f"sqlite:///{path}", read_only=read_only, busy_timeout_secs=0.01)
        assert isinstance(caught.value, RetryableError)
    other.execute("ROLLBACK")
    other.close()
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert len(log.trials(TASK.key)) == 3


def test_a_missing_log_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tuning log at"):
        TuningLog.open(f"sqlite:///{tmp_path}/sub/tuning.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_log_opened_for_reading_cannot_be_written(tmp_path: Path) -> None:
    write_some(tmp_path / "tuning.db")
    with TuningLog.open(f"sqlite:///{tmp_path}/tuning.db", read_only=True) as log:
        with pytest.raises(StoreError, match="cannot be written"):
            log.add_elapsed("session-1", 1.0)
        assert log.sessions()[0].elapsed_secs == 0


def test_a_read_only_file(
    ordinary_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    path = ordinary_folder / "tuning.db"
    with as_ordinary_user():
        write_some(path)
        path.chmod(0o444)
        with pytest.raises(StoreError, match=r"tuning\.db cannot be written: make it"):
            TuningLog.open(f"sqlite:///{path}")
        with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
            assert len(log.trials(TASK.key)) == 3


def test_a_read_only_folder(
    ordinary_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    path = ordinary_folder / "tuning.db"
    with as_ordinary_user():
        write_some(path)
        for journal in ordinary_folder.glob("*-journal"):
            journal.unlink()
        ordinary_folder.chmod(0o555)
        with pytest.raises(StoreError, match=r"its journal cannot be made|cannot be written"):
            TuningLog.open(f"sqlite:///{path}")
        with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
            assert len(log.trials(TASK.key)) == 3
        with pytest.raises(StoreError, match=r"new\.db cannot be opened"):
            TuningLog.open(f"sqlite:///{ordinary_folder}/new.db")
        with pytest.raises(StoreError, match="cannot be reached"):
            TuningLog.open(f"sqlite:///{ordinary_folder}/sub/new.db")


def test_an_unreadable_file(
    ordinary_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    path = ordinary_folder / "tuning.db"
    with as_ordinary_user():
        write_some(path)
        path.chmod(0)
        for read_only in (False, True):
            with pytest.raises(StoreError, match=r"tuning\.db cannot be opened"):
                TuningLog.open(f"sqlite:///{path}", read_only=read_only)


def test_a_folder_or_a_file_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        TuningLog.open(f"sqlite:///{tmp_path}")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be reached"):
        TuningLog.open(f"sqlite:///{tmp_path}/file/tuning.db")


@pytest.mark.parametrize("read_only", [False, True])
def test_not_a_database(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database\n" * 50)
    with pytest.raises(StoreError, match=r"notes\.txt is not an SQLite database"):
        TuningLog.open(f"sqlite:///{path}", read_only=read_only)
    assert path.read_text().startswith("these are my notes")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_truncated_file(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "tuning.db"
    write_some(path, num_trials=50)
    whole = path.read_bytes()
    for size in (50, 100, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"tuning\.db is (damaged|not an SQLite database)"):
            TuningLog.open(f"sqlite:///{path}", read_only=read_only)
    path.write_bytes(whole)
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert len(log.trials(TASK.key)) == 50


@pytest.mark.slow
def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    # Both make the file, too.
    writers = [start_writer(path, first_number=first, num_batches=40, batch_size=4) for first in (0, 100_000)]
    for writer in writers:
        output, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors, len(output.splitlines())) == (0, "", 40)
    with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
        assert len(log.session_trials("session-1")) == 320
    assert integrity(path) == "ok"


def _run_until_full(folder: Path, limited_by: str, *, wrapper: tuple[str, ...] = ()) -> list[object]:
    script = [sys.executable, str(HERE / "disk_full_process.py"), str(folder), limited_by]
    process = subprocess.run([*wrapper, *script], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert isinstance(result, list)
    return result


def _can_mount() -> bool:
    try:
        probe = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
        )
    except FileNotFoundError:
        return False
    return probe.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _can_mount(), reason="this user cannot mount a small filesystem")
def test_a_full_disk(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=600k tmpfs "$0" && exec "$@"'
    wrapper = ("unshare", "-rm", "sh", "-c", mount, str(tmp_path))
    error, message, acknowledged, found, total = _run_until_full(tmp_path, "filesystem", wrapper=wrapper)
    assert error == "StoreError"
    assert "disk is full: free some space" in str(message)
    assert isinstance(acknowledged, int) and acknowledged > 0
    assert (found, total) == (acknowledged, acknowledged + 8)


@pytest.mark.slow
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    error, message, acknowledged, found, total = _run_until_full(tmp_path, "file-size-limit")
    assert error == "StoreError"
    assert str(tmp_path / "tuning.db") in str(message)
    assert isinstance(acknowledged, int) and acknowledged > 0
    assert (found, total) == (acknowledged, acknowledged + 8)
