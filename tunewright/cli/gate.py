"""`tunewright gate`: is head slower than base? Exit statuses that mean one thing each."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.output import Column, Format, print_rows
from tunewright.core.errors import ConfigError, SchemaVersionError
from tunewright.core.text import printable

if TYPE_CHECKING:
    from tunewright.gate.measure import PairTimer
    from tunewright.gate.report import Report, Row
    from tunewright.gate.sides import GateItem
    from tunewright.gate.suite import Suite

app = typer.Typer(
    no_args_is_help=True,
    help="Is head slower than base? Exit status 0 no, 1 a confirmed regression, 2 wrong usage, 3 the "
    "environment failed, 4 inconclusive, 5 nothing was compared, 6 another schema.",
)

SuiteOption = Annotated[
    Path | None,
    typer.Option("--suite", metavar="FILE", help="TOML; else [tool.tunewright.gate] of pyproject.toml."),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write everything, every pair included.")
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
MarkdownOption = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", help="Write Markdown; it also goes to $GITHUB_STEP_SUMMARY."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the order of turns.")]

# Enough for the share of 1 in 20 that may lie above the noise floor.
_NUM_EXPERIMENTS = 20
_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


@app.command()
def run(
    suite: SuiteOption = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|FILE|REVISION",
            help="Instead of every base of the suite: what was saved by the name, a folder, a lock file or "
            "log, or a git revision, which the suite's `build` is run in.",
        ),
    ] = None,
    json: JsonOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    seed: SeedOption = 0,
) -> None:
    """Measure a suite's two sides in interleaved pairs on this machine, and judge them."""
    from tunewright.gate.baselines import build_heads, opened_baseline
    from tunewright.gate.sides import suite_items
    from tunewright.gate.suite import read_suite

    with _gate_exits():
        read = read_suite(suite)
        build_heads(read, tell=_tell)
        with opened_baseline(read, baseline, tell=_tell) as base_of:
            report = _measured(read, suite_items(read, base_of), seed)
        _publish(report, json, junit, markdown)
    raise typer.Exit(report.outcome)


@app.command()
def save(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    suite: SuiteOption = None,
) -> None:
    """Keep copies of a suite's heads, for `run --baseline NAME`; earlier ones of the name are replaced."""
    from tunewright.gate.baselines import build_heads, save_baseline
    from tunewright.gate.suite import read_suite

    read = read_suite(suite)
    build_heads(read, tell=_tell)
    typer.echo(f"saved as {save_baseline(read, name)}")


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="A compiled model's DIR, a lock file, or a tuning log.")],
    head: Annotated[str, typer.Argument(help="The same of the other side.")],
    min_effect: Annotated[str, typer.Option(help="The smallest change that counts.")] = "2%",
    task: Annotated[
        list[str] | None, typer.Option(help="Kernels by the pattern of their names. Repeatable.")
    ] = None,
    log: settings.LogOption = None,
    json: JsonOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    seed: SeedOption = 0,
) -> None:
    """Compare two compiled models, or the schedules of two lock files or tuning logs, without a suite."""
    from tunewright.gate.sides import suite_items
    from tunewright.gate.suite import LEAST_EFFECT_RATIO, KernelsEntry, ModelEntry, Suite, parse_ratio

    with _gate_exits():
        effect = parse_ratio(min_effect, "--min-effect", least=LEAST_EFFECT_RATIO)
        if Path(base).is_dir() != Path(head).is_dir():
            raise ConfigError(f"{base} and {head} are no pair: give two folders, or two lock files or logs")
        if Path(head).is_dir():
            made = Suite(models=(ModelEntry(Path(head).name, Path(base), Path(head), effect),))
        else:
            made = Suite(kernels=(KernelsEntry("kernels", base, head, log, tuple(task or ()), effect),))
        report = _measured(made, suite_items(made), seed)
        _publish(report, json, junit, markdown)
    raise typer.Exit(report.outcome)


@app.command()
def calibrate(
    suite: SuiteOption = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Else where the gate looks for this machine's."),
    ] = None,
    experiments: Annotated[
        int | None, typer.Option(min=1, help="Of each item; else 20 over all items.", show_default=False)
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Measure how much a suite's heads differ from themselves: the noise floor of this machine.

    A later run takes no smaller change for a regression.
    """
    from tunewright.gate.baselines import build_heads
    from tunewright.gate.results import noise_floor_ratio, write_run
    from tunewright.gate.runs import calibration_path, run_calibration
    from tunewright.gate.sides import suite_items
    from tunewright.gate.suite import read_suite

    with _gate_exits():
        read = read_suite(suite)
        build_heads(read, tell=_tell)
        items = suite_items(read, only_head=True)
        num_pairs = sum(item.pair is not None for item in items)
        if not num_pairs:
            raise ConfigError("the suite has nothing that can be timed")
        number = experiments or -(-_NUM_EXPERIMENTS // num_pairs)
        with _timer(read) as timer, _progress() as on_progress:
            made = run_calibration(
                read, items, timer, num_experiments=number, seed=seed, on_progress=on_progress
            )
        floor_ratio = noise_floor_ratio(made)
        path = output or calibration_path(made.machine)
        write_run(made, path)
    timed = [item for item in made.items if item.times is not None]
    for item in made.items:
        if item.times is None:
            typer.echo(f"{item.name}: {item.reason}", err=True)
    typer.echo(
        f"the noise floor of {made.machine.cpu_model} is {100 * floor_ratio:.1f} %: 19 of 20 experiments "
        f"with the same code on both sides differed by less ({number * len(timed)} experiments)"
    )
    smallest = min(item.min_effect_ratio for item in items)
    if floor_ratio > smallest:
        typer.echo(f"changes below it, of {100 * smallest:g} % too, cannot be told from noise here", err=True)
    typer.echo(f"wrote {path}")


@app.command()
def accept(
    results: Annotated[Path, typer.Argument(help="What --json of a run wrote.")],
    name: Annotated[str, typer.Argument(help="The kernel or model that regressed.")],
    reason: Annotated[str, typer.Option(help="Why its slowdown is accepted.", show_default=False)],
    until: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="The last day on which it is.", show_default=False),
    ],
    file: Annotated[
        Path | None, typer.Option(help="Where it is written; else the suite's, or gate-accepted.toml.")
    ] = None,
    suite: SuiteOption = None,
) -> None:
    """Accept a regression up to what was measured, with a reason, until a day."""
    from tunewright.gate.accepted import accept as write_accepted
    from tunewright.gate.results import RunKind, read_run, results_of
    from tunewright.gate.runs import today

    with _gate_exits():
        found = {one.item.name: one for one in results_of(read_run(results, kind=RunKind.GATE))}
        if name not in found:
            raise ConfigError(f"{results} has no {name!r}; it has {', '.join(map(repr, found))}")
        path = _accepted_path(file, suite)
        made = write_accepted(found[name], path, reason=reason, until=until.date(), today=today())
    limit = 100 * (made.max_ratio - 1)
    typer.echo(f"{name} may be up to {limit:.1f} % slower until {made.until}: wrote {path}")


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="What --json of a run wrote.")],
    file: Annotated[
        Path | None, typer.Option("--accepted", help="What was accepted; else the suite's file.")
    ] = None,
    suite: SuiteOption = None,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
) -> None:
    """Judge the pairs of an earlier run again and show them, with the exit status of that run.

    What has been accepted, or has expired since, counts.
    """
    from tunewright.gate.results import RunKind, read_run
    from tunewright.gate.runs import report_of

    with _gate_exits():
        made = report_of(read_run(results, kind=RunKind.GATE), _accepted_path(file, suite))
        _publish(made, None, junit, markdown)
    raise typer.Exit(made.outcome)


@contextmanager
def _gate_exits() -> Iterator[None]:
    """Other schemas have an exit status of their own here; terminated, it leaves no checkout behind."""
    from tunewright.gate.report import Outcome
    from tunewright.gate.results import ResultsVersionError

    # As jobs are ended that take too long. Ctrl-C needs nothing: it is an exception already.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except (ResultsVersionError, SchemaVersionError) as exc:
        typer.echo(f"tunewright: {exc}", err=True)
        raise typer.Exit(Outcome.SCHEMA) from exc
    finally:
        signal.signal(signal.SIGTERM, before)


def _measured(suite: "Suite", items: "Sequence[GateItem]", seed: int) -> "Report":
    from tunewright.gate.runs import conditions_of, report_of, run_gate

    conditions = conditions_of(suite)
    if not conditions.is_calibrated:
        typer.echo("this machine is not calibrated (tunewright gate calibrate): no noise floor", err=True)
    with _timer(suite) as timer, _progress() as on_progress:
        made = run_gate(suite, items, timer, conditions, seed=seed, on_progress=on_progress)
    return report_of(made, suite.accepted)


def _accepted_path(file: Path | None, suite: Path | None) -> Path:
    from tunewright.gate.suite import ACCEPTED_FILE, PYPROJECT, has_suite, read_suite

    if file is not None:
        return file
    if suite is not None:
        return read_suite(suite).accepted
    # A comparison needs no suite.
    return read_suite(None).accepted if has_suite(Path(PYPROJECT)) else Path(ACCEPTED_FILE)


def _tell(text: str) -> None:
    typer.echo(printable(text), err=True)


def _timer(suite: "Suite") -> "AbstractContextManager[PairTimer]":
    from tunewright.gate import measure

    return measure.LocalTimer(sample_secs=suite.sample_secs)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line on stderr that changes; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    yield lambda text: typer.echo(f"\r\x1b[K{printable(text)[:100]}", nl=False, err=True)
    typer.echo("\r\x1b[K", nl=False, err=True)


def _publish(report: "Report", json: Path | None, junit: Path | None, markdown: Path | None) -> None:
    """The table and the summary on stdout, the files that were asked for, and the summary of a GitHub job."""
    from tunewright.gate.report import summary, to_junit, to_markdown
    from tunewright.gate.results import write_run

    print_rows(report.rows, _columns(), Format.TABLE, empty="the suite is empty")
    for line in summary(report):
        typer.echo(line)
    if json is not None:
        write_run(report.run, json)
    if junit is not None:
        _write(junit, to_junit(report))
    if markdown is not None:
        _write(markdown, to_markdown(report))
    if job_summary := os.environ.get(_SUMMARY_VARIABLE):
        _write(Path(job_summary), to_markdown(report), mode="a")


def _write(path: Path, text: str, *, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another file") from exc


def _columns() -> "list[Column[Row]]":
    from tunewright.gate.report import change_text

    return [
        Column("name", lambda row: row.name, title="kernel", shrinks=True),
        Column("verdict", lambda row: str(row.verdict), title="verdict"),
        Column("change", lambda row: change_text(row.result), title="change", is_number=True),
        Column(
            "num_pairs",
            lambda row: row.result.judgement.num_pairs if row.result.judgement else None,
            title="pairs",
            is_number=True,
        ),
        Column("note", lambda row: row.note, title="note", shrinks=True),
    ]
