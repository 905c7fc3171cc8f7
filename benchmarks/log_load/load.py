"""The run: one log from nothing to its last size, measured on the way."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

from log_load.processes import look_up_in_fresh_process, open_in_fresh_process, produce
from log_load.results import Filling, Ingest, Lookups, Opening, Producers, Results, Size
from log_load.storage import storage_bytes
from log_load.synthesis import Synthesis, Trial
from tunewright.core.types import CandidateKey, MeasureSuccess, TaskKey
from tunewright.tuning_logs import TuningLog

_FILLING_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """`sizes`: trials at which lookups are measured. `ingest_batches`: how many batches of each size."""

    sizes: tuple[int, ...]
    num_tasks: int
    tasks_per_model: int = 60
    ingest_batches: Mapping[int, int] = field(
        default_factory=lambda: MappingProxyType({16: 24, 64: 12, 256: 8, 1024: 4})
    )
    num_producers: int = 16
    rows_per_producer: int = 1000
    producer_batch: int = 50
    num_lookups: int = 2000
    num_model_lookups: int = 300

    @classmethod
    def for_trials(cls, num_trials: int) -> "Plan":
        """Sizes from 10,000 on; some 500 trials for each of at most 2,000 tasks."""
        sizes = [size for size in (10_000, 100_000) if 2 * size <= num_trials]
        return cls((*sizes, num_trials), num_tasks=min(2000, max(120, num_trials // 500)))

    @classmethod
    def quick(cls) -> "Plan":
        return cls(
            (10_000, 20_000), num_tasks=120, rows_per_producer=500, num_lookups=500, num_model_lookups=50
        )

    def __post_init__(self) -> None:
        num_ingested = sum(size * number for size, number in self.ingest_batches.items())
        num_produced = self.num_producers * self.rows_per_producer
        steps = [self.sizes[0] + num_produced, *self.sizes[1:]]
        if num_ingested > self.sizes[0] or steps != sorted(steps):
            raise ValueError(
                f"{num_ingested} trials are ingested before the first size and {num_produced} produced after "
                f"it, too many for sizes {self.sizes}: take larger ones"
            )


class LoadedLog:
    """A new log that is filled with synthetic trials; knows which time is the best of each task.

    Raises:
        ValueError: the log holds something already.
    """

    def __init__(self, url: str, synthesis: Synthesis, plan: Plan, *, seed: int) -> None:
        self._url, self._synthesis, self._plan, self._seed = url, synthesis, plan, seed
        self._log = TuningLog.open(url)
        if self._log.tasks():
            self.close()
            # Without its URL, which may hold a password.
            raise ValueError("the log holds something already: name one that does not exist, or is empty")
        self._trials = synthesis.trials()
        self._best_secs: dict[TaskKey, float] = {}
        self.num_stored = 0
        self.num_with_features = 0

    def add_sessions(self) -> None:
        self._log.add_tasks(self._synthesis.tasks)
        for session in self._synthesis.sessions():
            self._log.start_session(session)

    def num_bytes_closed(self) -> int:
        """On disk, after closing; the log is open again afterwards."""
        self.close()
        num_bytes = storage_bytes(self._url)
        self._log = TuningLog.open(self._url)
        return num_bytes

    def close(self) -> None:
        self._log.close()

    def ingest(self, *, with_features: bool = True) -> list[Ingest]:
        """Append batches of all sizes in turn, so that what changes with time changes all of them."""
        num_stored = self.num_stored
        secs_of: dict[int, list[float]] = {size: [] for size in self._plan.ingest_batches}
        for turn in range(max(self._plan.ingest_batches.values())):
            for size, number in self._plan.ingest_batches.items():
                if turn < number:
                    secs_of[size].append(self._append(size, with_features=with_features))
        return [Ingest(num_stored, size, with_features, tuple(secs)) for size, secs in secs_of.items()]

    def fill(self, num_trials: int) -> Filling:
        """Append until the log holds so many."""
        num_stored, secs = self.num_stored, 0.0
        while self.num_stored < num_trials:
            secs += self._append(min(_FILLING_BATCH, num_trials - self.num_stored))
        return Filling(num_stored, self.num_stored - num_stored, secs)

    def produce(self) -> Producers:
        """Each process appends to a session of its own, of one of the models; then all is read again."""
        plan, num_stored = self._plan, self.num_stored
        models = self._synthesis.models
        sessions = [
            self._synthesis.session(number % len(models), name=f"producer-{number}")
            for number in range(plan.num_producers)
        ]
        rows: list[list[Trial]] = []
        for stream, session in enumerate(sessions, 1):
            self._log.start_session(session)
            produced_trials = self._synthesis.trials_of_session(session, stream=stream)
            rows.append(list(islice(produced_trials, plan.rows_per_producer)))
        secs, produced = produce(self._url, rows, batch_size=plan.producer_batch)
        num_missing = num_doubled = 0
        for session, trials in zip(sessions, rows, strict=True):
            expected = {record.candidate.key for record, _ in trials}
            found = Counter(self._keys_of(session.session_id))
            num_missing += len(expected - found.keys())
            num_doubled += found.total() - len(found)
            self._know(trials)
        return Producers(
            num_stored=num_stored,
            num_processes=plan.num_producers,
            num_rows=plan.rows_per_producer,
            batch_size=plan.producer_batch,
            secs=secs,
            append_secs=tuple(secs for one in produced for secs in one.append_secs),
            num_missing=num_missing,
            num_doubled=num_doubled,
            errors=tuple(one.error for one in produced if one.error),
        )

    def look_up(self) -> Lookups:
        plan = self._plan
        # Tasks that have a record at any size: that there is none is the faster answer.
        known = [
            task.key for model in self._synthesis.models for task in model if task.key in self._best_secs
        ]
        models = [
            known[first : first + plan.tasks_per_model]
            for first in range(0, len(known), plan.tasks_per_model)
        ]
        # The last one may be smaller.
        whole = [model for model in models if len(model) == plan.tasks_per_model] or models
        looked_up = look_up_in_fresh_process(
            self._url, whole, num_one=plan.num_lookups, num_models=plan.num_model_lookups, seed=self._seed
        )
        wrong = [key for key, secs in looked_up.best_secs.items() if secs != self._best_secs.get(key)]
        return Lookups(
            num_stored=self.num_stored,
            num_tasks=len(self._synthesis.tasks),
            tasks_per_model=plan.tasks_per_model,
            one_secs=looked_up.one_secs,
            model_secs=looked_up.model_secs,
            num_wrong=len(wrong),
        )

    def _append(self, num_trials: int, *, with_features: bool = True) -> float:
        """Seconds in `append` for the next trials of the stream."""
        trials: list[Trial] = list(islice(self._trials, num_trials))
        if not with_features:
            trials = [(record, None) for record, _ in trials]
        began = time.perf_counter()
        self._log.append(trials)
        secs = time.perf_counter() - began
        self._know(trials)
        return secs

    def _know(self, trials: list[Trial]) -> None:
        self.num_stored += len(trials)
        for record, features in trials:
            self.num_with_features += features is not None
            result = record.result
            if isinstance(result, MeasureSuccess) and result.is_verified:
                secs = statistics.median(result.run_secs)
                self._best_secs[record.task_key] = min(secs, self._best_secs.get(record.task_key, secs))

    def _keys_of(self, session_id: str) -> Iterator[CandidateKey]:
        return (trial.record.candidate.key for trial in self._log.session_trials(session_id))


def run(url: str, synthesis: Synthesis, plan: Plan, results: Results, say: Callable[[str], None]) -> None:
    """Fill the log at `url`, which must be new, and add what is measured to the results.

    Raises:
        ValueError: the log holds something.
    """
    with closing(LoadedLog(url, synthesis, plan, seed=results.seed)) as log:
        log.add_sessions()
        results.sizes.append(Size(0, log.num_bytes_closed()))
        results.ingests += log.ingest()
        for number, size in enumerate(plan.sizes):
            say(f"filling the log to {size:,} trials")
            results.fillings.append(log.fill(size))
            results.lookups.append(log.look_up())
            if number == 0:
                say(f"{plan.num_producers} producers")
                results.producers.append(log.produce())
        results.sizes.append(Size(log.num_stored, log.num_bytes_closed()))
        results.feature_share = log.num_with_features / log.num_stored
        opened = open_in_fresh_process(url)
        results.openings.append(
            Opening(log.num_stored, opened.first_secs, opened.again_secs, opened.read_only_secs)
        )
        say("batches of all sizes once more")
        results.ingests += log.ingest() + log.ingest(with_features=False)
