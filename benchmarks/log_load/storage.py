"""What is asked of the database itself: how much space a log takes, and which database it is."""

import sqlite3
from pathlib import Path

_SQLITE = "sqlite:///"


def storage_bytes(url: str) -> int:
    """What a closed log takes on disk: its file, or its tables with their indexes and out-of-line values."""
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE))
        files = [path.with_name(path.name + suffix) for suffix in ("", "-journal", "-wal", "-shm")]
        return sum(file.stat().st_size for file in files if file.exists())
    query = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
        "WHERE c.relkind = 'r' AND c.relname LIKE 'tw\\_%' AND pg_table_is_visible(c.oid)"
    )
    return int(_postgres_answer(url, query))


def database_name(url: str) -> str:
    """With its version."""
    if url.startswith("sqlite:"):
        return f"SQLite {sqlite3.sqlite_version}"
    return f"PostgreSQL {_postgres_answer(url, 'SHOW server_version')}"


def _postgres_answer(url: str, query: str) -> str:
    import psycopg

    try:
        with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
            row = connection.execute(query.encode()).fetchone()
    except psycopg.Error as exc:
        raise ValueError(f"the PostgreSQL server gives no answer: {exc}") from exc
    if row is None:
        raise ValueError(f"no answer to {query!r}")
    return str(row[0])
