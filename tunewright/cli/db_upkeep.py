"""`tunewright db stats`, `merge`, `prune`, `backup`, `upgrade`: the log as a whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.output import Column, Format, FormatOption, print_item
from tunewright.core.errors import ConfigError
from tunewright.core.log_url import shown_place

if TYPE_CHECKING:
    from tunewright.tuning_logs import LogStats, TuningLog

_MIB = 1 << 20


def stats(log: settings.LogOption = None, output_format: FormatOption = Format.TABLE) -> None:
    """How much the log holds, and what it cost."""
    with _open(settings.log_url(log), read_only=True) as tuning_log:
        print_item(tuning_log.stats(), STATS_COLUMNS, output_format)


def merge(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="LOG...", help="What to take over: FILE or URL.", show_default=False),
    ],
    log: settings.LogOption = None,
) -> None:
    """Take everything of other logs over into this one; they stay as they are.

    Merging again changes nothing. Where two copies of a log have measured the same candidate apart, the
    earlier measurement stays.
    """
    url = settings.log_url(log)
    for source in sources:
        if settings.log_url(source) == url:
            raise ConfigError(f"{shown_place(url)} is the log itself: name others to take over")
    with _open(url, read_only=False) as tuning_log:
        for source in sources:
            with _open(settings.log_url(source), read_only=True) as other:
                report = tuning_log.merge_from(other)
            typer.echo(
                f"{shown_place(settings.log_url(source))}: {report.num_trials} new trials, "
                f"{report.num_known} known already; {report.num_tasks} new tasks, "
                f"{report.num_sessions} new sessions"
            )


def prune(
    keep: Annotated[int, typer.Option(min=1, help="Trials to keep of each task.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else only say what would be deleted.")] = False,
    log: settings.LogOption = None,
) -> None:
    """Delete all but the fastest trials of each task, and all cost models but the last.

    The cost model learns from what is left, and a session that goes on measures again what is gone.
    """
    with _open(settings.log_url(log), read_only=False) as tuning_log:
        report = tuning_log.prune(num_kept=keep, is_dry_run=not yes)
    verb = "deleted" if yes else "would delete"
    typer.echo(
        f"{verb} {report.num_trials} trials and {report.num_models} cost models; "
        f"{report.num_kept} trials stay"
    )
    if not yes:
        typer.echo("nothing was changed: say --yes to do it (`tunewright db backup` keeps a copy)", err=True)


def backup(
    file: Annotated[Path, typer.Argument(help="The copy: a new file of SQLite.", show_default=False)],
    log: settings.LogOption = None,
) -> None:
    """Copy the log into a new file, which is a log of its own. It may be in use meanwhile."""
    with _open(settings.log_url(log), read_only=True) as tuning_log:
        tuning_log.back_up(file)
        typer.echo(f"{tuning_log.place} was copied to {file} ({file.stat().st_size / _MIB:.1f} MiB)")


def upgrade(log: settings.LogOption = None) -> None:
    """Bring a log of an older Tunewright to this one's schema; a copy of the file is kept beside it."""
    from tunewright.tuning_logs import TuningLog, schema_revisions

    url = settings.log_url(log)
    before, now = schema_revisions(url)
    if before == now:
        typer.echo(f"{shown_place(url)} is at schema {now} already")
        return
    TuningLog.open(url).close()
    place = shown_place(url)
    copy = "" if "://" in place else f"; the old one is kept as {place}.schema-{before}.bak"
    typer.echo(f"{place} is at schema {now} now, it was at {before}{copy}")


def _open(url: str, *, read_only: bool) -> "TuningLog":
    from tunewright.tuning_logs import TuningLog

    return TuningLog.open(url, read_only=read_only)


def _size(stats: "LogStats") -> str:
    per_trial = stats.size_bytes / max(1, stats.num_trials)
    return f"{stats.size_bytes / _MIB:.1f} MiB, {per_trial:.0f} bytes per trial"


def _failures(stats: "LogStats") -> str:
    return ", ".join(f"{number} {kind}" for kind, number in stats.failures.items()) or "none"


STATS_COLUMNS: "list[Column[LogStats]]" = [
    Column("schema", lambda s: s.schema, title="schema"),
    Column("engine", lambda s: s.engine, title="engine"),
    Column(
        "size_bytes",
        lambda s: s.size_bytes,
        title="size",
        text=_size,
    ),
    Column("num_trials", lambda s: s.num_trials, title="trials"),
    Column("num_usable", lambda s: s.num_usable, title="usable"),
    Column("num_quarantined", lambda s: s.num_quarantined, title="in quarantine"),
    Column(
        "failures",
        lambda s: {str(kind): n for kind, n in s.failures.items()},
        title="failures",
        text=_failures,
    ),
    Column("num_tasks", lambda s: s.num_tasks, title="tasks"),
    Column("num_workloads", lambda s: s.num_workloads, title="workloads"),
    Column("num_targets", lambda s: s.num_targets, title="targets"),
    Column("num_machines", lambda s: s.num_machines, title="machines"),
    Column("num_sessions", lambda s: s.num_sessions, title="sessions"),
    Column("num_models", lambda s: s.num_models, title="cost models"),
    Column(
        "build_secs",
        lambda s: s.build_secs,
        title="building",
        text=lambda s: f"{s.build_secs:.0f} CPU seconds",
    ),
    Column(
        "device_secs",
        lambda s: s.device_secs,
        title="measuring",
        text=lambda s: f"{s.device_secs:.0f} seconds of the device",
    ),
    Column("first_at", lambda s: s.first_at.isoformat() if s.first_at else None, title="first trial"),
    Column("last_at", lambda s: s.last_at.isoformat() if s.last_at else None, title="last trial"),
]
