"""`tunewright report`: one static page about a tuning session, or about all of the log."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import tunewright
from tunewright.cli import settings
from tunewright.cli.plot import find_session, without_collecting
from tunewright.core.errors import ConfigError

_ALL = "all"


def report(
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write: an .html file.")],
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="[SESSION|all]", help="First digits of a session's id, or all; the latest session."
        ),
    ] = None,
    log: settings.LogOption = None,
) -> None:
    """Write pictures and tables of a session, or of all, as one HTML file that loads nothing.

    A session that still runs is shown as far as it is.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"cannot report to '{output}': end its name in .html")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"cannot report to '{output}': its folder does not exist")
    from tunewright.plots import log_report, session_report
    from tunewright.tuning_logs import TuningLog

    made = f"made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC with Tunewright {tunewright.__version__}"
    with without_collecting(), TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        if session == _ALL:
            page = log_report(tuning_log, made=made)
        else:
            page = session_report(tuning_log, find_session(tuning_log, session), made=made)
    try:
        # A name may hold half of a surrogate pair, which no encoding has.
        output.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot report to '{output}': {error.strerror or error}") from None
    typer.echo(f"wrote {output}", err=True)
