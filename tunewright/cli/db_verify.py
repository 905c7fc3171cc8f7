"""`tunewright db verify`: replay stored records here, and see whether they still do what the log says."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.interrupts import InterruptWatch
from tunewright.cli.output import Column, Format, FormatOption, format_ms, print_rows
from tunewright.core.closeable import Closeable
from tunewright.core.errors import ConfigError, EnvironmentProblem, SchemaVersionError
from tunewright.core.keys import short_key
from tunewright.core.text import printable
from tunewright.explore.lookup import find_task

if TYPE_CHECKING:
    from rich.progress import Progress

    from tunewright.core.types import MachineInfo
    from tunewright.scheduler.verify_choice import Plan, Selection
    from tunewright.scheduler.verify_log import Verified
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.local import LocalMeasurer

EXIT_QUARANTINED = 1
EXIT_INTERRUPTED = 130


def verify(
    num_best: Annotated[
        int | None,
        typer.Option("-k", min=1, help="How many per task, the fastest first; 1, all with --unverified."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="KEY", help="Only this task (8+ characters).")
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Instead, a random share of all timed trials, such as 5%."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another sample.")] = 0,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Instead, those that nobody has verified yet.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was verified with these versions before.")
    ] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Time those that are right again, interleaved.")
    ] = False,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Replay records of the log, compare their outputs again, and quarantine those that are wrong.

    By default the best record of every task whose kernels can run here. Exit status 1 where something was
    put in quarantine, 3 where something could not be judged.
    """
    from tunewright.scheduler.verify_choice import Selection

    ratio = None if sample is None else parse_share(sample)
    selection = Selection(num_best, ratio, seed, only_unverified=unverified, again=again)
    with _open(settings.log_url(log)) as tuning_log:
        plan = _choose(tuning_log, task, selection)
        results: list[Verified] = []
        with _Report(len(plan.chosen)) as report:
            is_whole = _verify(plan, tuning_log, results, report, remeasure=remeasure)
    if not is_whole:
        # With --again it would begin anew.
        goes_on = "" if again else ", the same command goes on"
        done = f"{len(results)} of {len(plan.chosen)} records are verified and recorded"
        _say(f"tunewright: interrupted; {done}{goes_on}")
        raise typer.Exit(EXIT_INTERRUPTED)
    if plan.chosen or output_format is not Format.TABLE:
        print_rows(results, _COLUMNS, output_format, empty="nothing to verify")
    _conclude(results)


def parse_share(text: str) -> float:
    """0.05 of "5%" and of "0.05".

    Raises:
        ConfigError: the text is no such number.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise ConfigError(f"'{text}' is no share: write for example 5% or 0.05") from None


def _open(url: str) -> "TuningLog":
    """The log, for writing; a new one is not made."""
    from tunewright.tuning_logs import TuningLog

    with suppress(SchemaVersionError):  # opening it for writing upgrades it
        TuningLog.open(url, read_only=True).close()
    return TuningLog.open(url)


def _choose(log: "TuningLog", task: str | None, selection: "Selection") -> "Plan":
    """What to verify; says what is left out."""
    from tunewright.core.tvm_adapter.target import machine_info
    from tunewright.scheduler.verify_choice import choose, why_not_here

    tasks = log.tasks() if task is None else [find_task(log, task)]
    machine = machine_info()
    plan = choose(log, tasks, selection, machine=machine, why_not=why_not_here)
    for one in plan.skipped:
        target = f"{one.target.mcpu} on {one.target.num_threads} threads"
        _say(f"skipped {_count(one.num_tasks, 'task')} for {target}: {one.reason}")
    if plan.num_known:
        with_what = f"verified with {_software(machine)} before"
        _say(f"left out {_count(plan.num_known, 'record')} {with_what}; --again takes them in")
    if not plan.chosen:
        _say("nothing to verify")
    return plan


def _verify(
    plan: "Plan", log: "TuningLog", results: "list[Verified]", report: "_Report", *, remeasure: bool
) -> bool:
    """Fill `results`; false where an interrupt came before the end."""
    from tunewright.core.clock import SystemClock
    from tunewright.scheduler.verify_log import verify_records

    try:
        with InterruptWatch() as watch:

            def on_batch(batch: "Sequence[Verified]") -> None:
                results.extend(batch)
                report.add(batch)
                watch.check()

            verify_records(
                plan.chosen,
                log=log,
                make_verifier=_make_verifier,
                remeasure=remeasure,
                clock=SystemClock(),
                on_batch=on_batch,
            )
    except KeyboardInterrupt:
        return False
    return True


def _make_verifier(num_threads: int) -> "AbstractContextManager[LocalMeasurer]":
    from tunewright.workers.config import WorkerConfig
    from tunewright.workers.local import LocalMeasurer

    # A build that takes longer than the task's others is no failure here, and no time decides anything.
    config = WorkerConfig.for_threads(num_threads)
    return LocalMeasurer(replace(config, adapts_build_limit=False, watches_reference=False))


def _conclude(results: "Sequence[Verified]") -> None:
    """Say what is not right, and end the command accordingly."""
    from tunewright.scheduler.verify_log import Verdict

    counts = Counter(one.verdict for one in results)
    for one in results:
        if one.verdict is not Verdict.RIGHT:
            _say(f"record {one.chosen.record_id} {_CONSEQUENCES[one.verdict]}: {printable(one.reason or '')}")
    changed = [one.timed for one in results if one.timed is not None and one.timed.is_beyond_noise]
    if results:
        found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
        _say(f"{_count(len(results), 'record')} verified: {found}")
    if changed:
        slower = sum(timed.change_ratio > 1 for timed in changed)
        _say(f"times differ by more than noise: {slower} slower, {len(changed) - slower} faster than stored")
    if counts[Verdict.QUARANTINED]:
        raise typer.Exit(EXIT_QUARANTINED)
    if counts[Verdict.UNKNOWN]:
        raise EnvironmentProblem(f"{_count(counts[Verdict.UNKNOWN], 'record')} could not be judged here")


class _Report(Closeable):
    """A bar on a terminal, a line for each batch elsewhere."""

    def __init__(self, num_records: int) -> None:
        self._num_records = num_records
        self._num_done = 0
        self._num_quarantined = 0
        self._bar: Progress | None = None
        self._stack = ExitStack()
        if num_records and sys.stderr.isatty():
            from rich import console, progress

            bar = progress.Progress(console=console.Console(stderr=True), transient=True)
            bar.add_task("verifying", total=num_records)
            self._bar = self._stack.enter_context(bar)

    def add(self, batch: "Sequence[Verified]") -> None:
        from tunewright.scheduler.verify_log import Verdict

        self._num_done += len(batch)
        self._num_quarantined += sum(one.verdict is Verdict.QUARANTINED for one in batch)
        text = f"{self._num_quarantined} in quarantine"
        if self._bar is None:
            _say(f"{self._num_done} of {self._num_records} records verified, {text}")
        else:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._num_done, description=f"verifying, {text}")

    def close(self) -> None:
        self._stack.close()


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _software(machine: "MachineInfo") -> str:
    return f"TVM {machine.tvm_version}, tvm-ffi {machine.tvm_ffi_version}, LLVM {machine.llvm_version}"


def _result(one: "Verified") -> str:
    """The kind of failure where there was one."""
    return one.verdict.value if one.failure is None else one.failure.kind.value


def _change_text(one: "Verified") -> str | None:
    if one.timed is None:
        return None
    return f"{one.timed.change_ratio:.2f}x" if one.timed.is_beyond_noise else "noise"


# By the verdict's value.
_CONSEQUENCES = {"quarantined": "is in quarantine", "unknown": "stays as it was"}

_COLUMNS: "list[Column[Verified]]" = [
    Column("record_id", lambda v: v.chosen.record_id, title="record", is_number=True),
    Column(
        "task_key",
        lambda v: v.chosen.task.task_key,
        title="task",
        text=lambda v: short_key(v.chosen.task.task_key),
    ),
    Column("workload", lambda v: v.chosen.task.name, title="workload", shrinks=True),
    Column("verdict", lambda v: v.verdict.value),
    Column("result", _result, title="result"),
    Column("reason", lambda v: v.reason),
    Column(
        "stored_secs",
        lambda v: v.chosen.secs,
        title="stored ms",
        text=lambda v: format_ms(v.chosen.secs),
        is_number=True,
    ),
    Column(
        "now_secs",
        lambda v: None if v.timed is None else v.timed.secs,
        title="now ms",
        text=lambda v: None if v.timed is None else format_ms(v.timed.secs),
        is_number=True,
    ),
    Column(
        "change_ratio",
        lambda v: None if v.timed is None else v.timed.change_ratio,
        title="change",
        text=_change_text,
        is_number=True,
    ),
    Column("is_beyond_noise", lambda v: None if v.timed is None else v.timed.is_beyond_noise),
    Column("is_stored", lambda v: None if v.timed is None else v.timed.is_stored),
    Column("run_secs", lambda v: None if v.timed is None else list(v.timed.now_secs)),
]
