"""`tunewright bench`: latency of a compiled model, side by side with ONNX Runtime or another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows
from tunewright.core.errors import EnvironmentProblem

if TYPE_CHECKING:
    from tunewright.scheduler.model_bench import BenchReport, ContestantResult, Speedup


@dataclass(frozen=True, slots=True)
class _Row:
    result: "ContestantResult"
    speedup: "Speedup | None"  # of the first contestant over this one


def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `tunewright compile` wrote.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="The ONNX file, run by ONNX Runtime, or another DIR. Repeatable."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds; more narrow the interval.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the inputs and of the order of turns.")] = 0,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Measure a compiled model's latency; with --against, the others' too, in turns on the same CPUs.

    All use the number of threads that DIR was compiled for. Exit status 1 where their outputs differ.
    """
    from tunewright.scheduler.manifest import read_manifest
    from tunewright.scheduler.model_bench import BenchOptions, Contestant, bench_models

    num_threads = read_manifest(folder).target.num_threads
    contestants = [Contestant("tunewright", folder)]
    for path in against or []:
        contestants.append(Contestant(str(path) if path.is_dir() else "onnxruntime", path))
    report = bench_models(contestants, BenchOptions(num_threads, num_rounds=rounds, seed=seed))
    print_report(report, output_format)
    if output_format is Format.TABLE:
        cpus = ",".join(map(str, report.cpus))
        typer.echo(f"{rounds} rounds, {num_threads} threads on CPUs {cpus}", err=True)
    failed = [result for result in report.results if result.problem]
    if failed:
        raise EnvironmentProblem(f"{failed[0].path} could not be timed: {failed[0].problem}")
    if any(result.agrees is False for result in report.results):
        typer.echo("the outputs differ by more than the tolerance (rtol 1e-3)", err=True)
        raise typer.Exit(1)


def print_report(report: "BenchReport", output_format: Format) -> None:
    """One line per contestant."""
    speedups = {speedup.against: speedup for speedup in report.speedups}
    rows = [_Row(result, speedups.get(result.label)) for result in report.results]
    print_rows(rows, _columns(report.results[0].label), output_format, empty="nothing was measured")


def _columns(first: str) -> Sequence[Column[_Row]]:
    return [
        Column("contestant", lambda row: row.result.label, title="model", shrinks=True),
        _secs_column("median_secs", "median ms", lambda row: row.result.median_secs),
        _secs_column("p10_secs", "p10", lambda row: row.result.p10_secs),
        _secs_column("p90_secs", "p90", lambda row: row.result.p90_secs),
        Column(
            "speedup_ratio",
            lambda row: row.speedup.ratio if row.speedup else None,
            title=f"speed-up of {first}",
            text=lambda row: _interval(row.speedup),
        ),
        Column("speedup_low_ratio", lambda row: row.speedup.low if row.speedup else None),
        Column("speedup_high_ratio", lambda row: row.speedup.high if row.speedup else None),
        Column(
            "max_rel_error",
            lambda row: row.result.max_rel_error,
            title="output error",
            text=lambda row: None if row.result.max_rel_error is None else f"{row.result.max_rel_error:.1e}",
            is_number=True,
        ),
        Column("max_abs_error", lambda row: row.result.max_abs_error),
        Column("outputs_agree", lambda row: row.result.agrees),
        Column("turn_secs", lambda row: list(row.result.turn_secs)),
        Column("problem", lambda row: row.result.problem),
    ]


def _interval(speedup: "Speedup | None") -> str | None:
    return None if speedup is None else f"{speedup.ratio:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})"


def _secs_column(key: str, title: str, secs: Callable[[_Row], float | None]) -> Column[_Row]:
    return Column(key, secs, title=title, text=lambda row: format_ms(secs(row)), is_number=True)
