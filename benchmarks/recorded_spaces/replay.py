"""A recorded design space, searched as the real one is: applying and timing are looking up."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from side_by_side.variants import Setup, search_with

from tunewright.core.types import (
    AppliedCandidate,
    Draft,
    MeasureInput,
    RecordedTrial,
    TuningTask,
    calibrated_secs,
)
from tunewright.scheduler import tuning
from tunewright.search.decisions import DecisionPoint, DecisionSpace
from tunewright.tuning_logs import TuningLog
from tunewright.workers import Noisy, SimulatedMeasurer


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task with all that was timed of it in every pass, its default schedule too.

    `passes`: seconds by candidate key, of each pass; `secs`: their medians.
    """

    task: TuningTask
    trials: Sequence[RecordedTrial]
    passes: Sequence[Mapping[str, float]]
    secs: Mapping[str, float]

    @property
    def best_secs(self) -> float:
        return min(self.secs.values())


def load(folder: Path, name: str) -> RecordedTask:
    """What `recording.record` has left of a task: the points of all passes, medians of their times."""
    passes: list[dict[str, float]] = []
    trials: dict[str, RecordedTrial] = {}
    for path in sorted(folder.glob(f"{name}.*.sqlite")):
        with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
            [summary] = log.tasks()
            timed = [
                trial
                for session in log.sessions()
                for trial in log.session_trials(session.session_id, with_features=True)
            ]
            task = log.task(summary.task_key)
        trials |= {trial.record.candidate.key: trial for trial in timed}
        times = calibrated_secs([trial.record.result for trial in timed])
        passes.append({t.record.candidate.key: secs for t, secs in zip(timed, times, strict=True)})
    in_all = [key for key in passes[0] if all(key in one for one in passes)]
    medians = {key: statistics.median(one[key] for one in passes) for key in in_all}
    return RecordedTask(task, [trials[key] for key in in_all], passes, medians)


class RecordedSpace:
    """A design space of nothing but the recorded points."""

    def __init__(self, recorded: RecordedTask) -> None:
        self._decisions = DecisionSpace()
        self._by_point: dict[DecisionPoint, AppliedCandidate] = {}
        for trial in recorded.trials:
            candidate = trial.record.candidate
            point = self._decisions.learn(candidate.trace_json)
            if point is not None and trial.features is not None:
                program_key = trial.record.result.object_key or candidate.key
                self._by_point[point] = AppliedCandidate(candidate, trial.features, program_key)
        self._applied = list(self._by_point.values())

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        rng = np.random.default_rng(seed)
        return [self._applied[i] for i in rng.integers(len(self._applied), size=n)]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        return [self._realised(draft) for draft in drafts]

    def _realised(self, draft: Draft) -> AppliedCandidate | None:
        parent = self._decisions.learn(draft.parent.trace_json)
        found = self._by_point.get(DecisionPoint(parent.sketch, draft.decisions)) if parent else None
        if found is None:
            return None
        candidate = replace(found.candidate, origin=draft.origin, parent_key=draft.parent.key)
        return replace(found, candidate=candidate)


def search(recorded: RecordedTask, space: RecordedSpace, setup: Setup, *, noise: float) -> list[float]:
    """One session: the recorded seconds of what it took for its best after each trial.

    Args:
        noise: relative standard deviation of a sample.
    """

    def landscape(measure_input: MeasureInput) -> float:
        return recorded.secs[measure_input.candidate.key]

    search_with(setup.evolutionary)
    measurer = Noisy(SimulatedMeasurer(landscape), relative_std=noise, seed=setup.options.seed)
    with TuningLog.open("sqlite://") as log:
        finished = tuning.tune_tasks(
            [recorded.task],
            setup.options,
            model_name=recorded.task.workload.name,
            store=log,
            measurer=measurer,
            make_space=lambda _: space,
        )
        trials = log.session_trials(finished.session_id)
    return _best_so_far(trials, recorded.secs)


def _best_so_far(trials: Sequence[RecordedTrial], known: Mapping[str, float]) -> list[float]:
    """What the fastest trial by its noisy samples really takes, after each trial."""
    curve: list[float] = []
    best_measured, best = float("inf"), float("inf")
    times = calibrated_secs([trial.record.result for trial in trials])
    for trial, measured in zip(trials, times, strict=True):
        if measured < best_measured:
            best_measured, best = measured, known[trial.record.candidate.key]
        curve.append(best)
    return curve
