"""Single runs of the gate: measuring them, keeping their raw times, and judging these again."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gate_runs.kernels import make_kernels
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    MeasureFailure,
    MeasureInput,
    TargetSpec,
    TuningTask,
)
from tunewright.gate.measure import KernelPair, LocalTimer, Pair, PairTimer, measure_pairs
from tunewright.gate.model_timer import SideProblem
from tunewright.gate.statistics import GateRule, Judgement, PairedTimes, PairGroup, judge
from tunewright.workers import LocalMeasurer, WorkerConfig

RULE = GateRule()
SAMPLE_SECS = 0.05
_NUM_DIGITS = 6

Sides = tuple[tuple[TuningTask, Candidate], tuple[TuningTask, Candidate]]


@dataclass(frozen=True, slots=True)
class RunKey:
    """`effect`: the share of work that head does in addition."""

    kernel: str
    effect: float
    seed: int

    def __str__(self) -> str:
        return f"{self.kernel} +{100 * self.effect:.0f} %, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class GateRun:
    """All pairs that the gate took of one kernel."""

    key: RunKey
    times: PairedTimes


def measure_runs(keys: Sequence[RunKey], target: TargetSpec) -> Iterator[GateRun]:
    """Those of a seed in random order; for each seed all is started anew, as a gate run does."""
    made = {name: make_kernels(name, target) for name in {key.kernel for key in keys}}
    for seed in sorted({key.seed for key in keys}):
        same_seed = [key for key in keys if key.seed == seed]
        with LocalTimer(sample_secs=SAMPLE_SECS) as alike, LocalMeasurer(_config(target)) as measurer:
            for place in np.random.default_rng(seed).permutation(len(same_seed)):
                key = same_seed[place]
                base, head = made[key.kernel][0.0], made[key.kernel][key.effect]
                timer: PairTimer = _WorkTimer(measurer, (base, head)) if key.effect else alike
                yield _measure(key, KernelPair(key.kernel, base[0], base[1], base[1]), timer)


def _measure(key: RunKey, pair: Pair, timer: PairTimer) -> GateRun:
    rng = np.random.default_rng([key.seed, round(1000 * key.effect)])
    measured = measure_pairs([pair], timer, {key.kernel: RULE}, rng=rng)
    if measured.problems:
        raise SideProblem(f"{key}: {measured.problems[key.kernel]}")
    return GateRun(key, measured.times[key.kernel])


class _WorkTimer:
    """As the gate times kernels, but head is another task: one with more work."""

    def __init__(self, measurer: LocalMeasurer, sides: Sides) -> None:
        self._measurer = measurer
        self._inputs = [
            MeasureInput(task, candidate, EvaluatorConfig(min_sample_secs=SAMPLE_SECS))
            for task, candidate in sides
        ]

    def time_pairs(self, pair: Pair, *, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        samples = []
        for result in self._measurer.interleave(self._inputs, rounds=num_pairs, rng=rng):
            if isinstance(result, MeasureFailure):
                raise SideProblem(f"{result.kind}: {result.message}")
            samples.append(result.run_secs)
        return PairGroup(samples[0], samples[1])


def _config(target: TargetSpec) -> WorkerConfig:
    config = WorkerConfig.for_threads(target.num_threads)
    return replace(config, watches_reference=False, adapts_build_limit=False)


def judge_run(run: GateRun) -> Judgement:
    """What `tunewright gate` says of it, alone."""
    return judge({run.key.kernel: run.times}, {run.key.kernel: RULE})[run.key.kernel]


def append_run(run: GateRun, path: Path) -> None:
    """Add a line to a file of raw times."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_fields(run), separators=(",", ":")) + "\n")


def read_runs(path: Path) -> list[GateRun]:
    """Read such files, compressed ones as well."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [_run(json.loads(line)) for line in file]


def _fields(run: GateRun) -> Mapping[str, Any]:
    return {
        **asdict(run.key),
        "first": _rounded(run.times.first),
        "second": _rounded(run.times.second),
    }


def _rounded(groups: Sequence[PairGroup]) -> list[list[list[float]]]:
    """Microseconds: [group][base, head][pair]."""
    return [
        [[float(f"{1e6 * secs:.{_NUM_DIGITS}g}") for secs in side] for side in (one.base_secs, one.head_secs)]
        for one in groups
    ]


def _run(fields: Mapping[str, Any]) -> GateRun:
    first, second = (
        tuple(PairGroup(*(tuple(micros / 1e6 for micros in side) for side in group)) for group in fields[key])
        for key in ("first", "second")
    )
    key = RunKey(fields["kernel"], fields["effect"], fields["seed"])
    return GateRun(key, PairedTimes(first, second))
