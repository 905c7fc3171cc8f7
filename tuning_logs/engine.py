"""How SQLite and PostgreSQL are opened."""

import sqlite3
from importlib.util import find_spec
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from tunewright.core.errors import ConfigError
from tunewright.tuning_logs.place import Place

# sqlite.org/wal.html#walresetbug: before these releases a checkpoint that races a commit loses pages.
_WAL_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
_FIRST_WAL_FIXED = (3, 53, 0)
_CONNECT_TIMEOUT_SECS = 10


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
    event.listen(engine, "begin", _begin)
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
    return engine.execution_options(tw_begin="BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get("tw_begin", "BEGIN")))
