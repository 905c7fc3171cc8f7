"""Time every point of a task's design space that can be found, into tuning logs of its own.

One log for each pass over the space, which has an order of its own: a shared machine's speed drifts by more
than good points differ.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from side_by_side.tasks import make_task

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import RecordedTrial
from tunewright.scheduler import tuning
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import StrategyParts, TuneOptions
from tunewright.search.population import random_draft
from tunewright.search.strategy import Proposal, ProposalLedger
from tunewright.search.told_points import ToldPoints
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

_STRATEGY = "every-point"
# The space counts as known when so many random points in a row are known already.
_MAX_KNOWN_DRAWS = 5000
_APPLIED_AT_ONCE = 256


class EveryPoint:
    """Proposes every point of a space that random draws find, each once, in random order."""

    name = _STRATEGY

    def __init__(self, parts: StrategyParts) -> None:
        self._space = parts.space
        self._told = ToldPoints(parts.hardware)
        self._ledger = ProposalLedger(parts.seed)
        self._seed = parts.seed
        self._waiting: list[Proposal] | None = None

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        self._ledger.told(trials)

    def ask(self, n: int) -> list[Proposal]:
        if self._waiting is None:
            self._waiting = self._all_points()
        batch: list[Proposal] = []
        while self._waiting and len(batch) < n:
            proposal = self._waiting.pop()
            if self._ledger.is_new(proposal.applied):
                self._ledger.propose(proposal.applied)
                batch.append(proposal)
        return batch

    def _all_points(self) -> list[Proposal]:
        self._told.find_examples(self._space, self._seed)
        examples = [(point, applied.candidate) for point, applied in self._told.examples.items()]
        rng = random.Random(self._seed)
        drafts = {}
        num_known = 0
        while num_known < _MAX_KNOWN_DRAWS:
            point, draft = random_draft(self._told.decisions, examples, rng)
            num_known = num_known + 1 if point in drafts else 0
            drafts[point] = draft
        chosen = list(drafts.values())
        rng.shuffle(chosen)
        applied = [
            one
            for start in range(0, len(chosen), _APPLIED_AT_ONCE)
            for one in self._space.realise(chosen[start : start + _APPLIED_AT_ONCE])
        ]
        found = [Proposal(one, score=None) for one in applied if one is not None]
        print(f"{len(drafts)} points were drawn, {len(found)} of them are legal", flush=True)
        return found


def record(task_name: str, folder: Path, *, num_passes: int, num_threads: int) -> None:
    """Time all points of a benchmark task `num_passes` times; what is there already goes on."""
    task = make_task(task_name, host_target(num_threads))
    tuning.STRATEGIES[_STRATEGY] = EveryPoint
    for seed in range(num_passes):
        options = TuneOptions(Budget(num_trials=1 << 30, patience=1 << 30), strategy=_STRATEGY, seed=seed)
        with (
            TuningLog.open(f"sqlite:///{folder}/{task_name}.{seed}.sqlite") as log,
            LocalMeasurer(WorkerConfig.for_threads(num_threads)) as measurer,
        ):
            finished = tuning.tune_tasks(
                [task],
                options,
                model_name=task_name,
                store=log,
                measurer=measurer,
                make_space=design_spaces(measurer.pool),
            )
        print(f"{task_name}, pass {seed}: {finished.num_new_trials} points are timed", flush=True)
