"""Where the log lives, how SQLite is opened, and what its errors mean for people."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from tunewright.core.errors import ConfigError, StoreBusyError, StoreError

# sqlite.org/wal.html#walresetbug: before these releases a checkpoint that races a commit loses pages.
_WAL_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
_FIRST_WAL_FIXED = (3, 53, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tuning log is; `path` is None for one in memory."""

    path: Path | None

    @classmethod
    def from_url(cls, url: str) -> "Place":
        """Read `sqlite:///FILE` or `sqlite://` (in memory).

        Raises:
            ConfigError: not a URL, or not of SQLite.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise ConfigError(f"'{url}' is not a tuning log URL: write sqlite:///FILE") from exc
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(
                f"tuning logs are kept in SQLite, not '{parsed.drivername}': write sqlite:///FILE"
            )
        if parsed.host is not None or parsed.query:
            raise ConfigError(
                f"'{url}' is not a tuning log URL: write sqlite:///FILE, three slashes, %3F for a '?'"
            )
        if not parsed.database or parsed.database == ":memory:":
            return cls(None)
        return cls(Path(parsed.database).expanduser().absolute())

    def __str__(self) -> str:
        return "in memory" if self.path is None else str(self.path)


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
    """
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


def writing(engine: Engine) -> Engine:
    """The same engine with transactions that take the write lock when they begin.

    A transaction that reads first and writes later fails with SQLITE_BUSY at once, whatever the time-out.
    """
    return engine.execution_options(tw_begin="BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get("tw_begin", "BEGIN")))


_REMEDIES = {
    sqlite3.SQLITE_READONLY: "cannot be written: make it and its folder writable, or name another with --log",
    sqlite3.SQLITE_PERM: "cannot be read: ask its owner for access, or name another with --log",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened, or its journal cannot be made beside it: "
    "check the rights of the file and of its folder, or name another with --log",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space and repeat the command; "
    "nothing that was recorded is lost",
    sqlite3.SQLITE_IOERR: "cannot be read or written (input/output error): "
    "check the disk's health, space and quota, then repeat the command",
    sqlite3.SQLITE_CORRUPT: "is damaged (cut off or overwritten): restore a copy, or name another with --log",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database: name another file with --log",
}


@contextmanager
def store_errors(place: Place, *, busy_timeout_secs: float) -> Iterator[None]:
    """Turn errors of the database into `StoreError`s that name the file and the remedy."""
    try:
        yield
    except SQLAlchemyError as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else None
        # Extended codes carry the primary one in their low byte.
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusyError(
                f"the tuning log {place} is locked by another process (waited {busy_timeout_secs:g} s): "
                "wait until that one has finished, or name another with --log"
            ) from exc
        if code in _REMEDIES:
            raise StoreError(f"the tuning log {place} {_REMEDIES[code]}") from exc
        raise StoreError(f"the tuning log {place} refused an operation: {cause or exc}") from exc
