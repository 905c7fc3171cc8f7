"""The tuning session: ask, measure, record, tell, refit, until the budget is spent or nothing more is gained.

It decides *when*; strategies decide *what*, workers decide *how*. It runs no candidate code, and it holds no
state that the log does not: a session that is killed goes on from its records.
"""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

import tunewright
from tunewright.core.clock import Clock
from tunewright.core.keys import digest
from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    EvaluatorConfig,
    FailureKind,
    FloatArray,
    MeasureFailure,
    MeasureInput,
    MeasureSuccess,
    ModelSnapshot,
    RecordedTrial,
    SessionInfo,
    TuningRecord,
    TuningTask,
)
from tunewright.scheduler.events import (
    BatchMeasured,
    DefaultsMeasured,
    ModelRefit,
    RaceFinished,
    SessionEvent,
    SessionFinished,
    SessionStarted,
    SessionStatus,
    TimeSplit,
)
from tunewright.scheduler.protocols import LearnedModel, Measurer, RankedTrial, RecordStore
from tunewright.scheduler.task_scheduler import next_task
from tunewright.scheduler.task_state import SessionTask, TaskState, latency_secs
from tunewright.search.strategy import Proposal

_log = logging.getLogger(__name__)

# Records of earlier sessions that the model starts from: the newest ones of the same CPU.
_MAX_TRAINING_TRIALS = 8192
# A refit costs 0.05 ms per trial, others' included: first when there is something to learn from, then when
# the session's own trials grew by half, and by a share of the others', or a long log makes each batch wait.
_MIN_TRIALS_TO_FIT = 16
_REFIT_GROWTH, _REFIT_GROWTH_BY_OTHERS = 0.5, 1 / 64
# Small batches find more at first. Larger ones leave CPUs idle less often, and find as much later.
_MAX_BATCH_GROWTH = 4
_RACE_SIZE, _MAX_RIVALS = 3, 16
RACE_ROUNDS = 40
# What the races of a task take, builds included: kept of a time budget, but for most of a short one.
_RACE_SECS_PER_TASK = 1.0
_MAX_RACE_SHARE = 0.25
# A record that has not raced may outrank a raced one by luck: then it races too, but not for ever. Of those
# whose times do not compare many may, and once only: a raced one is known.
_MAX_RACES, _MAX_RACES_OF_OTHERS = 3, 8


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop: after `num_trials` measured candidates, after `time_secs`, or when every task stalls.

    The final races, about a second per task, are part of `time_secs`, up to a quarter of it.
    """

    num_trials: int | None = None
    time_secs: float | None = None
    patience: int = 128


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """One tuning session. `batch_size` candidates of one task are measured at a time, later up to four times
    as many."""

    model_name: str
    strategy: str
    seed: int
    budget: Budget
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    batch_size: int = 16


def session_id_of(tasks: Sequence[TuningTask], config: SessionConfig, machine_fingerprint: str) -> str:
    """The same tasks, strategy and seed on the same machine are the same session, whatever its budget.

    But for where weights are read from: times with others do not compare.
    """
    streamed_bytes = config.evaluator.streamed_bytes
    return digest(
        *sorted(task.key for task in tasks),
        config.strategy,
        str(config.seed),
        machine_fingerprint,
        *([str(streamed_bytes)] if streamed_bytes else []),
    )[:16]


class TuningSession:
    """Tunes a model's tasks within a budget. Build it, call `run` once."""

    def __init__(
        self,
        tasks: Sequence[SessionTask],
        config: SessionConfig,
        *,
        store: RecordStore,
        measurer: Measurer,
        model: LearnedModel,
        clock: Clock,
        on_event: Callable[[SessionEvent], None],
    ) -> None:
        self._config = config
        self._store = store
        self._measurer = measurer
        self._model = model
        self._clock = clock
        self._on_event = on_event
        self._states = [TaskState(entry) for entry in tasks]
        fingerprint = measurer.machine.fingerprint
        self.session_id = session_id_of([entry.task for entry in tasks], config, fingerprint)
        self._earlier: list[RecordedTrial] = []  # what the model learns from: of other sessions,
        self._training: list[RecordedTrial] = []  # and of this one
        self._num_fitted: int | None = None  # of this one
        self._model_id: str | None = None
        self._unsaved_model: ModelSnapshot | None = None
        self._num_before = 0  # trials and seconds of earlier runs
        self._elapsed_before = 0.0
        self._elapsed_saved = 0.0  # of this run
        self._started = clock.monotonic()
        self._stats_before = measurer.stats
        self._spent = dict.fromkeys(("search", "log", "model"), 0.0)

    def run(self) -> SessionFinished:
        """Tune until the budget is spent, every task stalls, or nothing is left to try.

        Raises:
            WorkerUnavailableError: no measurement worker answers any more.
            StoreError: a result cannot be recorded.
        """
        self._started = self._clock.monotonic()
        self._resume()
        try:
            self._measure_defaults()
            reason = self._tune()
            self._race_all()
        finally:
            self._save_elapsed()
            # Only the last: a session refits a hundred times, and a model takes as much room as 200 trials.
            if self._unsaved_model is not None:
                self._store.save_model(self._unsaved_model)
        finished = SessionFinished(
            session_id=self.session_id,
            reason=reason,
            num_new_trials=self._num_trials() - self._num_before,
            split=self._split(),
            model_accuracy=self._model.online_accuracy(self._training),
            status=self.status(),
        )
        self._on_event(finished)
        return finished

    def _tune(self) -> str:
        while (reason := self._why_stop()) is None:
            index = next_task(
                [state.progress() for state in self._states], patience=self._config.budget.patience
            )
            if index is None:
                return "every task has stalled or is exhausted"
            state = self._states[index]
            with self._timed("model"):
                self._refit_if_due()
            with self._timed("search"):
                proposals = state.entry.strategy.ask(self._batch_size(state))
            if not proposals:
                state.is_exhausted = True
                continue
            best_secs = state.best_secs
            recorded = self._measure([(state, proposal) for proposal in proposals])
            self._report(state, best_secs, recorded)
        return reason

    def _resume(self) -> None:
        """Load what the log knows: earlier trials of the session count, all trials of a task are told."""
        tasks = [state.entry.task for state in self._states]
        self._store.add_tasks(tasks)
        known = self._store.start_session(self._session_info())
        self._num_before, self._elapsed_before = known.num_trials, known.elapsed_secs
        counts = self._store.count_trials(self.session_id)
        for state in self._states:
            state.num_trials_of_session = counts.get(state.entry.task.key, 0)
            known_trials = self._store.trials(
                state.entry.task.key,
                machine_fingerprint=self._measurer.machine.fingerprint,
                with_features=True,
            )
            state.add(list(filter(self._is_comparable, known_trials)))
        trials = self._store.training_trials(mcpu=tasks[0].target.mcpu, limit=_MAX_TRAINING_TRIALS)
        for trial in trials:
            is_own = trial.record.session_id == self.session_id
            (self._training if is_own else self._earlier).append(trial)
        self._on_event(SessionStarted(self.session_id, not known.is_new, self.status()))

    def _measure_defaults(self) -> None:
        """Candidate 0 of every task is our default schedule: no champion can be worse than it."""
        pending = [state for state in self._states if not state.has_default]
        for start in range(0, len(pending), self._config.batch_size):
            if self._why_stop() is not None:
                return
            batch = pending[start : start + self._config.batch_size]
            recorded = self._measure([(state, _default_proposal(state.entry.default)) for state in batch])
            self._on_event(DefaultsMeasured(len(recorded), _failures(recorded), self.status()))

    def _measure(self, batch: Sequence[tuple[TaskState, Proposal]]) -> list[RecordedTrial]:
        """Measure, commit, then tell: whoever is told of a trial can find it in the log."""
        incumbents = {id(state): state.incumbent() for state in {id(s): s for s, _ in batch}.values()}
        inputs = [
            self._measure_input(state, proposal.applied.candidate, incumbents[id(state)])
            for state, proposal in batch
        ]
        results = self._measurer.measure(inputs)
        trials: list[tuple[TuningRecord, FloatArray | None]] = []
        for (state, proposal), result in zip(batch, results, strict=True):
            record = TuningRecord(
                session_id=self.session_id,
                trial_index=state.num_trials_of_session,
                candidate=proposal.applied.candidate,
                result=result,
                evaluator=self._config.evaluator,
                machine=self._measurer.machine,
                strategy=self._config.strategy,
                seed=self._config.seed,
                finished_at=self._clock.now(),
                code_version=tunewright.__version__,
                model_id=self._model_id if proposal.score is not None else None,
                predicted_score=proposal.score,
            )
            state.num_trials_of_session += 1
            features = proposal.applied.features
            trials.append((record, features if features.size else None))
        with self._timed("log"):
            recorded = self._store.append(trials)
            self._save_elapsed()
        self._training.extend(trial for trial in recorded if trial.features is not None)
        with self._timed("search"):
            for state in {id(state): state for state, _ in batch}.values():
                state.add([t for t in recorded if t.record.task_key == state.entry.task.key])
        return recorded

    def _measure_input(
        self, state: TaskState, candidate: Candidate, incumbent: MeasureSuccess | None
    ) -> MeasureInput:
        task, evaluator = state.entry.task, self._config.evaluator
        if incumbent is None:
            return MeasureInput(task, candidate, evaluator)
        return MeasureInput(task, candidate, evaluator, incumbent.median_secs, incumbent.yardstick_secs)

    def _report(self, state: TaskState, best_secs: float, recorded: Sequence[RecordedTrial]) -> None:
        self._on_event(
            BatchMeasured(
                task_name=state.entry.task.workload.name,
                task_key=state.entry.task.key,
                num_measured=len(recorded),
                failures=_failures(recorded),
                improved_secs=state.best_secs if state.best_secs < best_secs else None,
                status=self.status(),
            )
        )

    def _refit_if_due(self) -> None:
        """Refit at fixed sizes of the training set: a resumed session learns what an unbroken one did."""
        due = _fit_size(len(self._training), len(self._earlier))
        if due == self._num_fitted or len(self._earlier) + due < _MIN_TRIALS_TO_FIT:
            return
        snapshot = self._model.fit_trials(self._earlier + self._training[:due])
        self._num_fitted = due
        self._model_id, self._unsaved_model = snapshot.model_id, snapshot
        self._on_event(ModelRefit(snapshot.model_id, snapshot.n_records))

    def _race_all(self) -> None:
        """Time the best few of each task again, interleaved: that median is the number shown to people.

        First those that may be fastest, also such as nobody has verified yet, beside the default schedule, so
        that what has been gained is measured side by side. Then, while the log's best is one that has not
        raced as this session times, those that the log ranks first, beside it too.
        """
        for state in self._states:
            entrants: Sequence[RecordedTrial] = state.race_entrants()
            for attempt in range(_MAX_RACES_OF_OTHERS):
                ranked = self._ranked(state)
                if len(entrants) < 2 or (ranked and self._has_raced(state, ranked[0])):
                    break
                if attempt >= _MAX_RACES and self._is_comparable(ranked[0].trial):
                    break
                self._race(state, entrants)
                entrants = self._rivals(state)

    def _rivals(self, state: TaskState) -> list[RecordedTrial]:
        """Who leads by the log's times, more of them where those do not compare, and those beside them."""
        trials = [item.trial for item in self._ranked(state)]
        is_misled = bool(trials) and not self._is_comparable(trials[0])
        return state.race_again(trials if is_misled else trials[:_RACE_SIZE])

    def _has_raced(self, state: TaskState, best: RankedTrial) -> bool:
        is_known = best.trial.record_id in state.raced
        return is_known or (best.is_raced and self._is_comparable(best.trial))

    def _is_comparable(self, trial: RecordedTrial) -> bool:
        """Whether a trial was timed with weights from as far as this session's."""
        return trial.record.evaluator.streamed_bytes == self._config.evaluator.streamed_bytes

    def _race(self, state: TaskState, entrants: Sequence[RecordedTrial]) -> None:
        task = state.entry.task
        inputs = [MeasureInput(task, trial.record.candidate, self._config.evaluator) for trial in entrants]
        results = self._measurer.race(inputs, rounds=RACE_ROUNDS)
        factor = state.race_factor(
            [
                (trial, result)
                for trial, result in zip(entrants, results, strict=True)
                if isinstance(result, MeasureSuccess) and self._is_comparable(trial)
            ]
        )
        for trial, result in zip(entrants, results, strict=True):
            if isinstance(result, MeasureSuccess):
                run_secs = tuple(secs * factor for secs in result.run_secs)
                now, is_verified = self._clock.now(), result.is_verified
                self._store.add_race(trial.record_id, run_secs, now, is_verified=is_verified)
                state.add_race(trial, statistics.median(run_secs))
            elif result.kind is not FailureKind.WORKER_LOST:
                # It ran before: a candidate that fails now is not to be trusted.
                reason = f"{result.kind} in its race: {result.message}"
                self._store.mark_unusable(trial.record_id, reason)
        for winner in self._ranked(state)[:1]:
            state.raced_secs = winner.secs
            key = winner.trial.record.candidate.key
            self._on_event(RaceFinished(task.workload.name, task.key, key, winner.secs, len(entrants)))

    def _ranked(self, state: TaskState) -> Sequence[RankedTrial]:
        fingerprint = self._measurer.machine.fingerprint
        return self._store.best(state.entry.task.key, k=_MAX_RIVALS, machine_fingerprint=fingerprint)

    def _why_stop(self) -> str | None:
        budget = self._config.budget
        if budget.num_trials is not None and self._num_trials() >= budget.num_trials:
            return f"{budget.num_trials} trials are measured"
        if budget.time_secs is not None and self._elapsed() >= self._search_secs(budget.time_secs):
            return f"{budget.time_secs:.0f} s are spent"
        return None

    def _batch_size(self, state: TaskState) -> int:
        """Half as many as the task has behind it, within limits, and not more than the budget pays for."""
        smallest = self._config.batch_size
        sizes = [max(smallest, min(state.num_trials_of_session // 2, _MAX_BATCH_GROWTH * smallest))]
        budget = self._config.budget
        if budget.num_trials is not None:
            sizes.append(budget.num_trials - self._num_trials())
        num_done = self._num_trials() - self._num_before
        if budget.time_secs is not None and num_done:
            secs_per_trial = self._elapsed_of_run() / num_done
            secs_left = self._search_secs(budget.time_secs) - self._elapsed()
            sizes.append(math.ceil(secs_left / secs_per_trial))
        return max(1, min(sizes))

    def _search_secs(self, time_secs: float) -> float:
        """What is left of a time budget beside the races at its end."""
        return time_secs - min(_RACE_SECS_PER_TASK * len(self._states), _MAX_RACE_SHARE * time_secs)

    def _num_trials(self) -> int:
        return sum(state.num_trials_of_session for state in self._states)

    def _save_elapsed(self) -> None:
        """A killed session must not get its time budget again."""
        elapsed = self._elapsed_of_run()
        self._store.add_elapsed(self.session_id, elapsed - self._elapsed_saved)
        self._elapsed_saved = elapsed

    def _elapsed_of_run(self) -> float:
        return self._clock.monotonic() - self._started

    def _elapsed(self) -> float:
        return self._elapsed_before + self._elapsed_of_run()

    def status(self) -> SessionStatus:
        """Where the session stands now."""
        tasks = [state.status(self._config.budget.patience) for state in self._states]
        return SessionStatus(
            tasks=tasks,
            num_trials=self._num_trials(),
            num_resumed=self._num_before,
            elapsed_secs=self._elapsed(),
            latency_secs=latency_secs(tasks),
            default_latency_secs=latency_secs(tasks, of_default=True),
            remaining_secs=self._remaining_secs(),
        )

    def _remaining_secs(self) -> float | None:
        budget, estimates = self._config.budget, []
        if budget.time_secs is not None:
            estimates.append(budget.time_secs - self._elapsed())
        done = self._num_trials() - self._num_before
        if budget.num_trials is not None and done > 0:
            estimates.append((budget.num_trials - self._num_trials()) * self._elapsed_of_run() / done)
        return max(0.0, min(estimates)) if estimates else None

    def _split(self) -> TimeSplit:
        stats, before = self._measurer.stats, self._stats_before
        return TimeSplit(
            search_secs=self._spent["search"],
            build_secs=stats.build_wall_secs - before.build_wall_secs,
            run_secs=stats.run_wall_secs - before.run_wall_secs,
            log_secs=self._spent["log"],
            model_secs=self._spent["model"],
            total_secs=self._elapsed_of_run(),
        )

    def _session_info(self) -> SessionInfo:
        tasks = [state.entry.task for state in self._states]
        return SessionInfo(
            session_id=self.session_id,
            model_name=self._config.model_name,
            target=tasks[0].target,
            strategy=self._config.strategy,
            seed=self._config.seed,
            machine=self._measurer.machine,
            task_weights={task.key: task.weight for task in tasks},
            created_at=self._clock.now(),
        )

    @contextmanager
    def _timed(self, activity: str) -> Iterator[None]:
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self._spent[activity] += self._clock.monotonic() - start


def _default_proposal(candidate: Candidate) -> Proposal:
    no_features = np.empty((0, 0), dtype=np.float32)
    return Proposal(AppliedCandidate(candidate, no_features, program_key=candidate.key), score=None)


def _failures(trials: Sequence[RecordedTrial]) -> dict[FailureKind, int]:
    results = (trial.record.result for trial in trials)
    return dict(Counter(result.kind for result in results if isinstance(result, MeasureFailure)))


def _fit_size(num_trials: int, num_earlier: int) -> int:
    """The largest size, among those that a refit is due at, that the session's trials have reached, or 0."""
    size, next_size = 0, _MIN_TRIALS_TO_FIT
    while next_size <= num_trials:
        growth = max(_REFIT_GROWTH * next_size, _REFIT_GROWTH_BY_OTHERS * num_earlier)
        size, next_size = next_size, next_size + int(growth)
    return size
