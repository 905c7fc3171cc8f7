"""`tunewright tasks`: the subgraphs of a model, how big each is, and what the log knows of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

import typer

from tunewright.cli import settings
from tunewright.cli.match import MatchChoice, MatchOption, match_here
from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows
from tunewright.core.errors import ConfigError
from tunewright.core.types import MachinePeak, TargetSpec, TuningTask

if TYPE_CHECKING:
    from tunewright.scheduler.importer import ImportedModel
    from tunewright.scheduler.partition import Partition
    from tunewright.tuning_logs import TuningLog

ModelArgument = Annotated[Path, typer.Argument(help="ONNX file of the model.", show_default=False)]
InputShapeOption = Annotated[
    list[str] | None, typer.Option(help="Bind free dimensions: NAME:1,3,224,224. Repeatable.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads that run the model.", show_default="all CPUs")
]
TargetOption = Annotated[str, typer.Option(help="CPU to generate code for, as LLVM names it.")]


@dataclass(frozen=True, slots=True)
class _Row:
    """A task with its share of the model's time, in [0, 1]."""

    task: TuningTask
    share: float
    best_secs: float | None
    floor_secs: float | None

    @property
    def intensity(self) -> float:
        return self.task.workload.flop / self.task.workload.arg_bytes

    @property
    def best_gflops(self) -> float | None:
        return None if self.best_secs is None else self.task.workload.flop / self.best_secs / 1e9

    @property
    def peak_ratio(self) -> float | None:
        """How near the best record is to what the machine can do; above 1 only if it was slow at its peak."""
        if self.best_secs is None or self.floor_secs is None:
            return None
        return self.floor_secs / self.best_secs


def tasks(
    model: ModelArgument,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    match: MatchOption = MatchChoice.COMPATIBLE,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show the tuning tasks of MODEL: the same subgraph once, with its calls per run."""
    from tunewright.scheduler.partition import partition, predicted_secs

    imported = import_for_cli(model, input_shape, threads=threads, target=target)
    found = partition(imported)
    best, peak = _known(found.tasks, imported.target, log, match)
    is_measured = bool(found.tasks) and len(best) == len(found.tasks)
    secs = {task.key: best[task.key] if is_measured else predicted_secs(task) for task in found.tasks}
    total = sum(secs[task.key] * task.weight for task in found.tasks)
    rows = [
        _Row(
            task,
            secs[task.key] * task.weight / total,
            best.get(task.key),
            peak.floor_secs(task.workload) if peak else None,
        )
        for task in found.tasks
    ]
    rows.sort(key=lambda row: -row.share)
    print_rows(
        rows,
        _columns(is_measured=is_measured, has_records=bool(best), has_peak=peak is not None),
        output_format,
        empty=f"{model} has no task that can be tuned",
    )
    if output_format is Format.TABLE:
        _explain(found, num_recorded=len(best), is_measured=is_measured)


def parse_input_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`["image:1,3,224,224"]` -> `{"image": (1, 3, 224, 224)}`; the last colon separates.

    Raises:
        ConfigError: a text has another form, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, extents = text.rpartition(":")
        try:
            shape = tuple(int(extent) for extent in extents.replace("x", ",").split(",") if extent.strip())
        except ValueError:
            colon = ""
        if not colon or not name:
            raise ConfigError(f"--input-shape {text!r} is not understood; write NAME:1,3,224,224")
        if name in shapes:
            raise ConfigError(f"--input-shape gives {name!r} twice; give each input once")
        shapes[name] = shape
    return shapes


def import_for_cli(
    path: Path, input_shapes: Sequence[str] | None, *, threads: int | None, target: str
) -> "ImportedModel":
    """Import a model as the options of a command say."""
    shapes = parse_input_shapes(input_shapes or [])
    from tunewright.core.tvm_adapter.target import available_cpus, parse_target
    from tunewright.scheduler.importer import import_model

    spec = parse_target(target, num_threads=threads or len(available_cpus()))
    return import_model(path, target=spec, input_shapes=shapes)


@contextmanager
def existing_log(option: str | None) -> Iterator["TuningLog | None"]:
    """The tuning log for reading, or None where none was asked for and the default one does not exist."""
    url = settings.log_url(option)
    prefix = "sqlite:///"
    is_default = url == settings.log_url(None, environ={}) and option is None
    if is_default and url.startswith(prefix) and not Path(unquote(url.removeprefix(prefix))).exists():
        yield None
        return
    from tunewright.tuning_logs import TuningLog

    with TuningLog.open(url, read_only=True) as log:
        yield log


def _known(
    found: Sequence[TuningTask], target: TargetSpec, option: str | None, choice: MatchChoice
) -> tuple[dict[str, float], MachinePeak | None]:
    """Seconds of the tasks that have records, and what this machine can do at most."""
    with existing_log(option) as log:
        if log is None:
            return {}, None
        match = match_here(choice)
        ranked = log.best_many([task.key for task in found], match=match)
        peak = log.peak(target, machine_fingerprint=match.machine.fingerprint)
    return {key: trials[0].secs for key, trials in ranked.items() if trials}, peak


def _columns(*, is_measured: bool, has_records: bool, has_peak: bool) -> list[Column[_Row]]:
    kind = "measured" if is_measured else "predicted"
    return [
        Column("task_key", lambda row: row.task.key),
        Column("workload_key", lambda row: row.task.workload.key),
        Column("name", lambda row: row.task.workload.name, title="task", shrinks=True),
        Column("calls", lambda row: row.task.weight, title="calls", is_number=True),
        Column(
            "flop",
            lambda row: row.task.workload.flop,
            title="MFLOP",
            text=lambda row: f"{row.task.workload.flop / 1e6:,.2f}",
            is_number=True,
        ),
        Column(
            "bytes",
            lambda row: row.task.workload.arg_bytes,
            title="KiB",
            text=lambda row: f"{row.task.workload.arg_bytes / 1024:,.0f}",
            is_number=True,
        ),
        Column(
            "flop_per_byte",
            lambda row: row.intensity,
            title="FLOP/B",
            text=lambda row: f"{row.intensity:.1f}",
            is_number=True,
        ),
        Column(
            f"{kind}_time_ratio",
            lambda row: row.share,
            title=kind,
            text=lambda row: f"{100 * row.share:.1f} %",
            is_number=True,
        ),
        Column(
            "best_secs",
            lambda row: row.best_secs,
            title="best ms" if has_records else None,
            text=lambda row: format_ms(row.best_secs),
            is_number=True,
        ),
        Column(
            "best_gflops",
            lambda row: row.best_gflops,
            title="GFLOP/s" if has_records else None,
            text=lambda row: None if row.best_gflops is None else f"{row.best_gflops:.1f}",
            is_number=True,
        ),
        Column(
            "floor_secs",
            lambda row: row.floor_secs,
            title="floor ms" if has_peak else None,
            text=lambda row: format_ms(row.floor_secs),
            is_number=True,
        ),
        Column(
            "peak_ratio",
            lambda row: row.peak_ratio,
            title="of peak" if has_peak and has_records else None,
            text=lambda row: None if row.peak_ratio is None else f"{100 * row.peak_ratio:.0f} %",
            is_number=True,
        ),
    ]


def _explain(found: "Partition", *, num_recorded: int, is_measured: bool) -> None:
    from tunewright.scheduler.partition import ASSUMED_GBYTES_PER_SEC, ASSUMED_GFLOPS_PER_THREAD

    calls = sum(task.weight for task in found.tasks)
    gflop = sum(task.workload.flop * task.weight for task in found.tasks) / 1e9
    typer.echo(
        f"{len(found.tasks)} tasks in {calls} calls, {gflop:.2f} GFLOP per run; "
        f"{num_recorded} have a record in the log.",
        err=True,
    )
    if not is_measured:
        typer.echo(
            "predicted: share of the time, which is the longer of computing at "
            f"{ASSUMED_GFLOPS_PER_THREAD:g} GFLOP/s per thread and moving all arguments once at "
            f"{ASSUMED_GBYTES_PER_SEC:g} GB/s, both assumed.",
            err=True,
        )
    else:
        typer.echo("measured: share of the time of the best records.", err=True)
    for function, reason in found.untunable.items():
        typer.echo(f"{function} cannot be tuned: {reason}", err=True)
