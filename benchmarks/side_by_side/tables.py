"""Markdown for people: tables, spreads, and under which conditions it was measured."""

import math
from collections.abc import Sequence

from side_by_side.curves import Spread
from side_by_side.results import UnitResult


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others numbers."""
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)]), *(_line(row) for row in rows)]
    return "\n".join(lines)


def shown_spread(value: Spread | None, form: str) -> str:
    """`median [least - greatest]`, the brackets only where there are several values."""
    if value is None:
        return "-"
    if value.n == 1:
        return shown(value.median, form)
    return f"{shown(value.median, form)} [{shown(value.low, form)} – {shown(value.high, form)}]"


def conditions(units: Sequence[UnitResult]) -> str:
    """Machine, versions, settings, and how busy the machine was."""
    if not units:
        return "No run is finished."
    machines = {unit.machine["fingerprint"]: unit.machine for unit in units}
    lines = ["# Tuners side by side", ""]
    for fingerprint, machine in machines.items():
        lines.append(
            f"- Machine {fingerprint}: {machine['cpu_model']}, {machine['num_cpus']} CPUs, "
            f"SMT {'on' if machine['has_smt'] else 'off'}, Linux {machine['os_kernel']}, "
            f"LLVM {machine['llvm_version']}"
        )
    if len(machines) > 1:
        lines.append("- **Runs of different machines are mixed: their times cannot be compared.**")
    for versions in {tuple(sorted(unit.versions.items())) for unit in units}:
        lines.append("- " + ", ".join(f"{name} {version}" for name, version in versions))
    seeds = {unit.key.seed for unit in units}
    lines.append(
        f"- {units[0].num_trials_asked} trials, {units[0].num_threads} kernel threads, seeds: {len(seeds)}, "
        f"runs: {len(units)}, {min(unit.finished_at for unit in units)} to "
        f"{max(unit.finished_at for unit in units)}"
    )
    loads = sorted(unit.load_before[0] for unit in units)
    lines.append(f"- Load average before runs: median {loads[len(loads) // 2]:.1f}, most {loads[-1]:.1f}")
    lines.append("- Cells: median over seeds [least – greatest]; ratios are paired by seed, below 1 is good.")
    return "\n".join(lines)


def shown(value: float, form: str) -> str:
    """A number, or the sign for infinity."""
    return "∞" if value == math.inf else form.format(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
