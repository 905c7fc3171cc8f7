"""Whole models against ONNX Runtime, PyTorch and torch.compile: interleaved, same threads and CPUs.

    python benchmarks/vs_runtimes.py run --quick --out DIR                  one small model, about 3 minutes
    python benchmarks/vs_runtimes.py run --log sqlite:///tuning.db --tune-secs 900 --out DIR
    python benchmarks/vs_runtimes.py run --models mlp,resnet50 --batch 1,8 --log sqlite:///tuning.db --out DIR
    python benchmarks/vs_runtimes.py run --models mlp --tune-secs 120,300,900 --out DIR  what time brings
    python benchmarks/vs_runtimes.py report DIR
    python benchmarks/vs_runtimes.py models

`run` makes each model's ONNX file (once, in the cache), tunes it for --tune-secs (0: takes the log as it is),
compiles it, races it in fresh processes, takes it and ONNX Runtime apart kernel by kernel, and writes
DIR/raw/MODEL-bBATCH-SECSs.json; doing it again replaces that file. Of several times of tuning each counts
from the beginning: the session of the one before goes on; all are in one race. `report` writes DIR/report.md
from them.

Models that come from PyTorch, and PyTorch as contestant, need `pip install tunewright[runtimes]` and, for
torch.compile, a C++ compiler; a contestant that cannot run is reported with its reason, the others go on.
"""

import argparse
import itertools
import os
import signal
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_QUICK_MODEL, _QUICK_TUNE_SECS = "mlp", 45.0


def main() -> int:
    args = _parse_args()
    # Terminated, it takes the contestants down with it, as when it is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Children find the benchmarks' modules too; the parent has this folder on its path already.
    paths = [str(_HERE), str(_HERE.parent / "scripts")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"run": _run, "report": _report, "models": _models}[args.command](args)


def _run(args: argparse.Namespace) -> int:
    from platformdirs import user_cache_path
    from runtimes.race import RaceSettings, race
    from runtimes.report import summary_line
    from runtimes.zoo import ZOO

    names = [_QUICK_MODEL] if args.quick else args.models.split(",") if args.models else list(ZOO)
    unknown = [name for name in names if name not in ZOO]
    if unknown:
        print(f"error: {unknown[0]!r} is none of: {', '.join(ZOO)}", file=sys.stderr)
        return 2
    out = args.out.resolve()
    settings = RaceSettings(
        out=out,
        cache=args.cache or user_cache_path("tunewright") / "zoo",
        log=args.log or f"sqlite:///{out / 'tuning.db'}",
        num_threads=args.threads,
        num_rounds=args.rounds,
        with_torch=not args.without_torch,
        patience=args.patience,
    )
    budgets = args.tune_secs or [_QUICK_TUNE_SECS if args.quick else 0.0]
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    for batch, name in itertools.product([1] if args.quick else args.batch, names):
        for run in race(ZOO[name], batch=batch, tune_secs=sorted(budgets), settings=settings):
            print(summary_line(run), flush=True)
            failed |= bool(run.problem)
    return _report(args) or int(failed)


def _report(args: argparse.Namespace) -> int:
    from runtimes.report import write_report

    print(write_report(args.out.resolve()))
    return 0


def _models(_: argparse.Namespace) -> int:
    from runtimes.zoo import ZOO

    for model in ZOO.values():
        print(f"{model.name:22}{model.recipe}")
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="tune, compile, race")
    add = run.add_argument
    add("--out", type=Path, required=True, help="folder of raw results and report")
    add("--models", metavar="A,B", help="default: the whole zoo")
    add("--batch", type=_ints, default=[1], metavar="1,8")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all (default: %(default)s)")
    add("--log", metavar="URL", help="tuning log (default: tuning.db in the folder)")
    add("--tune-secs", type=_ints, metavar="SECS,SECS", help="tune each model first (default: 0)")
    add("--patience", type=int, help="of `tunewright tune`, to go on when every task has stalled")
    add("--rounds", type=int, default=20, help="interleaved turns of each (default: %(default)s)")
    add("--cache", type=Path, help="folder of the zoo's ONNX files")
    add("--without-torch", action="store_true", help="race ONNX Runtime only")
    add("--quick", action="store_true", help="one small model, tuned for 45 s")
    report = commands.add_parser("report", help="tables of what is there")
    report.add_argument("out", type=Path, metavar="DIR")
    commands.add_parser("models", help="list the zoo")
    return parser.parse_args()


def _ints(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
