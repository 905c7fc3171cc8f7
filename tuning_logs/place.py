"""Where a tuning log lives: a file of SQLite, a database of PostgreSQL, or memory."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tunewright.core.errors import ConfigError, StoreError

_FORMS = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"


@dataclass(frozen=True, slots=True)
class Place:
    """A file, or a database of a server; neither: memory."""

    path: Path | None
    server: URL | None = None

    @classmethod
    def from_url(cls, url: str) -> "Place":
        """Read `sqlite:///FILE`, `sqlite://` (in memory) or `postgresql+psycopg://USER@HOST/DATABASE`.

        Raises:
            ConfigError: not a URL, or not one of those.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise ConfigError(f"'{url}' is not a tuning log URL: {_FORMS}") from exc
        match parsed.get_backend_name():
            case "sqlite":
                return cls._of_sqlite(url, parsed)
            case "postgresql":
                return cls._of_postgresql(parsed)
        raise ConfigError(
            f"tuning logs are kept in SQLite or PostgreSQL, not '{parsed.drivername}': {_FORMS}"
        )

    @classmethod
    def _of_sqlite(cls, url: str, parsed: URL) -> "Place":
        if parsed.host is not None or parsed.query:
            raise ConfigError(
                f"'{url}' is not a tuning log URL: write sqlite:///FILE, three slashes, %3F for a '?'"
            )
        if not parsed.database or parsed.database == ":memory:":
            return cls(None)
        return cls(Path(parsed.database).expanduser().absolute())

    @classmethod
    def _of_postgresql(cls, parsed: URL) -> "Place":
        if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
            raise ConfigError(
                f"PostgreSQL is reached through psycopg 3, not '{parsed.drivername}': "
                "write postgresql+psycopg://USER@HOST/DATABASE"
            )
        if not parsed.database:
            raise ConfigError(f"'{parsed.render_as_string()}' names no database: {_FORMS}")
        return cls(None, parsed.set(drivername="postgresql+psycopg"))

    @property
    def is_memory(self) -> bool:
        return self.path is None and self.server is None

    def prepare(self, *, read_only: bool) -> None:
        """Make the folders of a file that may be made.

        Raises:
            ConfigError: a folder stands there, or (`read_only`) nothing.
            StoreError: it cannot be reached.
        """
        path = self.path
        if path is None:
            return
        try:
            if path.is_dir():
                raise ConfigError(f"{path} is a folder, not a tuning log: name a file with --log")
            if read_only and not path.exists():
                raise ConfigError(
                    f"there is no tuning log at {path}: name one with --log, "
                    "or make it with `tunewright tune`"
                )
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(
                f"the tuning log {path} cannot be reached ({exc.strerror}): name another with --log"
            ) from exc

    def __str__(self) -> str:
        if self.server is not None:
            return self.server.render_as_string(hide_password=True)
        return "in memory" if self.path is None else str(self.path)
