"""Single runs of the gate: measuring them, keeping their raw times, and judging these again."""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from tunewright.gate.measure import KernelPair, LocalTimer, Pair, PairTimer, SideProblem, measure_pairs
from tunewright.gate.statistics import GateRule, Judgement, PairedTimes, PairGroup, judge
from tunewright.workers import LocalMeasurer, WorkerConfig

RULE = GateRule()
SAMPLE_SECS = 0.05
_NUM_DIGITS = 6

Sides = tuple[tuple[TuningTask, Candidate], tuple[TuningTask, Candidate]]


@dataclass(frozen=True, slots=True)
class GateRun:
    """All pairs that the gate took of one kernel; `effect`: the share of work that head does in addition."""

    kernel: str
    effect: float
    seed: int
    times: PairedTimes


def measure_runs(
    kernels: Sequence[str], effects: Sequence[float], seeds: Iterable[int], target: TargetSpec
) -> Iterator[GateRun]:
    """One run per seed, kernel and effect; for each seed all is started anew, as a gate run does."""
    for seed in seeds:
        made = {name: make_kernels(name, target) for name in kernels}
        with LocalTimer(sample_secs=SAMPLE_SECS) as alike, LocalMeasurer(_config(target)) as measurer:
            for place in np.random.default_rng(seed).permutation(len(kernels) * len(effects)):
                name, effect = kernels[place // len(effects)], effects[place % len(effects)]
                (task, candidate), head = made[name][0.0], made[name][effect]
                timer: PairTimer = alike if not effect else _WorkTimer(measurer, ((task, candidate), head))
                yield _measure(name, effect, seed, KernelPair(name, task, candidate, candidate), timer)


def _measure(name: str, effect: float, seed: int, pair: Pair, timer: PairTimer) -> GateRun:
    rng = np.random.default_rng([seed, round(1000 * effect)])
    measured = measure_pairs([pair], timer, {name: RULE}, rng=rng)
    if measured.problems:
        raise SideProblem(f"{name}: {measured.problems[name]}")
    return GateRun(name, effect, seed, measured.times[name])


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
    return judge({run.kernel: run.times}, {run.kernel: RULE})[run.kernel]


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
        "kernel": run.kernel,
        "effect": run.effect,
        "seed": run.seed,
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
    return GateRun(fields["kernel"], fields["effect"], fields["seed"], PairedTimes(first, second))
