"""The neutral harness: the final kernels of all tuners of one task and seed, timed side by side.

Every round is a fresh process that builds all kernels from their traces and times them interleaved, in a
new random order in every pass. The first round also compares their outputs with the unscheduled kernel's.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from side_by_side.results import UnitResult, save_json
from tunewright.core.keys import digest

NUM_ROUNDS = 5
_ROUND_LIMIT_SECS = 300.0


@dataclass(frozen=True, slots=True)
class NeutralTimes:
    """`secs`: seconds per call by tuner, the median of its `samples`, each the median of one round.

    `wrong`: tuner -> what is wrong with its kernel. `traces`: digests of what was timed.
    """

    secs: Mapping[str, float]
    samples: Mapping[str, Sequence[float]]
    wrong: Mapping[str, str]
    traces: Mapping[str, str]


def load_times(path: Path) -> NeutralTimes | None:
    """None where there are none yet."""
    return NeutralTimes(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def is_current(times: NeutralTimes | None, units: Sequence[UnitResult]) -> bool:
    """Whether the kernels of these very runs have been timed, side by side."""
    return times is not None and times.traces == _digests(units)


def measure(units: Sequence[UnitResult], task_file: Path, path: Path, env: Mapping[str, str]) -> NeutralTimes:
    """Time the final kernels of some runs of one task and seed, and keep the times.

    Raises:
        RuntimeError: a round has died.
    """
    traces = {unit.key.tuner: unit.tuned.best_trace for unit in units if unit.tuned.best_trace}
    job = {"task_file": str(task_file), "traces": traces}
    rounds: list[dict[str, list[float]]] = []
    wrong: dict[str, str] = {}
    for index in range(NUM_ROUNDS):
        answer = _run_round({**job, "round": index}, env)
        rounds.append(answer["secs"])
        wrong.update(answer["wrong"])
    samples = {tuner: [statistics.median(one[tuner]) for one in rounds] for tuner in traces}
    secs = {tuner: statistics.median(medians) for tuner, medians in samples.items()}
    times = NeutralTimes(secs, samples, wrong, _digests(units))
    save_json(asdict(times), path)
    return times


def _digests(units: Sequence[UnitResult]) -> dict[str, str]:
    return {
        unit.key.tuner: digest(unit.tuned.best_trace)[:16]
        for unit in units
        if unit.tuned.best_trace is not None
    }


def _run_round(job: Mapping[str, object], env: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "side_by_side.neutral_round"],
        input=json.dumps(job),
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=_ROUND_LIMIT_SECS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"a neutral round of {job['task_file']} died: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
