"""`tunewright db`: look into the tuning log; its other commands stand beside this file."""

from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import db_diff, db_exchange, db_explain, db_upkeep, settings
from tunewright.cli.db_columns import (
    BEST_COLUMNS,
    DETAIL_COLUMNS,
    SESSION_COLUMNS,
    TASK_COLUMNS,
    TRIAL_COLUMNS,
    BestRow,
    Details,
)
from tunewright.cli.db_verify import verify
from tunewright.cli.match import MatchChoice, MatchOption, match_here
from tunewright.cli.output import Format, FormatOption, print_item, print_rows
from tunewright.core.errors import ConfigError
from tunewright.core.keys import short_key
from tunewright.core.text import printable
from tunewright.core.trace_text import trace_lines
from tunewright.explore.lookup import find_task

if TYPE_CHECKING:
    from tunewright.tuning_logs import TuningLog

app = typer.Typer(no_args_is_help=True, help="Look into the tuning log, and keep it in order.")
app.command("diff")(db_diff.diff)
app.command("explain")(db_explain.explain)
app.command("export")(db_exchange.export)
app.command("import")(db_exchange.import_)
app.command("stats")(db_upkeep.stats)
app.command("merge")(db_upkeep.merge)
app.command("prune")(db_upkeep.prune)
app.command("backup")(db_upkeep.backup)
app.command("upgrade")(db_upkeep.upgrade)
app.command()(verify)


@app.command()
def best(
    task: Annotated[
        str | None, typer.Option("--task", metavar="KEY", help="Only this task (8+ characters).")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many per task.")] = 1,
    match: MatchOption = MatchChoice.COMPATIBLE,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """The fastest verified records of each task."""
    with _open(log) as tuning_log:
        tasks = tuning_log.tasks() if task is None else [find_task(tuning_log, task)]
        ranked = tuning_log.best_many([summary.task_key for summary in tasks], k, match=match_here(match))
    rows = [
        BestRow(summary, rank, trial)
        for summary in tasks
        for rank, trial in enumerate(ranked[summary.task_key], start=1)
    ]
    print_rows(rows, BEST_COLUMNS, output_format, empty=f"no verified record yet among {len(tasks)} tasks")
    if output_format is not Format.TABLE:
        return
    missing = [summary for summary in tasks if not ranked[summary.task_key]]
    num_left_out = sum(summary.num_usable > 0 for summary in missing)
    if rows and len(missing) > num_left_out:
        typer.echo(
            f"{len(missing) - num_left_out} of {len(tasks)} tasks have no verified record yet", err=True
        )
    if num_left_out:
        typer.echo(
            f"{num_left_out} of {len(tasks)} tasks have records that --match {match} leaves out", err=True
        )


@app.command("list")
def list_(
    sessions: Annotated[
        bool, typer.Option("--sessions", help="List tuning sessions instead of tasks.")
    ] = False,
    trials: Annotated[
        str | None,
        typer.Option("--trials", metavar="KEY", help="List the trials of this task (8+ characters)."),
    ] = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Tasks and what is known about them; or sessions; or the trials of one task."""
    if sessions and trials is not None:
        raise ConfigError("--sessions and --trials exclude each other: give one of them")
    with _open(log) as tuning_log:
        if sessions:
            print_rows(
                tuning_log.sessions(),
                SESSION_COLUMNS,
                output_format,
                empty="the tuning log has no sessions yet",
            )
        elif trials is not None:
            summary = find_task(tuning_log, trials)
            recorded = tuning_log.trials(summary.task_key)
            empty = f"task {short_key(summary.task_key)} ({summary.name}) has no trials yet"
            print_rows(recorded, TRIAL_COLUMNS, output_format, empty=empty)
        else:
            empty = "the tuning log has no tasks yet: record some with `tunewright tune`"
            print_rows(tuning_log.tasks(), TASK_COLUMNS, output_format, empty=empty)


@app.command()
def show(
    record_id: Annotated[int, typer.Argument(help="Its number, from `db best` or `db list --trials`.")],
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Everything about one record: raw samples, failure, settings, machine, schedule."""
    with _open(log) as tuning_log:
        trial = tuning_log.record(record_id)
        details = Details(
            trial=trial,
            task=tuning_log.task(trial.record.task_key),
            races=tuning_log.races(record_id),
            verifications=tuning_log.verifications(record_id),
            unusable_reason=tuning_log.unusable_reason(record_id),
        )
    print_item(details, DETAIL_COLUMNS, output_format)
    if output_format is Format.TABLE:
        typer.echo("schedule")
        for line in trace_lines(trial.record.candidate.trace_json):
            typer.echo(f"  {printable(line)}")


def _open(log: str | None) -> "TuningLog":
    from tunewright.tuning_logs import TuningLog

    return TuningLog.open(settings.log_url(log), read_only=True)
