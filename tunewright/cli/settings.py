"""Where commands find things: the tuning log's place, from `--log`, the environment, or the default."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

LOG_VARIABLE = "TUNEWRIGHT_LOG"

LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="URL",
        help=f"Tuning log, sqlite:///FILE or FILE; else ${LOG_VARIABLE}, else in the user's data directory.",
        show_default=False,
    ),
]


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
    return f"sqlite:///{quote(str(path.expanduser().absolute()))}"


def _default_log() -> Path:
    import platformdirs

    return platformdirs.user_data_path("tunewright") / "tuning.db"
