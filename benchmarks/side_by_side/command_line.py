"""What the benchmarks' command lines share."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from side_by_side.experiment import UNIT_LIMIT_SECS, Experiment, check_settings, run_missing
from side_by_side.tasks import available_tasks


def make_parser(
    description: str | None, *, tuners: Sequence[str], tasks: Sequence[str], num_seeds: int, num_trials: int
) -> argparse.ArgumentParser:
    """A parser with the options that every experiment has; the values are their defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    threads = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of raw results and report")
    add("--tasks", type=names_of(available_tasks()), default=list(tasks), metavar="A,B")
    add("--contestants", type=names_of(tuners), default=list(tuners), metavar="A,B")
    add("--seeds", type=int, default=num_seeds, help="runs of each and task (default: %(default)s)")
    add("--trials", type=int, default=num_trials, help="candidates to measure (default: %(default)s)")
    add("--threads", type=int, default=threads, help="kernel threads of all (default: %(default)s)")
    add("--session-limit", type=float, default=UNIT_LIMIT_SECS, metavar="SECS", help="cut TVM short")
    add("--time-budget", type=float, metavar="SECS", help="start no run that would end later")
    add("--report-only", action="store_true", help="measure nothing, report what is there")
    return parser


def experiment_of(args: argparse.Namespace) -> Experiment:
    return Experiment(
        out=args.out.resolve(),
        tasks=args.tasks,
        tuners=args.contestants,
        num_seeds=args.seeds,
        num_trials=args.trials,
        num_threads=args.threads,
        limit_secs=args.session_limit,
    )


def run(experiment: Experiment, args: argparse.Namespace, write_report: Callable[[Experiment], str]) -> int:
    """Do what is missing, print the report; 0 if everything is done, 1 if not, 2 for a wrong folder."""
    # Terminated, it takes the run that is under way down with it, as when it is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    is_complete = True
    if not args.report_only:
        try:
            check_settings(experiment)
        except ValueError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 2
        is_complete = run_missing(experiment, time_budget_secs=args.time_budget)
    print(write_report(experiment))
    return 0 if is_complete else 1


def names_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of an argument that lists names with commas between them."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of: {', '.join(known)}")
        return names

    return parse
