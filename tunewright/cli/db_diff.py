"""`tunewright db diff`: two schedules, what differs between them in words, and their times."""

from collections.abc import Callable
from typing import Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows
from tunewright.core.errors import ConfigError
from tunewright.core.keys import short_key
from tunewright.core.text import printable
from tunewright.explore import trial_facts
from tunewright.explore.comparison import compare_records
from tunewright.explore.schedule_words import ScheduleChange
from tunewright.explore.tir import tir_diff
from tunewright.explore.trial_view import Spread, Trial


def diff(
    a: Annotated[int, typer.Argument(metavar="A", help="A record's number, from `db best` or `db list`.")],
    b: Annotated[int, typer.Argument(metavar="B", help="That of the record to compare with it.")],
    tir: Annotated[
        bool, typer.Option("--tir", help="Show what changed in the functions that TVM makes of them, too.")
    ] = False,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """What the schedule of record B does otherwise than that of record A, beside their times.

    JSON and CSV have the changes alone. With --tir, TVM applies both schedules in sandboxed processes.
    """
    if tir and output_format is not Format.TABLE:
        raise ConfigError(f"--tir is a text for people: leave out --format {output_format.value}")
    from tunewright.tuning_logs import TuningLog

    with TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        found = compare_records(tuning_log, a, b, tir=tir)
    if output_format is not Format.TABLE:
        print_rows(found.changes, _CHANGE_COLUMNS, output_format, empty="")
        return
    print_rows([found.a, found.b], _SIDE_COLUMNS, output_format, empty="")
    if found.a.task.key != found.b.task.key:
        typer.echo("They are of different tasks: loops of the same name may be other axes.", err=True)
    if not found.is_same_machine:
        typer.echo("They were timed on different machines: their times do not compare.", err=True)
    typer.echo()
    for change in found.changes:
        typer.echo(printable(str(change)))
    if not found.changes:
        is_same = found.a.trace_json == found.b.trace_json
        typer.echo(
            "the same schedule" if is_same else "no difference but in what postprocessing made of them"
        )
    if found.tir is not None:
        typer.echo()
        typer.echo(printable("\n".join(tir_diff(*found.tir)) or "the same program"))


def _ms(trial: Trial, chosen: Callable[[Spread], float]) -> str | None:
    return None if trial.spread is None else format_ms(chosen(trial.spread))


_SIDE_COLUMNS: list[Column[Trial]] = [
    Column("record_id", lambda t: t.record_id, title="record", is_number=True),
    Column("task_key", lambda t: short_key(t.task.key), title="task"),
    Column("workload", lambda t: t.workload, title="workload", shrinks=True),
    Column("status", lambda t: trial_facts.status(t.recorded), title="status"),
    Column("secs", lambda t: _ms(t, lambda s: s.median_secs), title="ms", is_number=True),
    Column("low_secs", lambda t: _ms(t, lambda s: s.low_secs), title="from", is_number=True),
    Column("high_secs", lambda t: _ms(t, lambda s: s.high_secs), title="to", is_number=True),
    Column("num_samples", lambda t: len(t.run_secs), title="samples", is_number=True),
    Column("origin", lambda t: t.recorded.record.candidate.origin.value, title="origin"),
]
_CHANGE_COLUMNS: list[Column[ScheduleChange]] = [
    Column("block", lambda c: c.block),
    Column("what", lambda c: c.what),
    Column("before", lambda c: c.before),
    Column("after", lambda c: c.after),
]
