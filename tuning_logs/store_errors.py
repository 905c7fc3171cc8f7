"""What the errors of a database mean for people, and which of them pass by themselves."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tunewright.core.errors import StoreBusyError, StoreError
from tunewright.tuning_logs.place import Place

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


# SQLSTATE codes of PostgreSQL, or their classes (postgresql.org/docs/current/errcodes-appendix.html).
_SERVER_REMEDIES = {
    "08": "cannot be reached: check the server and the URL, then repeat the command",
    "25006": "cannot be written: it is a standby or read-only: name the primary server with --log",
    "28": "refused the login: check user and password (PGPASSWORD, or ~/.pgpass) of --log",
    "3D000": "does not exist: make it with createdb, or name another with --log",
    "42501": "refused, as this role may not do that: ask for its rights (docs/team-log.md lists them)",
    "53100": "cannot grow, the server's disk is full: free some space and repeat the command; "
    "nothing that was recorded is lost",
    "53300": "takes no more connections: end some, or repeat the command later",
    "57P": "is shutting down or starting: repeat the command in a moment",
}
_SERVER_BUSY = {"55P03"}  # lock_not_available
_SERVER_CONFLICTS = {"23505", "40001", "40P01"}  # unique violation, serialization failure, deadlock


def is_conflict(error: DBAPIError) -> bool:
    """Whether the transaction met another writer's, and may be done again."""
    return getattr(error.orig, "sqlstate", None) in _SERVER_CONFLICTS


@contextmanager
def store_errors(place: Place, *, busy_timeout_secs: float) -> Iterator[None]:
    """Turn errors of the database into `StoreError`s that name the place and the remedy."""
    try:
        yield
    except SQLAlchemyError as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else None
        if cause is None:
            is_busy, remedy = False, ""  # refused before it reached the database
        elif place.server is not None:
            is_busy, remedy = _judge_server(cause)
        else:
            is_busy, remedy = _judge_file(cause)
        if is_busy:
            raise StoreBusyError(
                f"the tuning log {place} is locked by another process (waited {busy_timeout_secs:g} s): "
                "wait until that one has finished, or name another with --log"
            ) from exc
        if remedy:
            raise StoreError(f"the tuning log {place} {remedy}") from exc
        raise StoreError(f"the tuning log {place} refused an operation: {cause or exc}") from exc


def file_remedy(cause: BaseException) -> str:
    """What the matter is with a file of SQLite and what to do, or the error's own words."""
    return _judge_file(cause)[1] or f"refused an operation: {cause}"


def _judge_file(cause: BaseException) -> tuple[bool, str]:
    # Extended codes carry the primary one in their low byte.
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), _REMEDIES.get(code, "")


def _judge_server(cause: BaseException) -> tuple[bool, str]:
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # The driver itself gave up: no server there, or the connection broke.
        reason = _first_line(cause)
        for words, code in (("authentication failed", "28"), ("does not exist", "3D000")):
            if words in reason:
                return False, f"{_SERVER_REMEDIES[code]} ({reason})"
        return False, f"{_SERVER_REMEDIES['08']} ({reason})"
    if state in _SERVER_BUSY:
        return True, ""
    for prefix, remedy in _SERVER_REMEDIES.items():
        if state.startswith(prefix):
            return False, f"{remedy} ({_first_line(cause)})"
    return False, ""


def _first_line(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else "no reason given"
