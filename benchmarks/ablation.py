"""What each technique of our tuner brings: alone, and when it is taken out of the whole.

    python benchmarks/ablation.py --out DIR [--contestants full,without-diversity] [--time-budget SECS]
    python benchmarks/ablation.py --out DIR --report-only

Variants (side_by_side/variants.py): `full`, `without-X`, `only-X` for every technique X, `none`, `random`.
They start with an empty log, those with `+log` with what `full` measured of the other tasks. Runs, files
and the neutral harness are those of vs_metaschedule.py.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

from side_by_side import command_line
from side_by_side.curves import neutral_scale, num_unreached, ratio, reach, spread
from side_by_side.experiment import Experiment
from side_by_side.results import UnitResult
from side_by_side.tables import conditions, markdown_table, shown_spread
from side_by_side.variants import FULL, WITH_LOG, variant_names

_TASKS = ("matmul-512", "conv-64x56-64-3x3", "conv-256x14-256-3x3", "softmax-128x1024")


def main() -> int:
    parser = command_line.make_parser(
        __doc__, tuners=variant_names(), tasks=_TASKS, num_seeds=3, num_trials=128
    )
    args = parser.parse_args()
    experiment = replace(command_line.experiment_of(args), lender=FULL)
    return command_line.run(experiment, args, write_report)


def write_report(experiment: Experiment) -> str:
    """Write report.md into the experiment's folder; returns its text."""
    rows: list[list[str]] = []
    units: list[UnitResult] = []
    for variant in experiment.tuners:
        pairs = _pairs(experiment, variant)
        units.extend(pair[0] for pair in pairs)
        if pairs:
            rows.append([variant, *_cells(pairs)])
    head = ["variant", "runs", "latency", "seconds", "trials to full's latency", "reached", "overhead"]
    explained = (
        "Variant / full tuner, paired by task and seed: latency of the final kernel, timed side by side; "
        "seconds for all trials; trials until the full tuner's final latency, against the trials that the "
        "full tuner took itself (∞: never). Median [least – greatest] over tasks and seeds. Overhead: share "
        "of the wall time outside building and running."
    )
    text = "\n\n".join([conditions(units), "## Ablation", explained, markdown_table(head, rows)])
    experiment.out.mkdir(parents=True, exist_ok=True)
    (experiment.out / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


# A variant's run and the full tuner's, each with the neutral time of its final kernel.
Pair = tuple[UnitResult, float, UnitResult, float]


def _pairs(experiment: Experiment, variant: str) -> list[Pair]:
    """Against the full tuner that starts with the same log."""
    full = FULL + WITH_LOG if variant.endswith(WITH_LOG) else FULL
    pairs: list[Pair] = []
    for task in experiment.tasks:
        for seed in range(experiment.num_seeds):
            units = {unit.key.tuner: unit for unit in experiment.units(task, seed)}
            times = experiment.neutral_times(task, seed)
            if times is not None and variant in times.secs and full in times.secs:
                pairs.append((units[variant], times.secs[variant], units[full], times.secs[full]))
    return pairs


def _cells(pairs: Sequence[Pair]) -> list[str]:
    latency = spread(secs / full_secs for _, secs, _, full_secs in pairs)
    seconds = spread(unit.secs_for_all_trials / full.secs_for_all_trials for unit, _, full, _ in pairs)
    trials = [_trials_ratio(pair) for pair in pairs]
    overhead = statistics.median(unit.overhead_ratio for unit, *_ in pairs)
    return [
        str(len(pairs)),
        shown_spread(latency, "{:.3f}"),
        shown_spread(seconds, "{:.3f}"),
        shown_spread(spread(trials), "{:.2f}"),
        f"{len(trials) - num_unreached(trials)} of {len(trials)}",
        f"{overhead:.0%}",
    ]


def _trials_ratio(pair: Pair) -> float:
    unit, secs, full, full_secs = pair
    goal_secs = full_secs * (1 + 1e-9)  # the scaling rounds
    needed = reach(unit.tuned, goal_secs, neutral_scale(unit.tuned, secs)).trials
    return ratio(needed, reach(full.tuned, goal_secs, neutral_scale(full.tuned, full_secs)).trials)


if __name__ == "__main__":
    sys.exit(main())
