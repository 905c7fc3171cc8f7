"""The session loop over analytic landscapes: real log, real strategies, real cost model, simulated times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.search.landscapes import Decisions, TileLandscape, conv_landscape, gemm_landscape, tiny_landscape
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    Origin,
    TargetSpec,
    TensorSpec,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.scheduler.events import (
    BatchMeasured,
    ModelRefit,
    SessionEvent,
    SessionFinished,
    SessionStarted,
)
from tunewright.scheduler.session import Budget, SessionConfig, TuningSession
from tunewright.scheduler.task_state import SessionTask
from tunewright.scheduler.tuning import STRATEGIES, OnlineModel, StrategyParts
from tunewright.search import Hardware
from tunewright.tuning_logs import TuningLog
from tunewright.workers.local import MeasurerStats
from tunewright.workers.simulated import Failing, SimulatedMeasurer

pytestmark = pytest.mark.slow

TARGET = TargetSpec("simulated", 4)


class FakeClock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.secs = 0.0

    def monotonic(self) -> float:
        return self.secs

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.secs)


class CountingMeasurer:
    """Remembers what it measured; calls `before` first, which may raise."""

    def __init__(self, inner: SimulatedMeasurer | Failing, before: Callable[[], None]) -> None:
        self._inner = inner
        self._before = before
        self.on_batch: Callable[[int], None] = lambda _: None
        self.measured: list[Candidate] = []
        self.raced: list[Candidate] = []

    @property
    def machine(self) -> MachineInfo:
        return self._inner.machine

    @property
    def stats(self) -> MeasurerStats:
        return self._inner.stats

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        self._before()
        self.measured += [one.candidate for one in inputs]
        self.on_batch(len(inputs))
        return self._inner.measure(inputs)

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        self.raced += [one.candidate for one in inputs]
        return self._inner.race(inputs, rounds=rounds)


@dataclass
class Bench:
    """Two tasks on landscapes; a session is made anew for each `run`, as after a restart."""

    log: TuningLog
    landscapes: Sequence[TileLandscape] = field(default_factory=lambda: (gemm_landscape(), conv_landscape()))
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[SessionEvent] = field(default_factory=list)
    failing: float = 0.0
    on_measure: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.tasks = [_task(landscape, weight) for weight, landscape in enumerate(self.landscapes, start=1)]
        self.by_key = dict(zip([task.key for task in self.tasks], self.landscapes, strict=True))
        self.measurer = self._new_measurer()

    def _new_measurer(self) -> CountingMeasurer:
        simulated = SimulatedMeasurer(self._secs)
        failing = Failing(simulated, ratio=self.failing, seed=1) if self.failing else simulated
        return CountingMeasurer(failing, lambda: self.on_measure())

    def _secs(self, one: MeasureInput) -> float:
        decisions = Decisions.from_json(one.candidate.trace_json)
        secs = self.by_key[one.task.key].secs(decisions)
        return secs * cold_slowdown(one.candidate) if one.evaluator.streamed_bytes else secs

    def run(
        self,
        budget: Budget,
        *,
        strategy: str = "evolutionary",
        seed: int = 0,
        evaluator: EvaluatorConfig = EvaluatorConfig(),  # noqa: B008  # frozen
    ) -> SessionFinished:
        model = OnlineModel(seed=seed)
        entries = [
            SessionTask(
                task,
                STRATEGIES[strategy](StrategyParts(landscape, model, Hardware(), (), seed + index)),
                _default(task, landscape),
            )
            for index, (task, landscape) in enumerate(zip(self.tasks, self.landscapes, strict=True))
        ]
        session = TuningSession(
            entries,
            SessionConfig("two landscapes", strategy, seed, budget, evaluator, batch_size=8),
            store=self.log,
            measurer=self.measurer,
            model=model,
            clock=self.clock,
            on_event=self.events.append,
        )
        return session.run()


def cold_slowdown(candidate: Candidate) -> float:
    """Between 1.5 and 3, of no concern while weights are in the caches."""
    return 1.5 + int(candidate.key[:4], 16) / 0xFFFF * 1.5


def _task(landscape: TileLandscape, weight: int) -> TuningTask:
    workload = Workload(
        name=f"landscape {weight}",
        key=WorkloadKey(f"w1-{landscape.task_key}"),
        mod_json="{}",
        args=(TensorSpec((4, 4), "float32"),),
        flop=1e8,
    )
    task = TuningTask(workload, TARGET, weight)
    landscape.task_key = task.key
    return task


def _default(task: TuningTask, landscape: TileLandscape) -> Candidate:
    plain = Decisions(tuple((n, *[1] * (landscape._n_levels - 1)) for n in landscape._extents), 0)
    return Candidate(task.key, plain.to_json(), Origin.SEED)


@pytest.fixture
def log(tmp_path: Path) -> TuningLog:
    return TuningLog.open(f"sqlite:///{tmp_path / 'tuning.db'}")


def test_session_improves_on_the_defaults_and_measures_them_first(log: TuningLog) -> None:
    bench = Bench(log)
    finished = bench.run(Budget(num_trials=200))
    assert [c.origin for c in bench.measurer.measured[:2]] == [Origin.SEED, Origin.SEED]
    assert len(bench.measurer.measured) == 200
    for status in finished.status.tasks:
        assert status.best_secs is not None and status.default_secs is not None
        assert status.best_secs < 0.5 * status.default_secs
    assert finished.status.latency_secs == pytest.approx(
        sum(status.weight * (status.best_secs or 0) for status in finished.status.tasks)
    )
    assert finished.model_accuracy is not None and finished.model_accuracy > 0.5


_LONG = Budget(num_trials=200, patience=10_000)


def test_refits_are_rarer_where_the_log_is_longer(log: TuningLog) -> None:
    def fitted(bench: Bench, seed: int) -> list[int]:
        bench.run(_LONG, seed=seed)
        return [event.num_records for event in bench.events if isinstance(event, ModelRefit)]

    alone = fitted(Bench(log), seed=0)
    for seed in range(1, 5):
        Bench(log).run(_LONG, strategy="random", seed=seed)
    beside_others = fitted(Bench(log), seed=5)
    num_earlier = beside_others[0]
    own = [num_records - num_earlier for num_records in beside_others]
    assert alone[:3] == [16, 24, 36]
    assert own[:3] == [0, 16, 16 + num_earlier // 64]
    assert own[2] > 24
    assert len(own) >= 4


def test_batches_grow_with_what_is_known_and_fit_into_the_budget(log: TuningLog) -> None:
    bench = Bench(log, landscapes=(gemm_landscape(),))
    bench.run(Budget(num_trials=150, patience=1000))
    sizes = [event.num_measured for event in bench.events if isinstance(event, BatchMeasured)]
    assert sizes == [8, 8, 8, 12, 18, 27, 32, 32, 4]


def test_the_last_batch_is_what_the_time_left_pays_for(log: TuningLog) -> None:
    bench = Bench(log, landscapes=(gemm_landscape(),))

    def a_second_each(inputs: int) -> None:
        bench.clock.secs += inputs

    bench.measurer.on_batch = a_second_each
    finished = bench.run(Budget(time_secs=100, patience=1000))
    assert finished.status.elapsed_secs == pytest.approx(99)  # one second is left for the task's race
    assert finished.num_new_trials == 99


def test_everything_reported_is_in_the_log(log: TuningLog) -> None:
    bench = Bench(log)
    finished = bench.run(Budget(num_trials=60))
    trials = log.session_trials(finished.session_id)
    assert [t.record.candidate.key for t in trials] == [c.key for c in bench.measurer.measured]
    batches = [event for event in bench.events if isinstance(event, BatchMeasured)]
    assert sum(batch.num_measured for batch in batches) == 60 - len(bench.tasks)
    best = {task.key: log.best(task.key)[0] for task in bench.tasks}
    for status in finished.status.tasks:
        assert status.best_secs == pytest.approx(best[status.key].secs)
    assert any(record.is_raced for record in best.values())  # who has no rival needs no race


def test_same_seed_measures_the_same_candidates(tmp_path: Path) -> None:
    measured = []
    for run in range(2):
        bench = Bench(TuningLog.open(f"sqlite:///{tmp_path / str(run)}.db"))
        bench.run(Budget(num_trials=100), seed=3)
        measured.append([candidate.key for candidate in bench.measurer.measured])
    assert measured[0] == measured[1]


def test_other_seed_and_other_strategy_are_other_sessions(log: TuningLog) -> None:
    bench = Bench(log)
    ids = {
        bench.run(Budget(num_trials=10), seed=0).session_id,
        bench.run(Budget(num_trials=10), seed=1).session_id,
        bench.run(Budget(num_trials=10), strategy="random").session_id,
        bench.run(Budget(num_trials=10), strategy="optuna-tpe").session_id,
        bench.run(Budget(num_trials=10), strategy="optuna-cmaes").session_id,
    }
    assert len(ids) == 5


@pytest.mark.parametrize("interrupt_at", [1, 2, 5, 11])
def test_interrupted_session_goes_on(log: TuningLog, interrupt_at: int) -> None:
    """Whatever batch it dies in: nothing recorded is measured again, nothing is lost, the budget is kept."""
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            raise KeyboardInterrupt

    bench = Bench(log, on_measure=interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.run(Budget(num_trials=120))
    recorded = len(bench.measurer.measured)
    assert log.sessions()[0].num_trials == recorded
    finished = bench.run(Budget(num_trials=120))
    started = [event for event in bench.events if isinstance(event, SessionStarted)]
    assert [event.is_resumed for event in started] == [False, True]
    assert finished.num_new_trials == 120 - recorded
    keys = [candidate.key for candidate in bench.measurer.measured]
    assert len(keys) == len(set(keys)) == 120
    indices = [t.record.trial_index for t in log.session_trials(finished.session_id)]
    per_task = [t.record.task_key for t in log.session_trials(finished.session_id)]
    for key in set(per_task):
        assert sorted(i for i, k in zip(indices, per_task, strict=True) if k == key) == list(
            range(per_task.count(key))
        )


def test_finished_session_has_nothing_to_do(log: TuningLog) -> None:
    bench = Bench(log)
    bench.run(Budget(num_trials=40))
    bench.measurer.measured.clear()
    bench.measurer.raced.clear()
    again = bench.run(Budget(num_trials=40))
    assert again.num_new_trials == 0
    assert not bench.measurer.measured and not bench.measurer.raced
    more = bench.run(Budget(num_trials=56))
    assert more.num_new_trials == 16


def test_time_budget_counts_earlier_runs(log: TuningLog) -> None:
    clock = FakeClock()

    def tick() -> None:
        clock.secs += 10.0

    bench = Bench(log, clock=clock, on_measure=tick)
    first = bench.run(Budget(time_secs=50))
    assert first.status.elapsed_secs == pytest.approx(50)
    assert bench.run(Budget(time_secs=50)).num_new_trials == 0
    assert bench.run(Budget(time_secs=80)).status.elapsed_secs == pytest.approx(80)


def test_failures_are_recorded_and_do_not_stop_the_session(log: TuningLog) -> None:
    bench = Bench(log, failing=0.4)
    finished = bench.run(Budget(num_trials=120))
    results = [t.record.result for t in log.session_trials(finished.session_id)]
    failures = [r for r in results if isinstance(r, MeasureFailure) and r.kind is FailureKind.RUN]
    assert len(results) == 120 and 20 < len(failures) < 80
    assert sum(status.num_failures for status in finished.status.tasks) == len(failures)
    assert all(status.best_secs is not None for status in finished.status.tasks)


def test_session_ends_when_nothing_is_left_to_try(log: TuningLog) -> None:
    bench = Bench(log, landscapes=(tiny_landscape(),))
    finished = bench.run(Budget(num_trials=10_000))
    assert "exhausted" in finished.reason
    assert finished.num_new_trials < 60


def test_session_ends_when_every_task_stalls(log: TuningLog) -> None:
    bench = Bench(log)
    finished = bench.run(Budget(num_trials=100_000, patience=48))
    assert "stalled" in finished.reason
    assert all(status.is_done for status in finished.status.tasks)


def test_wrong_kernel_is_never_best(log: TuningLog) -> None:
    """A measurer that finds the fastest ones wrong: they are in the log, and nobody calls them best."""

    class Liar(SimulatedMeasurer):
        def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
            return [
                MeasureFailure(FailureKind.WRONG_RESULT, "output 0 is wrong", 0.1)
                if isinstance(result, MeasureSuccess) and result.median_secs < 3e-3
                else result
                for result in super().measure(inputs)
            ]

    bench = Bench(log)
    bench.measurer = CountingMeasurer(Liar(bench._secs), lambda: None)
    finished = bench.run(Budget(num_trials=120))
    kinds = {
        r.kind
        for t in log.session_trials(finished.session_id)
        if isinstance(r := t.record.result, MeasureFailure)
    }
    assert FailureKind.WRONG_RESULT in kinds
    assert all(status.best_secs is not None and status.best_secs >= 3e-3 for status in finished.status.tasks)


def test_candidate_that_fails_its_race_is_not_best(log: TuningLog) -> None:
    losers = set()

    class FailsRaces(SimulatedMeasurer):
        def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
            default, _, *others = super().race(inputs, rounds=rounds)
            losers.add(inputs[1].candidate.key)
            return [default, MeasureFailure(FailureKind.RUN, "SIGSEGV", 0.1), *others]

    bench = Bench(log)
    bench.measurer = CountingMeasurer(FailsRaces(bench._secs), lambda: None)
    finished = bench.run(Budget(num_trials=60))
    assert finished.num_new_trials == 60 and len(losers) >= len(bench.tasks)
    assert not losers & {log.best(task.key)[0].trial.record.candidate.key for task in bench.tasks}


class RacesElsewhere(SimulatedMeasurer):
    """Races are slower than trials by `slowness` of (number of the race, number of the entrant)."""

    def __init__(
        self, landscape: Callable[[MeasureInput], float], slowness: Callable[[int, int], float]
    ) -> None:
        super().__init__(landscape)
        self._slowness = slowness
        self._num_races = 0

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        self._num_races += 1
        return [
            replace(result, run_secs=tuple(self._slowness(self._num_races, i) * s for s in result.run_secs))
            for i, result in enumerate(super().race(inputs, rounds=rounds))
            if isinstance(result, MeasureSuccess)
        ]


def test_the_default_schedule_races_too(log: TuningLog) -> None:
    """How much faster than it the champion is, is measured side by side."""
    bench = Bench(log)
    races = RacesElsewhere(bench._secs, lambda _, entrant: 2.0 if entrant == 0 else 1.0)
    bench.measurer = CountingMeasurer(races, lambda: None)
    finished = bench.run(Budget(num_trials=60))
    for task, landscape, status in zip(bench.tasks, bench.landscapes, finished.status.tasks, strict=True):
        default = _default(task, landscape)
        first = next(one for one in bench.measurer.raced if one.task_key == task.key)
        assert first.key == default.key
        assert status.default_secs == pytest.approx(
            2.0 * landscape.secs(Decisions.from_json(default.trace_json)), rel=0.1
        )


@pytest.mark.parametrize("slowness", [2.0, 0.5])
def test_a_race_in_a_slow_spell_does_not_hide_who_is_fastest(log: TuningLog, slowness: float) -> None:
    """The machine's speed differs from race to race; the log ranks races and trials in one list."""
    bench = Bench(log)
    races = RacesElsewhere(bench._secs, lambda race, _: slowness**race)
    bench.measurer = CountingMeasurer(races, lambda: None)
    finished = bench.run(Budget(num_trials=80))
    for task, status in zip(bench.tasks, finished.status.tasks, strict=True):
        secs = {
            trial.record.candidate.key: trial.record.result.median_secs
            for trial in log.session_trials(finished.session_id)
            if trial.record.task_key == task.key and isinstance(trial.record.result, MeasureSuccess)
        }
        (best,) = log.best(task.key)
        assert secs[best.trial.record.candidate.key] == min(secs.values())
        assert status.best_secs == pytest.approx(min(secs.values()))
        assert len([one for one in bench.measurer.raced if one.task_key == task.key]) <= 9  # one race


def test_second_session_starts_from_the_first_ones_records(log: TuningLog) -> None:
    bench = Bench(log)
    first = bench.run(Budget(num_trials=120))
    best = {status.key: status.best_secs for status in first.status.tasks}
    bench.measurer.measured.clear()
    second = bench.run(Budget(num_trials=16), seed=9)
    known = {t.record.candidate.key for t in log.session_trials(first.session_id)}
    assert not known & {candidate.key for candidate in bench.measurer.measured}
    for status in second.status.tasks:
        assert status.best_secs is not None and status.best_secs <= (best[status.key] or 0) * 1.001


def test_times_taken_with_weights_from_nearer_neither_lead_nor_mislead(log: TuningLog) -> None:
    bench = Bench(log)
    bench.run(Budget(num_trials=40))
    warm_secs = {task.key: log.best(task.key)[0].secs for task in bench.tasks}
    bench.measurer = bench._new_measurer()  # the old one knows kernels by their times
    cold = bench.run(Budget(num_trials=60), evaluator=EvaluatorConfig(streamed_bytes=1 << 20))
    assert cold.num_new_trials == 60 and len(log.sessions()) == 2
    assert [c.origin for c in bench.measurer.measured[:2]] == [Origin.SEED, Origin.SEED]
    assert len(bench.measurer.measured) == 60
    best_secs = {}
    for task in bench.tasks:
        (best,) = log.best(task.key)
        best_secs[task.key] = best.secs
        candidate, landscape = best.trial.record.candidate, bench.by_key[task.key]
        secs = landscape.secs(Decisions.from_json(candidate.trace_json))
        assert best.secs == pytest.approx(secs * cold_slowdown(candidate))
        own = [t for t in log.session_trials(cold.session_id) if t.record.task_key == task.key]
        results = [t.record.result for t in own]
        assert best.secs <= min(r.median_secs for r in results if isinstance(r, MeasureSuccess)) * 1.001
    assert any(warm_secs[key] < secs for key, secs in best_secs.items())  # else nothing could mislead
