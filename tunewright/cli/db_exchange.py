"""`tunewright db export` and `db import`: schedules between logs, and to and from TVM's database."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.match import MatchChoice, MatchOption, match_here
from tunewright.cli.tasks import InputShapeOption, TargetOption, ThreadsOption, import_for_cli
from tunewright.core.errors import ConfigError
from tunewright.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunewright.scheduler.importer import ImportedModel
    from tunewright.scheduler.kernel_choice import KernelChoice

_NOT_VERIFIED = "they are not verified here, so nothing uses them yet: run tunewright db verify --unverified"


def export(
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="ONNX file whose schedules are exported.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Bundle to write.", show_default=False),
    ] = None,
    write_lock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the lock as a file of its own, too.", show_default=False),
    ] = None,
    tvm: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a database of TVM's MetaSchedule instead: of MODEL's tasks, or of all.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Records per task.")] = 1,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    match: MatchOption = MatchChoice.COMPATIBLE,
    log: settings.LogOption = None,
) -> None:
    """Write the best schedules of a model into one file, for `db import` elsewhere.

    It has the canonical workloads, the records with their raw samples, and the lock of what compiles.
    """
    if tvm is not None:
        if output is not None or write_lock is not None:
            raise ConfigError(
                "--tvm writes a database of TVM's and nothing else: leave -o and --write-lock out"
            )
        imported = (
            None if model is None else import_for_cli(model, input_shape, threads=threads, target=target)
        )
        _export_tvm(tvm, imported, k=k, log=log)
        return
    if model is None:
        raise ConfigError("nothing says what to export: give --model FILE")
    if output is None and write_lock is None:
        raise ConfigError("nothing says where to write: give -o FILE, --write-lock FILE, or both")
    from tunewright.core.tvm_adapter.target import available_cpus
    from tunewright.scheduler import schedule_bundle, schedule_lock, schedule_transfer
    from tunewright.scheduler.kernel_choice import Variant, choose_kernels
    from tunewright.scheduler.partition import partition
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import replay_all

    with TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        imported = import_for_cli(model, input_shape, threads=threads, target=target)
        tasks, policy = partition(imported), match_here(match)
        with Pool(available_cpus()) as pool:
            choices = choose_kernels(
                tasks.tasks,
                variant=Variant.TUNED,
                log=tuning_log,
                replay=partial(replay_all, pool),
                match=policy,
            )
        bundle = schedule_transfer.make_bundle(imported.name, tasks, choices, tuning_log, match=policy, k=k)
    _print_misses(choices)
    num_tasks = len({record.task_key for record in bundle.records})
    if output is not None:
        schedule_bundle.write_bundle(bundle, output)
        typer.echo(
            f"wrote {output}: {len(bundle.records)} records of {num_tasks} of {len(choices)} tasks, "
            f"{output.stat().st_size / 1024:.0f} KiB"
        )
    if write_lock is not None:
        schedule_lock.write_lock(bundle.lock, write_lock)
        typer.echo(f"wrote {write_lock}")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="A bundle that `db export` wrote, or a folder with a database of TVM's MetaSchedule.",
            show_default=False,
        ),
    ],
    log: settings.LogOption = None,
) -> None:
    """Store the records of a bundle, or of TVM's database, in the log, which is made if there is none.

    Nothing in the file is believed: its workloads and traces are checked, then loaded and replayed in child
    processes. The records are kept as unverified ones, which no command uses before `db verify`.
    """
    if file.is_dir():
        _import_tvm(file, log)
        return
    from tunewright.core.module_rules import check_module
    from tunewright.core.trace_rules import check_trace
    from tunewright.core.tvm_adapter.target import available_cpus
    from tunewright.scheduler.schedule_bundle import read_bundle
    from tunewright.scheduler.schedule_transfer import check_bundle, store_bundle
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import canonical_workloads, replay_all

    bundle = read_bundle(file)
    with Pool(available_cpus()) as pool:
        checked = check_bundle(
            bundle,
            check_module=check_module,
            check_trace=check_trace,
            canonicalise=partial(canonical_workloads, pool),
            replay=partial(replay_all, pool, is_trusted=False),
        )
    # Not opened, and so not made, before there is something to store.
    with TuningLog.open(settings.log_url(log)) as tuning_log:
        report = store_bundle(checked, tuning_log)
    for sentence in report.left_out:
        typer.echo(printable(f"left out: {sentence}"), err=True)
    known = f", {report.num_known} were there before" if report.num_known else ""
    typer.echo(f"stored {report.num_stored} of {len(bundle.records)} records{known}")
    if report.num_stored:
        typer.echo(_NOT_VERIFIED)


def _import_tvm(folder: Path, log: str | None) -> None:
    from tunewright.core.tvm_adapter.target import available_cpus
    from tunewright.scheduler.tvm_import import import_tvm_database
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.pool import Pool

    with TuningLog.open(settings.log_url(log)) as tuning_log, Pool(available_cpus()) as pool:
        report = import_tvm_database(folder, tuning_log, pool)
    for counts, what in (
        (report.bad_lines, "lines cannot be read"),
        (report.refused_workloads, "workloads are refused"),
        (report.refused, "records are refused"),
    ):
        for reason, number in counts.items():
            typer.echo(printable(f"left out: {number} {what}: {reason}"), err=True)
    for example in report.examples:
        typer.echo(printable(f"  such as {example}"), err=True)
    typer.echo(
        f"stored {report.num_stored} of {report.num_records} records of {report.num_workloads} workloads, "
        f"{report.num_failures} of them without a time; {report.num_known} were there before, "
        f"{report.num_repeated} measure a candidate again"
    )
    if report.num_stored:
        typer.echo(_NOT_VERIFIED)


def _export_tvm(folder: Path, model: "ImportedModel | None", *, k: int, log: str | None) -> None:
    from tunewright.core.tvm_adapter.target import available_cpus
    from tunewright.scheduler.partition import partition
    from tunewright.scheduler.tvm_export import export_tvm_database
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.pool import Pool

    with TuningLog.open(settings.log_url(log), read_only=True) as tuning_log:
        keys = None
        if model is not None:
            known = {summary.task_key for summary in tuning_log.tasks()}
            keys = [task.key for task in partition(model).tasks if task.key in known]
        with Pool(available_cpus()) as pool:
            report = export_tvm_database(tuning_log, folder, pool, task_keys=keys, k=k)
    for reason, number in report.left_out.items():
        typer.echo(printable(f"left out: {number} records: {reason}"), err=True)
    typer.echo(f"wrote {folder}: {report.num_records} records of {report.num_workloads} workloads")


def _print_misses(choices: "Sequence[KernelChoice]") -> None:
    for choice in choices:
        if choice.record is None:
            typer.echo(printable(f"  {choice.task.workload.name}: no record ({choice.miss})"), err=True)
