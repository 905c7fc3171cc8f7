"""How often is the gate wrong? Real kernels against themselves, and against themselves with more work.

    python benchmarks/gate_trials.py measure RUNS.jsonl [--effects 0,0.05,0.1] [--seeds 0:50] [--threads 1]
    python benchmarks/gate_trials.py report RUNS.jsonl.gz ...

`measure` runs the gate on 20 kernels once per seed and effect, each kernel alone, and adds every pair's times
to the file; what is there already is not measured again. `report` judges the raw times again with the code
of `tunewright gate`, and prints tables in Markdown. Head does `effect` more work than base: 21 or 22 times
the same rows, images or matrices instead of 20.
"""

import argparse
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gate_runs.experiments import GateRun, RunKey, append_run, judge_run, measure_runs, read_runs
from gate_runs.kernels import EXTENTS, KERNELS
from scipy.stats import beta

from tunewright.gate.statistics import Verdict, log_ratios

_SHOWN = (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.SAME, Verdict.INCONCLUSIVE)


def main() -> int:
    args = _parse_args()
    if args.command == "report":
        print(report([run for path in args.files for run in read_runs(path)]))
        return 0
    return _measure(args)


def _measure(args: argparse.Namespace) -> int:
    from tunewright.core.tvm_adapter.target import host_target

    known = read_runs(args.file) if args.file.exists() else []
    wanted = [
        RunKey(kernel, effect, seed) for seed in args.seeds for effect in args.effects for kernel in KERNELS
    ]
    missing = set(wanted) - {run.key for run in known}
    for run in measure_runs([key for key in wanted if key in missing], host_target(args.threads)):
        append_run(run, args.file)
        judged = judge_run(run)
        load = os.getloadavg()[0]
        print(f"{run.key}: {judged.verdict}, {judged.num_pairs} pairs, load {load:.1f}", flush=True)
    return 0


def report(runs: Sequence[GateRun]) -> str:
    """Tables of verdicts by effect, and of noise and found effects by kernel."""
    effects = sorted({run.key.effect for run in runs})
    lines = [
        "| additional work | runs | " + " | ".join(_SHOWN) + " | pairs, mean | wrong or missed, 95 % limit |",
        "|---|" + "---|" * (len(_SHOWN) + 3),
    ]
    for effect in effects:
        judged = [judge_run(run) for run in runs if run.key.effect == effect]
        counts = Counter(one.verdict for one in judged)
        num_bad = counts[Verdict.REGRESSED] + counts[Verdict.IMPROVED]
        if effect:
            num_bad = len(judged) - counts[Verdict.REGRESSED]
        limit = float(beta.ppf(0.95, num_bad + 1, max(len(judged) - num_bad, 1e-9)))
        cells = [f"{100 * effect:.0f} %", str(len(judged)), *(str(counts[verdict]) for verdict in _SHOWN)]
        cells += [
            f"{statistics.mean(one.num_pairs for one in judged):.0f}",
            f"{num_bad}, {100 * limit:.2f} %",
        ]
        lines.append(_row(cells))
    lines += [
        "",
        "| kernel | one time | noise of a pair | " + " | ".join(f"{100 * e:.0f} %" for e in effects) + " |",
    ]
    lines.append("|---|" + "---|" * (2 + len(effects)))
    for kernel in dict.fromkeys(run.key.kernel for run in runs):
        lines.append(_kernel_row(kernel, [run for run in runs if run.key.kernel == kernel], effects))
    return "\n".join(lines)


def _kernel_row(kernel: str, runs: Sequence[GateRun], effects: Sequence[float]) -> str:
    """The median ratio found at each effect; noise is half the distance of the middle 68 % of log ratios."""
    secs = statistics.median(s for run in runs for group in run.times.first for s in group.base_secs)
    noise = []
    for run in runs:
        logs = sorted(log_ratios(run.times.first))
        noise.append((logs[round(0.84 * (len(logs) - 1))] - logs[round(0.16 * (len(logs) - 1))]) / 2)
    cells = [kernel, f"{1e6 * secs:.0f} us", f"{100 * statistics.median(noise):.2f} %"]
    for effect in effects:
        ratios = [judge_run(run).ratio for run in runs if run.key.effect == effect]
        cells.append(f"{100 * (statistics.median(ratios) - 1):+.1f} %" if ratios else "-")
    return _row(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure")
    measure.add_argument("file", type=Path)
    measure.add_argument("--effects", type=_effects, default=[0.0], metavar="A,B", help="of 0, 0.05, 0.1")
    measure.add_argument("--seeds", type=_seeds, default=range(50), metavar="FIRST:END")
    measure.add_argument("--threads", type=int, default=1)
    commands.add_parser("report").add_argument("files", type=Path, nargs="+")
    return parser.parse_args()


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def _effects(text: str) -> list[float]:
    effects = [float(one) for one in text.split(",")]
    if unknown := set(effects) - set(EXTENTS):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)} is none of {list(EXTENTS)}")
    return effects


if __name__ == "__main__":
    sys.exit(main())
