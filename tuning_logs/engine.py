"""How SQLite and PostgreSQL are opened."""

import random
import sqlite3
import time
from importlib.util import find_spec
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from tunewright.core.errors import ConfigError
from tunewright.tuning_logs.place import Place

# sqlite.org/wal.html#walresetbug: before these releases a checkpoint that races a commit loses pages.
_WAL_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
_FIRST_WAL_FIXED = (3, 53, 0)
_CONNECT_TIMEOUT_SECS = 10
_CACHE_KIB = 256 << 10  # at most; by default 2 MiB, and those of a million trials have 100 in indexes
_WRITE = "BEGIN IMMEDIATE"
_RETRY_SECS = (0.001, 0.01)  # a batch takes some ten milliseconds


def journal_mode(sqlite_version: tuple[int, int, int]) -> str:
    """`WAL` where SQLite keeps it safe with several connections, else the rollback journal `TRUNCATE`."""
    patch = _WAL_FIXED_BRANCHES.get(sqlite_version[:2])
    is_fixed = sqlite_version >= _FIRST_WAL_FIXED or (patch is not None and sqlite_version[2] >= patch)
    return "WAL" if is_fixed else "TRUNCATE"


def make_engine(
    place: Place,
    *,
    read_only: bool,
    busy_timeout_secs: float,
    mode: str = journal_mode(sqlite3.sqlite_version_info),
) -> Engine:
    """An engine with one connection, whose transactions start at once (see `writing`).

    The pool holds one connection: a second thread waits for it, and a database in memory stays one.

    Raises:
        ConfigError: the driver of PostgreSQL is not installed.
    """
    if place.server is not None:
        return _postgresql(place.server, read_only=read_only, busy_timeout_secs=busy_timeout_secs)
    database = ":memory:" if place.path is None else quote(str(place.path))
    access = "memory" if place.path is None else "rw" if read_only else "rwc"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{database}?mode={access}",
            uri=True,
            timeout=busy_timeout_secs,
            isolation_level=None,  # the driver would start transactions late; `_begin` does it
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            elif place.path is not None:
                connection.execute(f"PRAGMA journal_mode = {mode}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=busy_timeout_secs,
    )
    event.listen(engine, "begin", _Begin(busy_timeout_secs))
    return engine


def _postgresql(url: URL, *, read_only: bool, busy_timeout_secs: float) -> Engine:
    if find_spec("psycopg") is None:
        raise ConfigError(
            "a log on PostgreSQL needs the driver psycopg: pip install 'tunewright[postgresql]'"
        )
    settings = f"-c lock_timeout={int(busy_timeout_secs * 1000)}"
    if read_only:
        settings += " -c default_transaction_read_only=on"
    return create_engine(
        url,
        connect_args={"options": settings, "connect_timeout": _CONNECT_TIMEOUT_SECS},
        pool_size=1,
        max_overflow=0,
        pool_timeout=busy_timeout_secs,
        pool_pre_ping=True,  # a session lasts for hours; servers restart
    )


def writing(engine: Engine) -> Engine:
    """The same engine with transactions that take SQLite's write lock when they begin.

    A transaction that reads first and writes later fails with SQLITE_BUSY at once, whatever the time-out.
    """
    return engine.execution_options(tw_begin=_WRITE)


class _Begin:
    """Begins a transaction of SQLite, and waits for the write lock where it is for writing.

    SQLite's own waiting is not fair: who has waited long asks ten times a second, who comes new a thousand
    times, so that one of 16 writers was seen to wait for 30 s. Here all ask equally often.
    """

    def __init__(self, busy_timeout_secs: float) -> None:
        self._busy_timeout_secs = busy_timeout_secs

    def __call__(self, connection: Connection) -> None:
        statement = str(connection.get_execution_options().get("tw_begin", "BEGIN"))
        if statement != _WRITE:
            connection.exec_driver_sql(statement)
            return
        deadline = time.monotonic() + self._busy_timeout_secs
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        try:
            while not self._has_begun(connection, is_last=time.monotonic() >= deadline):
                time.sleep(random.uniform(*_RETRY_SECS))
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self._busy_timeout_secs * 1000)}")

    def _has_begun(self, connection: Connection, *, is_last: bool) -> bool:
        try:
            connection.exec_driver_sql(_WRITE)
        except OperationalError as exc:
            code = getattr(exc.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if is_last or code != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True
