"""How many trials a second does the log take, how fast does it give the best one, how large does it become?

    python benchmarks/log_database.py --url sqlite:///new.db --out DIR [--trials 1000000] [--source LOG.db]
    python benchmarks/log_database.py --url sqlite:///new.db --out DIR --quick          20,000 trials
    python benchmarks/log_database.py --url postgresql+psycopg://USER@HOST/DATABASE --out DIR

Fills a new log with synthetic trials and measures on the way: one writer with batches of several sizes, 16
processes that append at the same time, lookups of the best trial in a fresh process at 10,000 trials, 100,000
and all, bytes per trial, and opening. Writes DIR/log_database.json with all raw values, and
DIR/log_database.md. The log is left where it is.

The trials are made from those of a tuned log (--source), or of the small sample in log_load/. --write-sample
FILE makes such a sample from --source and does nothing else.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from log_load.load import Plan, run
from log_load.report import markdown
from log_load.results import Results
from log_load.source import read_log, read_sample, write_sample
from log_load.storage import database_name
from log_load.synthesis import Synthesis

from tunewright.core.errors import TunewrightError

_DISTRIBUTIONS = ("tunewright", "sqlalchemy", "numpy", "psycopg")
_SAMPLE_TASKS, _SAMPLE_TRIALS = 10, 12


def main() -> int:
    args = _parse_args()
    try:
        if args.write_sample is not None:
            write_sample(
                read_log(args.source),
                args.write_sample,
                num_tasks=_SAMPLE_TASKS,
                trials_per_task=_SAMPLE_TRIALS,
            )
            return 0
        return _measure(args)
    except (TunewrightError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2


def _measure(args: argparse.Namespace) -> int:
    plan = Plan.quick() if args.quick else Plan.for_trials(args.trials)
    source = read_sample() if args.source is None else read_log(args.source)
    results = Results(
        machine=_machine(),
        database=database_name(args.url),
        source="the sample" if args.source is None else args.source.name,
        seed=args.seed,
        num_tasks=plan.num_tasks,
        feature_share=0.0,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_before=os.getloadavg(),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        versions=_versions(),
    )
    synthesis = Synthesis(
        source, num_tasks=plan.num_tasks, tasks_per_model=plan.tasks_per_model, seed=args.seed
    )
    run(args.url, synthesis, plan, results, say=lambda text: print(text, file=sys.stderr, flush=True))
    args.out.mkdir(parents=True, exist_ok=True)
    results.save(args.out / "log_database.json")
    text = markdown(results)
    (args.out / "log_database.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a new log; it is made, and kept")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--source", type=Path, help="file of a log to make trials from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20,000 trials and fewer lookups")
    parser.add_argument("--write-sample", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.write_sample is None and (args.url is None or args.out is None):
        parser.error("--url and --out are needed")
    if args.write_sample is not None and args.source is None:
        parser.error("--write-sample needs --source")
    return args


def _machine() -> dict[str, object]:
    from tunewright.core.tvm_adapter.target import machine_info

    machine = machine_info()
    return {**asdict(machine), "fingerprint": machine.fingerprint}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    sys.exit(main())
