"""`tunewright compile`: a model into a directory that runs, from the best records of the log."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.match import MatchChoice, MatchOption, match_here
from tunewright.cli.tasks import (
    InputShapeOption,
    ModelArgument,
    TargetOption,
    ThreadsOption,
    existing_log,
    import_for_cli,
)
from tunewright.core.errors import ConfigError
from tunewright.core.types import Origin
from tunewright.core.units import format_ms
from tunewright.scheduler.kernel_choice import UNREMARKABLE_MISSES, Variant

if TYPE_CHECKING:
    from tunewright.scheduler.schedule_log import RankedRecord
    from tunewright.scheduler.stitch import CompileReport


def compile_(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write.", show_default=False)],
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a task has no usable record.")] = False,
    schedules: Annotated[
        Variant, typer.Option(help="Records of the log, our default schedules, or TVM's plain loops.")
    ] = Variant.TUNED,
    match: MatchOption = MatchChoice.COMPATIBLE,
    write_lock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write which candidate each task took.", show_default=False),
    ] = None,
    locked: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Take exactly the candidates of a lock, or fail.", show_default=False
        ),
    ] = None,
    log: settings.LogOption = None,
) -> None:
    """Compile MODEL into one directory, without measuring anything.

    Each task takes its best verified record; a task without one takes our default schedule.
    """
    _check_lock_options(schedules, write_lock, locked)
    from tunewright.core.tvm_adapter.target import available_cpus
    from tunewright.scheduler import schedule_lock
    from tunewright.scheduler.partition import partition
    from tunewright.scheduler.stitch import CompileOptions, check_destination, compile_model
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import replay_all

    check_destination(output)
    lock = schedule_lock.read_lock(locked) if locked is not None else None
    imported = import_for_cli(model, input_shape, threads=threads, target=target)
    tasks = partition(imported)
    with existing_log(log) as tuning_log, Pool(available_cpus()) as pool:
        if tuning_log is None and lock is None:
            typer.echo("there is no tuning log yet: every task takes the default schedule", err=True)
        report = compile_model(
            imported,
            output,
            log=tuning_log,
            replay=partial(replay_all, pool),
            options=CompileOptions(schedules, is_strict=strict, match=match_here(match), lock=lock),
            tasks=tasks,
        )
    print_report(report)
    if write_lock is not None:
        schedule_lock.write_lock(schedule_lock.make_lock(imported.name, tasks, report.choices), write_lock)
        typer.echo(f"wrote {write_lock}")


def _check_lock_options(schedules: Variant, write_lock: Path | None, locked: Path | None) -> None:
    if locked is None:
        return
    if write_lock is not None:
        raise ConfigError("--locked and --write-lock exclude each other: a lock that is met stays as it is")
    if schedules is not Variant.TUNED:
        raise ConfigError(
            f"--locked and --schedules {schedules} exclude each other: the lock says what to take"
        )


def print_report(report: "CompileReport") -> None:
    """What won each task and how much comes from the log on stdout; what was missed, and why, on stderr."""
    for choice in report.choices:
        if choice.record is not None:
            typer.echo(f"  {choice.task.workload.name}: {_winner(choice.record)}")
    typer.echo(
        f"{report.num_from_log} of {len(report.choices)} tasks, "
        f"{100 * report.coverage_ratio:.1f} % of the predicted time, from the log"
    )
    for miss in report.misses:
        if miss.miss in UNREMARKABLE_MISSES:
            continue
        typer.echo(f"  {miss.task.workload.name}: {miss.source} schedule ({miss.miss})", err=True)
    typer.echo(
        f"wrote {report.folder} "
        f"({report.choose_secs:.1f} s for schedules, {report.build_secs:.1f} s to build)"
    )


def _winner(record: "RankedRecord") -> str:
    """0.152 ms, trial 118 (mutation); the default schedule is a trial of every task, and may win."""
    origin = record.trial.record.candidate.origin
    how = "the default schedule" if origin is Origin.SEED else str(origin)
    return f"{format_ms(record.secs)}, trial {record.trial.record_id} ({how})"
