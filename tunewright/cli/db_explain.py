"""`tunewright db explain`: task by task, what the log has for a model, or why it has nothing."""

from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.match import MatchChoice, MatchOption, match_here
from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows
from tunewright.cli.tasks import InputShapeOption, ModelArgument, TargetOption, ThreadsOption, import_for_cli
from tunewright.core.errors import CoverageError
from tunewright.core.text import printable

if TYPE_CHECKING:
    from tunewright.scheduler.explain import NearRecord, TaskExplanation


def explain(
    model: ModelArgument,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    match: MatchOption = MatchChoice.COMPATIBLE,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where a task has no record.")] = False,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show for each task of MODEL which record it would take, or why none, and the nearest one there is."""
    from tunewright.scheduler.explain import explain
    from tunewright.scheduler.partition import partition
    from tunewright.tuning_logs import TuningLog

    # An explanation needs a log: where there is none, opening it says so.
    with TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        tasks = partition(import_for_cli(model, input_shape, threads=threads, target=target))
        explained = explain(tasks, tuning_log, match_here(match))
    print_rows(explained, _COLUMNS, output_format, empty=f"{model} has no task that can be tuned")
    if output_format is Format.TABLE and explained:
        _print_reasons(explained)
    num_missing = sum(not one.is_hit for one in explained)
    if strict and num_missing:
        raise CoverageError(f"{num_missing} of {len(explained)} tasks have no record that may be used")


def _print_reasons(explained: "tuple[TaskExplanation, ...]") -> None:
    """Each reason once, with its tasks and what is nearest to them; then the coverage."""
    from tunewright.scheduler.explain import coverage_ratio

    by_reason: dict[str, list[TaskExplanation]] = {}
    for one in explained:
        if one.is_remarkable:
            by_reason.setdefault(one.why, []).append(one)
    for why, tasks in by_reason.items():
        typer.echo(printable(f"\n{why}:"))
        for one in tasks:
            nearest = f"; nearest: {_nearest(one.nearest, one)}" if one.nearest is not None else ""
            typer.echo(printable(f"  {one.task.workload.name}{nearest}"))
    typer.echo(
        f"\n{sum(one.is_hit for one in explained)} of {len(explained)} tasks, "
        f"{100 * coverage_ratio(explained):.1f} % of the predicted time, have a record"
    )


def _nearest(near: "NearRecord", one: "TaskExplanation") -> str:
    from tunewright.scheduler.explain import describe_target, ms_text

    if near.name == one.task.workload.name:
        return f"record {near.record_id}"
    return f"record {near.record_id}, {near.name}, {describe_target(near.target)}, {ms_text(near.secs)}"


def _secs(one: "TaskExplanation") -> float | None:
    return None if one.record is None else one.record.secs


_COLUMNS: "list[Column[TaskExplanation]]" = [
    Column("task_key", lambda one: one.task.key),
    Column("workload_key", lambda one: one.task.workload.key),
    Column("name", lambda one: one.task.workload.name, title="task", shrinks=True),
    Column("calls", lambda one: one.task.weight, title="calls", is_number=True),
    Column(
        "predicted_time_ratio",
        lambda one: one.share,
        title="predicted",
        text=lambda one: f"{100 * one.share:.1f} %",
        is_number=True,
    ),
    Column("is_hit", lambda one: one.is_hit, title="log", text=lambda one: "hit" if one.is_hit else "miss"),
    Column(
        "record_id",
        lambda one: None if one.record is None else one.record.trial.record_id,
        title="record",
        is_number=True,
    ),
    Column("best_secs", _secs, title="ms", text=lambda one: format_ms(_secs(one)), is_number=True),
    Column("num_trials", lambda one: one.num_trials, title="trials", is_number=True),
    Column("why", lambda one: one.why),
    Column("nearest_record_id", lambda one: None if one.nearest is None else one.nearest.record_id),
    Column("nearest_workload", lambda one: None if one.nearest is None else one.nearest.name),
    Column("nearest_target", lambda one: None if one.nearest is None else str(one.nearest.target)),
    Column("nearest_secs", lambda one: None if one.nearest is None else one.nearest.secs),
]
