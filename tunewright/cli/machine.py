"""`tunewright machine`: what this machine can do, whatever runs on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.output import Column, Format, FormatOption, print_item
from tunewright.cli.tasks import TargetOption, ThreadsOption

if TYPE_CHECKING:
    from tunewright.core.types import MachinePeak

app = typer.Typer(no_args_is_help=True, help="What this machine can do.")


@app.callback()
def _group() -> None:
    """A group, though it has one command so far."""


@app.command()
def peak(
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    again: Annotated[bool, typer.Option("--again", help="Measure once more; the fastest counts.")] = False,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show the fastest that kernels can be here: float32 multiply-adds, and bytes moved, per second.

    Measured once, in some 10 seconds, and kept in the log; `tunewright tasks` compares records with it. Run
    it while nothing else does. Where a kernel seems to beat it, the machine was slow then: measure --again.
    """
    from tunewright.core.tvm_adapter.target import available_cpus, machine_info, parse_target
    from tunewright.core.types import MachinePeak
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers import measure_peak

    spec = parse_target(target, num_threads=threads or len(available_cpus()))
    with TuningLog.open(settings.log_url(log)) as opened:
        found = opened.peak(spec, machine_fingerprint=machine_info().fingerprint)
        if again or found is None:
            measured = measure_peak(spec)
            opened.add_peak(measured)
            found = MachinePeak.fastest_of([found, measured] if found else [measured])
    print_item(found, _COLUMNS, output_format)


def _bandwidths(bandwidths: Sequence[tuple[int, float]]) -> str:
    return ", ".join(f"{rate / 1e9:.0f} in {_size(size)}" for size, rate in bandwidths)


def _size(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes >> 10} KiB"


_COLUMNS: "list[Column[MachinePeak]]" = [
    Column("cpu_model", lambda p: p.machine.cpu_model, title="machine"),
    Column("machine_fingerprint", lambda p: p.machine.fingerprint, title="fingerprint"),
    Column("mcpu", lambda p: p.target.mcpu, title="CPU"),
    Column("num_threads", lambda p: p.target.num_threads, title="threads"),
    Column("flop_per_sec", lambda p: p.flop_per_sec, title="GFLOP/s", text=lambda p: _giga(p.flop_per_sec)),
    Column(
        "flop_per_sec_and_thread",
        lambda p: p.flop_per_sec / p.target.num_threads,
        title="GFLOP/s per thread",
        text=lambda p: _giga(p.flop_per_sec / p.target.num_threads),
    ),
    Column("bandwidths", lambda p: p.bandwidths, title="GB/s", text=lambda p: _bandwidths(p.bandwidths)),
    Column(
        "measured_at",
        lambda p: p.measured_at.isoformat(),
        title="measured",
        text=lambda p: p.measured_at.strftime("%Y-%m-%d %H:%M:%S"),
    ),
]


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.1f}"
