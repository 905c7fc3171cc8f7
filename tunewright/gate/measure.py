"""Time two sides of kernels and models in pairs, in fresh processes, until the rule has seen enough."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tunewright.core.closeable import Closeable
from tunewright.core.errors import ConfigError
from tunewright.core.types import Candidate, EvaluatorConfig, MeasureFailure, MeasureInput, TuningTask
from tunewright.gate.model_timer import ModelTimer, SideProblem
from tunewright.gate.statistics import GateRule, PairedTimes, PairGroup, Verdict, alone, judge
from tunewright.scheduler.manifest import read_manifest
from tunewright.workers import LocalMeasurer, WorkerConfig

_RUN_TIMEOUT_SECS = 30.0
_BUILD_TIMEOUT_SECS = 120.0


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two directories of compiled models."""

    name: str
    base: Path
    head: Path


@dataclass(frozen=True, slots=True)
class KernelPair:
    """Two schedules of a task."""

    name: str
    task: TuningTask
    base: Candidate
    head: Candidate


Pair = ModelPair | KernelPair


class PairTimer(Protocol):
    """Times both sides of an item in turns."""

    def time_pairs(self, pair: Pair, *, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        """One fresh process per side, `num_pairs` samples of each, in random order within every pair.

        Raises:
            SideProblem: a side cannot be built or run.
        """
        ...


class LocalTimer(Closeable):
    """On this machine, in forked children: kernels as a race of tuning does, models in the same way.

    `sample_secs`: as many calls as last so long are one time.
    """

    def __init__(self, *, sample_secs: float) -> None:
        self._sample_secs = sample_secs
        self._measurers: dict[int, LocalMeasurer] = {}
        self._model_timers: dict[int, ModelTimer] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    def time_pairs(self, pair: Pair, *, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        """As `PairTimer`.

        Raises:
            ConfigError: the sides run with different numbers of threads.
            EnvironmentProblem: no child can be started here, or there are too few CPUs.
        """
        match pair:
            case ModelPair():
                return self._time_models(pair, num_pairs, rng)
            case KernelPair():
                return self._time_kernels(pair, num_pairs, rng)

    def _time_models(self, pair: ModelPair, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        threads = {path: read_manifest(path).target.num_threads for path in (pair.base, pair.head)}
        if threads[pair.base] != threads[pair.head]:
            raise ConfigError(
                f"{pair.base} was compiled for {threads[pair.base]} threads, {pair.head} for "
                f"{threads[pair.head]}: compile both with the same --threads"
            )
        return self._model_timer(threads[pair.base]).time_pairs(
            pair.base, pair.head, num_pairs=num_pairs, sample_secs=self._sample_secs, rng=rng
        )

    def _time_kernels(self, pair: KernelPair, num_pairs: int, rng: np.random.Generator) -> PairGroup:
        evaluator = EvaluatorConfig(
            min_sample_secs=self._sample_secs,
            build_timeout_secs=_BUILD_TIMEOUT_SECS,
            run_timeout_secs=_RUN_TIMEOUT_SECS,
        )
        inputs = [MeasureInput(pair.task, side, evaluator) for side in (pair.base, pair.head)]
        measurer = self._measurer(pair.task.target.num_threads)
        samples = []
        for label, result in zip(
            ("base", "head"), measurer.interleave(inputs, rounds=num_pairs, rng=rng), strict=True
        ):
            if isinstance(result, MeasureFailure):
                raise SideProblem(f"{label}: {result.kind}: {result.message}")
            samples.append(result.run_secs)
        return PairGroup(samples[0], samples[1])

    def _model_timer(self, num_threads: int) -> ModelTimer:
        if num_threads not in self._model_timers:
            timer = ModelTimer(WorkerConfig.for_threads(num_threads))
            self._model_timers[num_threads] = self._stack.enter_context(timer)
        return self._model_timers[num_threads]

    def _measurer(self, num_threads: int) -> LocalMeasurer:
        if num_threads not in self._measurers:
            config = WorkerConfig.for_threads(num_threads)
            # Pairs need no yardstick: what disturbs one side disturbs the other.
            config = replace(config, watches_reference=False, adapts_build_limit=False)
            self._measurers[num_threads] = self._stack.enter_context(LocalMeasurer(config))
        return self._measurers[num_threads]


Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """Times by name, or why there are none."""

    times: Mapping[str, PairedTimes]
    problems: Mapping[str, str]


def measure_pairs(
    pairs: Sequence[Pair],
    timer: PairTimer,
    rules: Mapping[str, GateRule],
    *,
    rng: np.random.Generator,
    on_progress: Progress = lambda _: None,
) -> Measured:
    """Measure all pairs up to the looks at which their rules decide, and what they find a second time.

    Groups of all items take turns in random order, so that a bad moment of the machine hits a group of many
    and not many groups of one. The rules differ in nothing but effects.
    """
    first = _Round(pairs, timer, rules, rng, on_progress, "")
    first.run(lambda times: _undecided(times, rules))
    judged = judge({name: PairedTimes(groups) for name, groups in first.times.items()}, rules)
    suspects = [pair for pair in pairs if pair.name in judged and judged[pair.name].is_suspect]
    second = _Round(suspects, timer, rules, rng, on_progress, "confirming: ")
    second.run(
        lambda times: {
            name for name, groups in times.items() if alone(groups, rules[name]) is Verdict.INCONCLUSIVE
        }
    )
    times = {
        name: PairedTimes(groups, second.times.get(name, ()))
        for name, groups in first.times.items()
        if name not in second.problems
    }
    return Measured(times, {**first.problems, **second.problems})


def measure_alike(
    pairs: Sequence[Pair],
    timer: PairTimer,
    rule: GateRule,
    *,
    num_experiments: int,
    rng: np.random.Generator,
    on_progress: Progress = lambda _: None,
) -> Measured:
    """Measure each pair `num_experiments` times, as often as the rule's first look needs each time."""
    rules = {pair.name: rule for pair in pairs}
    times: dict[str, tuple[PairGroup, ...]] = {pair.name: () for pair in pairs}
    problems: dict[str, str] = {}
    for number in range(num_experiments):
        running = [pair for pair in pairs if pair.name not in problems]
        title = f"{number + 1} of {num_experiments}: "
        one = _Round(running, timer, rules, rng, on_progress, title)
        one.run(lambda _: set())
        problems |= one.problems
        times = {name: times[name] + groups for name, groups in one.times.items()}
    return Measured({name: PairedTimes(groups) for name, groups in times.items()}, problems)


class _Round:
    """One round of measuring; `times` of those without problems."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        timer: PairTimer,
        rules: Mapping[str, GateRule],
        rng: np.random.Generator,
        on_progress: Progress,
        title: str,
    ) -> None:
        self._open = {pair.name: pair for pair in pairs}
        self._timer = timer
        self._rules = rules
        self._rng = rng
        self._on_progress = on_progress
        self._title = title
        self.times: dict[str, tuple[PairGroup, ...]] = {}
        self.problems: dict[str, str] = {}

    def run(self, still_open: Callable[[Mapping[str, tuple[PairGroup, ...]]], set[str]]) -> None:
        """Measure look by look, each time those that `still_open` names."""
        look_index = 0
        while self._open and look_index < len(next(iter(self._rules.values())).looks):
            sizes = self._rules[next(iter(self._open))].group_sizes(look_index)
            for number, num_pairs in enumerate(sizes):
                for index, place in enumerate(self._rng.permutation(len(names := list(self._open)))):
                    name = names[place]
                    self._on_progress(
                        f"{self._title}look {look_index + 1}, group {number + 1} of {len(sizes)}, "
                        f"{index + 1} of {len(names)}: {name}"
                    )
                    self._measure_group(name, num_pairs)
            names_left = still_open(self.times)
            self._open = {name: pair for name, pair in self._open.items() if name in names_left}
            look_index += 1

    def _measure_group(self, name: str, num_pairs: int) -> None:
        try:
            group = self._timer.time_pairs(self._open[name], num_pairs=num_pairs, rng=self._rng)
        except SideProblem as exc:
            self.problems[name] = str(exc)
            self.times.pop(name, None)
            del self._open[name]
            return
        self.times[name] = (*self.times.get(name, ()), group)


def _undecided(times: Mapping[str, tuple[PairGroup, ...]], rules: Mapping[str, GateRule]) -> set[str]:
    judged = judge({name: PairedTimes(groups) for name, groups in times.items()}, rules)
    return {
        name for name, one in judged.items() if one.verdict is Verdict.INCONCLUSIVE and not one.is_suspect
    }
