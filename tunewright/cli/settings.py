"""The option of every command that names the tuning log."""

from typing import Annotated

import typer

from tunewright.core.log_url import LOG_VARIABLE
from tunewright.core.log_url import file_url as file_url
from tunewright.core.log_url import log_url as log_url

LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="URL",
        help=f"Tuning log, FILE, sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE; "
        f"else ${LOG_VARIABLE}, else in the user's data directory.",
        show_default=False,
    ),
]
