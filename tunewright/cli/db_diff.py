"""`tunewright db diff`: what one schedule does otherwise than another, in words, beside their times."""

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows, printable
from tunewright.core.keys import short_key
from tunewright.core.types import RecordedTrial
from tunewright.explore import trial_facts
from tunewright.explore.schedule_words import ScheduleChange, schedule_changes

if TYPE_CHECKING:
    from tunewright.tuning_logs import TuningLog


def diff(
    a: Annotated[int, typer.Argument(metavar="A", help="A record's number, from `db best` or `db list`.")],
    b: Annotated[int, typer.Argument(metavar="B", help="That of the record to compare with it.")],
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """What the schedule of record B does otherwise than that of record A.

    JSON and CSV have the changes alone.
    """
    from tunewright.tuning_logs import TuningLog

    with TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        sides = [_side(tuning_log, record_id) for record_id in (a, b)]
    before, after = (side.trial.record.candidate for side in sides)
    changes = schedule_changes(before.trace_json, after.trace_json)
    if output_format is not Format.TABLE:
        print_rows(changes, _CHANGE_COLUMNS, output_format, empty="")
        return
    print_rows(sides, _SIDE_COLUMNS, output_format, empty="")
    if before.task_key != after.task_key:
        typer.echo("They are of different tasks: loops of the same name may be other axes.", err=True)
    typer.echo()
    for change in changes:
        typer.echo(printable(str(change)))
    if not changes:
        is_same = before.trace_json == after.trace_json
        typer.echo(
            "the same schedule" if is_same else "no difference but in what postprocessing made of them"
        )


@dataclass(frozen=True, slots=True)
class _Side:
    """A record with its workload's name and the seconds per call that it ranks by."""

    trial: RecordedTrial
    workload: str
    secs: float | None


def _side(tuning_log: "TuningLog", record_id: int) -> _Side:
    trial = tuning_log.record(record_id)
    races = tuning_log.races(record_id)
    secs = statistics.median(races[-1].run_secs) if races else trial.record.best_secs
    return _Side(trial, tuning_log.task(trial.record.task_key).workload.name, secs)


_SIDE_COLUMNS: list[Column[_Side]] = [
    Column("record_id", lambda s: s.trial.record_id, title="record", is_number=True),
    Column("task_key", lambda s: short_key(s.trial.record.task_key), title="task"),
    Column("workload", lambda s: s.workload, title="workload", shrinks=True),
    Column("status", lambda s: trial_facts.status(s.trial), title="status"),
    Column("secs", lambda s: s.secs, title="ms", text=lambda s: format_ms(s.secs), is_number=True),
    Column("origin", lambda s: s.trial.record.candidate.origin.value, title="origin"),
]
_CHANGE_COLUMNS: list[Column[ScheduleChange]] = [
    Column("block", lambda c: c.block),
    Column("what", lambda c: c.what),
    Column("before", lambda c: c.before),
    Column("after", lambda c: c.after),
]
