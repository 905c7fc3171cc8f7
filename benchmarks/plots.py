"""How long does a picture take, as a whole command, of a log of 100,000 trials?

    python benchmarks/plots.py --out DIR [--trials 100000] [--rounds 5]
    python benchmarks/plots.py --out DIR --log LOG.db            of the latest session of that log

Makes a log with two sessions of a model of 60 tasks, a tenth of the trials in the first, from the real ones
in log_load/. Then each kind is drawn in each round by a fresh `tunewright plot` (wall and CPU time), after a
first round that does not count. Python may keep compiled modules in DIR, whatever the environment says.
Writes DIR/plots.json with all raw values, and DIR/plots.md.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from log_load.source import read_sample
from log_load.synthesis import Synthesis

from tunewright.core.log_url import file_url
from tunewright.core.types import MachinePeak
from tunewright.tuning_logs import TuningLog

_NUM_TASKS = 60
_BATCH = 1_000
_KINDS = ("curve", "tasks", "gain", "outcomes", "model", "roofline", "history", "compare", "coverage")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each run of one kind."""

    kind: str
    wall_secs: list[float] = field(default_factory=list)
    cpu_secs: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--log", type=Path, help="an SQLite log to draw; it is only read")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.log or args.out / f"{args.trials}.db"
    if not path.exists():
        make_log(path, args.trials)
    with TuningLog.open(file_url(path), read_only=True) as log:
        session_ids = [session.session_id for session in log.sessions()]
        num_trials = log.stats().num_trials
    times = {kind: Times(kind) for kind in _KINDS if kind != "compare" or len(session_ids) > 1}
    for number, kind in itertools.product(range(args.rounds + 1), times):
        wall_secs, cpu_secs = draw(kind, path, args.out, session_ids)
        if number:
            times[kind].wall_secs.append(wall_secs)
            times[kind].cpu_secs.append(cpu_secs)
    text = markdown(times.values(), num_trials, args.rounds)
    facts = {
        "num_trials": num_trials,
        "python": sys.version,
        "cpus": sorted(os.sched_getaffinity(0)),
        "load_after": os.getloadavg(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "times": [asdict(one) for one in times.values()],
    }
    (args.out / "plots.json").write_text(json.dumps(facts, indent=1))
    (args.out / "plots.md").write_text(text)
    print(text)


def make_log(path: Path, num_trials: int) -> None:
    print(f"filling {path} with {num_trials:,} trials", file=sys.stderr)
    synthesis = Synthesis(read_sample(), num_tasks=_NUM_TASKS, tasks_per_model=_NUM_TASKS, seed=1)
    first = num_trials // 10
    with TuningLog.open(file_url(path)) as log:
        log.add_tasks(synthesis.tasks)
        for stream, (name, number) in enumerate((("earlier", first), ("model", num_trials - first)), start=1):
            session = synthesis.session(0, name=name)
            log.start_session(session)
            trials = itertools.islice(synthesis.trials_of_session(session, stream=stream), number)
            while batch := [(record, None) for record, _ in itertools.islice(trials, _BATCH)]:
                log.append(batch)
        bandwidths = ((1 << 15, 1e11), (1 << 28, 1e10))
        log.add_peak(MachinePeak(session.machine, session.target, 1e12, bandwidths, session.created_at))


def draw(kind: str, log: Path, out: Path, session_ids: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of the whole command.

    Raises:
        CalledProcessError: it failed.
    """
    names = session_ids[-2:] if kind == "compare" else []
    command = [sys.executable, "-m", "tunewright", "plot", kind, *names, "--log", str(log)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(out.absolute() / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [*command, "-o", str(out / f"{kind}.svg")], env=environment, check=True, stderr=subprocess.DEVNULL
    )
    wall_secs = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_secs, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def markdown(times: Iterable[Times], num_trials: int, num_rounds: int) -> str:
    lines = [
        f"Whole commands `tunewright plot KIND -o KIND.svg` on a log of {num_trials:,} trials; medians of "
        f"{num_rounds} rounds, in brackets the slowest.",
        "",
        "| kind | wall s | CPU s |",
        "|---|---|---|",
    ]
    for one in times:
        walls, cpus = one.wall_secs, one.cpu_secs
        lines.append(
            f"| `{one.kind}` | {statistics.median(walls):.2f} ({max(walls):.2f}) "
            f"| {statistics.median(cpus):.2f} ({max(cpus):.2f}) |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
