"""The schema's version: make it, check it, upgrade it with a copy kept beside."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from tunewright.core.errors import SchemaVersionError, StoreError
from tunewright.tuning_logs.engine import make_engine, writing
from tunewright.tuning_logs.place import Place
from tunewright.tuning_logs.store_errors import store_errors
from tunewright.tuning_logs.upkeep import copy_file

VERSION_TABLE = "tw_alembic_version"
HEAD_REVISION = "0004"
MIGRATIONS = Path(__file__).parent / "migrations"
# Whoever upgrades a log on a server holds this advisory lock: the number is ours alone.
_UPGRADE_LOCK = 7_710_274_665


def current_revision(connection: Connection) -> str | None:
    """The schema's revision, None where the database holds no tuning log."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()


def schema_revisions(url: str, *, busy_timeout_secs: float = 30.0) -> tuple[str | None, str]:
    """The schema that the log at `url` has, None where there is none yet, and that of this program.

    Makes and changes nothing.

    Raises:
        ConfigError, StoreError: as `TuningLog.open`.
    """
    place = Place.from_url(url)
    place.prepare(read_only=True)
    engine = make_engine(place, read_only=True, busy_timeout_secs=busy_timeout_secs)
    try:
        with store_errors(place, busy_timeout_secs=busy_timeout_secs), engine.begin() as connection:
            return current_revision(connection), HEAD_REVISION
    finally:
        engine.dispose()


def ensure_schema(
    engine: Engine, place: Place, *, read_only: bool, head: str = HEAD_REVISION, migrations: Path = MIGRATIONS
) -> None:
    """Bring the log to revision `head`; a fresh database gets its tables.

    An older log is copied to `FILE.schema-REVISION.bak` first; copies of a server's are its administrator's
    matter. All of it is one transaction under the write lock, or a server's advisory lock: a crash leaves the
    old log, and two processes that open a fresh one do not disturb each other.

    Raises:
        SchemaVersionError: the log is newer than this program, or older and `read_only`.
        StoreError: `read_only`, and the database holds no tuning log.
    """
    with engine.begin() as connection:
        revision = current_revision(connection)
    if revision == head:
        return
    if revision is not None and revision not in _known_revisions(migrations):
        raise SchemaVersionError(
            f"the tuning log {place} was written by a newer Tunewright (its schema is {revision}, "
            f"this one knows up to {head}): upgrade Tunewright, or name another log with --log"
        )
    if read_only and revision is None:
        raise StoreError(
            f"{place} holds no tuning log: name another with --log, or record into it with `tunewright tune`"
        )
    if read_only:
        raise SchemaVersionError(
            f"the tuning log {place} has the older schema {revision} and is opened read-only: "
            "upgrade it by opening it for writing once, which `tunewright tune` does"
        )
    with writing(engine).begin() as connection:
        if place.server is not None:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
        revision = current_revision(connection)
        if revision == head:
            return
        if revision is not None and place.path is not None:
            copy = place.path.with_name(f"{place.path.name}.schema-{revision}.bak")
            copy.unlink(missing_ok=True)
            copy_file(place.path, copy)
        _upgrade(connection, head, migrations)


def check_writable(engine: Engine, place: Place) -> None:
    """Notice before the first batch that nothing can be written, and write nothing.

    Goes as far as the journal in a file; asks for the right to insert on a server.

    Raises:
        StoreError: the role of the server may not insert.
    """
    if place.server is None:
        with writing(engine).connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            connection.exec_driver_sql(f"PRAGMA user_version = {version}")
            connection.rollback()
        return
    with engine.begin() as connection:
        query = text("SELECT current_user, has_table_privilege('tw_trials', 'INSERT')")
        user, may_insert = connection.execute(query).one()
    if not may_insert:
        raise StoreError(
            f"the tuning log {place} cannot be written by the role {user}: "
            "ask for the rights of a tuner (docs/team-log.md lists them), or name another with --log"
        )


def _known_revisions(migrations: Path) -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(migrations)).walk_revisions()}


def _upgrade(connection: Connection, head: str, migrations: Path) -> None:
    # Imported here: opening a log of the current schema does not pay for it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    upgrade: Callable[[Config, str], None] = command.upgrade
    upgrade(config, head)
