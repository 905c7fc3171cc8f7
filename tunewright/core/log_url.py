"""Where the tuning log is looked for: a URL or a path, the environment, or the default."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

LOG_VARIABLE = "TUNEWRIGHT_LOG"

_FILE_PREFIX = "sqlite:///"


def log_url(option: str | None, *, environ: Mapping[str, str] = os.environ) -> str:
    """The log's URL: `option` if given, else `TUNEWRIGHT_LOG`, else a file in the user's data directory.

    A plain path becomes a URL. Nothing is made or opened.
    """
    given = option or environ.get(LOG_VARIABLE)
    if not given:
        return file_url(_default_log())
    return given if "://" in given else file_url(Path(given))


def file_url(path: Path) -> str:
    """The URL of a log in a file; what a URL reads otherwise is escaped."""
    return f"{_FILE_PREFIX}{quote(str(path.expanduser().absolute()))}"


def shown_place(url: str) -> str:
    """What people may see of a log's URL: a file's path, or a server without user, password and options."""
    scheme, _, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        name = unquote(rest.removeprefix("/"))
        return str(Path(name).expanduser().absolute()) if name not in ("", ":memory:") else "in memory"
    # The password ends at the first "@", whatever it holds, as SQLAlchemy reads it.
    return f"{scheme}://{re.sub(r'^[^:/?]*(:[^@]*)?@', '', rest).partition('?')[0]}"


def _default_log() -> Path:
    import platformdirs

    return platformdirs.user_data_path("tunewright") / "tuning.db"
