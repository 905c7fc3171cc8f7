"""The report: latencies and goals first, then every model's kernels."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from side_by_side.tables import markdown_table

from runtimes.goals import Verdict, geometric_mean_ratio, judge, products_ratio
from runtimes.results import OURS, PEERS, KernelTime, ModelRun, Ratio, load_runs, longest_tuned

_MIN_SHARE = 0.005  # kernels below are one line together
_STALLED = 0.95  # of its time: a session that ended so early ran out of tasks, not of time


def write_report(folder: Path) -> str:
    """Write report.md and summary.json beside the raw files; returns the report."""
    runs = load_runs(folder)
    verdicts = judge(runs)
    batches = sorted({run.batch for run in runs})
    sections = [
        _conditions(runs),
        _goals(verdicts),
        *(_latencies([run for run in runs if run.batch == batch], batch) for batch in batches),
        _overview([run for run in runs if run.kernels]),
        *(_anatomy(run) for run in longest_tuned(runs) if run.kernels),
    ]
    text = "\n\n".join(sections)
    (folder / "report.md").write_text(text + "\n", encoding="utf-8")
    summary = {
        "ratios": {run.title: asdict(run.ratio) for run in runs if run.ratio},
        "goals": [asdict(verdict) for verdict in verdicts],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return text


def summary_line(run: ModelRun) -> str:
    """What is said when a model is finished."""
    failed = [f"FAILED: {run.problem}"] if run.problem else []
    shown = ", ".join(f"{t.label} {_latency(run, t.label)}" for t in run.timings)
    ratio = [f"ours / best peer {_ratio(run.ratio)}"] if run.ratio else []
    return f"{run.title}: " + "; ".join(filter(None, [*failed, shown, *ratio]))


def _conditions(runs: Sequence[ModelRun]) -> str:
    lines = ["# Models against the runtimes that people use", ""]
    if not runs:
        return "\n".join([*lines, "No model is finished."])
    machines = {run.machine["fingerprint"]: run.machine for run in runs}
    for fingerprint, machine in machines.items():
        lines.append(
            f"- Machine {fingerprint}: {machine['cpu_model']}, {machine['num_cpus']} CPUs, "
            f"SMT {'on' if machine['has_smt'] else 'off'}, Linux {machine['os_kernel']}"
        )
    if len(machines) > 1:
        lines.append("- **Runs of different machines are mixed: their times cannot be compared.**")
    for versions in sorted({tuple(sorted(run.versions.items())) for run in runs}):
        lines.append("- " + ", ".join(f"{name} {version}" for name, version in versions))
    for threads, secs in sorted({(run.num_threads, run.tune_secs) for run in runs}):
        names = [f"{r.model} ({r.batch})" for r in runs if (r.num_threads, r.tune_secs) == (threads, secs)]
        tuned = f"tuned for {secs:g} s just before" if secs else "compiled from the log as it was"
        lines.append(f"- {threads} threads, {tuned}: {', '.join(names)}")
    for peak in sorted({run.peak_flop_per_sec for run in runs if run.peak_flop_per_sec}):
        lines.append(f"- Measured peak: {peak / 1e9:.0f} GFLOP/s")
    load = max(run.load_before[0] for run in runs)
    lines.append(
        f"- Load average before a model: at most {load:.1f}; last finished {max(r.finished_at for r in runs)}"
    )
    lines.append(
        "- float32. Each contestant in a process of its own on the same CPUs, turns in random order; ms are "
        "medians over turns, ratios medians over rounds with their 95 % interval, below 1 we are faster."
    )
    return "\n".join(lines)


def _goals(verdicts: Sequence[Verdict]) -> str:
    met = {True: "met", False: "**not met**", None: "-"}
    rows = [
        [v.text, v.limit, "-" if v.value is None else f"{v.value:.3f}", met[v.is_met], v.note]
        for v in verdicts
    ]
    return "## Goals (batch 1)\n\n" + markdown_table(["", "goal", "measured", "", "of"], rows)


def _latencies(runs: Sequence[ModelRun], batch: int) -> str:
    labels = (OURS, *PEERS)
    last = longest_tuned(runs)
    several = len(last) < len(runs)
    rows = [
        [
            run.model + (_tuning(run) if several else ""),
            *(_latency(run, label) for label in labels),
            run.best_peer.label if run.best_peer else "-",
            _ratio(run.ratio),
            _agreement(run),
        ]
        for run in runs
    ]
    mean = geometric_mean_ratio(last)
    if mean is not None:
        rows.append(["geometric mean", *["" for _ in labels], "", f"**{mean:.3f}**", ""])
    head = ["model", *(f"{label} (ms)" for label in labels), "best peer", "ours / best peer", "output error"]
    text = f"## Latency, batch {batch}\n\n" + markdown_table(head, rows)
    notes = list(dict.fromkeys(note for run in runs for note in _problems(run)))
    recipes = [f"- {run.model}: {run.recipe}" for run in last]
    return "\n".join([text, "", *notes, *([""] if notes else []), *recipes])


def _tuning(run: ModelRun) -> str:
    """What it was given and, where every task had stalled before, what it took."""
    stalled = run.spent_secs is not None and run.spent_secs < _STALLED * run.tune_secs
    return f", {run.tune_secs:g} s" + (f" (ended after {run.spent_secs:.0f})" if stalled else "")


def _problems(run: ModelRun) -> list[str]:
    notes = [f"- **{run.model}** failed: {run.problem}"] if run.problem else []
    notes += [f"- {run.model}: {t.label} failed: {t.problem}" for t in run.timings if t.problem]
    wrong = [timing.label for timing in run.timings if timing.agrees is False]
    if wrong:
        notes.append(f"- {run.model}: **outputs differ** from {PEERS[0]}'s: {', '.join(wrong)}")
    absent = [peer for peer in PEERS if run.timing(peer) is None]
    if absent and not run.problem:
        notes.append(f"- {run.model}: without {', '.join(absent)}, which do not read ONNX, or were left out")
    return notes


def _overview(runs: Sequence[ModelRun]) -> str:
    """Where each model's time goes."""
    rows = []
    for run in runs:
        assert run.model_secs is not None and run.between_secs is not None
        kernel_secs = sum(kernel.total_secs for kernel in run.kernels)
        floors = [k.floor_secs * k.num_calls for k in run.kernels if k.floor_secs is not None]
        rows.append(
            [
                run.title,
                _ms(run.model_secs),
                _ms(kernel_secs),
                f"{sum(k.total_secs for k in run.kernels if k.source == 'record') / kernel_secs:.0%}",
                f"{run.between_secs / run.model_secs:.1%}",
                _ms(sum(floors)) if floors else "-",
                "-" if (ratio := products_ratio(run)) is None else f"{ratio:.2f}",
            ]
        )
    head = ["model", "ms", "in kernels", "of these from records", "between kernels", "sum of floors"]
    head += ["convolutions and products / ONNX Runtime's"]
    explained = (
        "Measured inside the running model, after the race. A floor is the longer of a kernel's work at this "
        "machine's measured peak and of moving its arguments once at its measured bandwidth."
    )
    return "\n\n".join(["## Where the time goes", explained, markdown_table(head, rows)])


def _anatomy(run: ModelRun) -> str:
    total = sum(kernel.total_secs for kernel in run.kernels)
    ordered = sorted(run.kernels, key=lambda kernel: -kernel.total_secs)
    shown = [kernel for kernel in ordered if kernel.total_secs >= _MIN_SHARE * total]
    rows = [_kernel_row(kernel, total) for kernel in shown]
    rest = ordered[len(shown) :]
    if rest:
        share = sum(kernel.total_secs for kernel in rest) / total
        rows.append([f"{len(rest)} more", str(sum(k.num_calls for k in rest)), f"{share:.1%}", *[""] * 6])
    head = ["kernel", "calls", "share", "ms per call", "GFLOP/s", "of peak", "floor (ms)", "of floor"]
    head += ["schedule"]
    ops_secs = sum(op.secs for op in run.peer_ops)
    ops = [
        [op.op, str(op.num_nodes), _ms(op.secs), f"{op.secs / ops_secs:.1%}"]
        for op in run.peer_ops
        if op.secs >= _MIN_SHARE * ops_secs
    ]
    parts = [f"## Kernels of {run.title}", markdown_table(head, rows)]
    if ops:
        parts.append(f"ONNX Runtime's, {_ms(ops_secs)} ms in all by its own profile:")
        parts.append(markdown_table(["operator", "nodes", "ms", "share"], ops))
    return "\n\n".join(parts)


def _kernel_row(kernel: KernelTime, total_secs: float) -> list[str]:
    rate = f"{kernel.flop / kernel.secs / 1e9:.1f}" if kernel.flop and kernel.secs else "-"
    floor = "-" if kernel.floor_secs is None else _ms(kernel.floor_secs)
    of_floor = f"{kernel.floor_secs / kernel.secs:.0%}" if kernel.floor_secs and kernel.secs else "-"
    share = f"{kernel.total_secs / total_secs:.1%}"
    calls, secs = str(kernel.num_calls), _ms(kernel.secs)
    of_peak = f"{kernel.flop / kernel.peak_flop:.0%}" if kernel.flop and kernel.peak_flop else "-"
    return [kernel.name, calls, share, secs, rate, of_peak, floor, of_floor, kernel.source]


def _latency(run: ModelRun, label: str) -> str:
    timing = run.timing(label)
    if timing is None:
        return "-"
    if not timing.turn_secs:
        return "failed"
    return _ms(timing.median_secs) + (" (wrong)" if timing.agrees is False else "")


def _agreement(run: ModelRun) -> str:
    errors = [t.max_rel_error for t in run.timings if t.max_rel_error is not None]
    return f"{max(errors):.0e}" if errors else "-"


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} – {ratio.high:.2f})"


def _ms(secs: float) -> str:
    return f"{1e3 * secs:.4g}"
