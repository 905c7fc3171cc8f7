"""What a task's trials tell, as points of its design space."""

from collections.abc import Sequence

from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    FailureKind,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    RecordedTrial,
    calibrated_secs,
)
from tunewright.search.decisions import DecisionPoint, DecisionSpace
from tunewright.search.prior import Hardware
from tunewright.search.space import DesignSpace

# Random candidates that show the sketches of a task: of three, one is missed with a chance of 0.5 %.
NUM_EXAMPLES = 16


class ToldPoints:
    """The told trials of one task, and random candidates that show its sketches.

    Left out: trials whose worker was lost, which is not the candidate's fault, and unreadable traces.

    Attributes:
        secs: calibrated seconds per call, infinite for failures, in the order in which they were told.
        build_secs: of those of them that were built, or timed out while they were.
        candidates: of all of them.
        measured: the candidates that ran to the end.
        examples: the random candidates; empty before `find_examples`.
    """

    def __init__(self, hardware: Hardware | None = None) -> None:
        self.decisions = DecisionSpace(hardware)
        self.secs: dict[DecisionPoint, float] = {}
        self.build_secs: dict[DecisionPoint, float] = {}
        self.candidates: dict[DecisionPoint, Candidate] = {}
        self.measured: dict[DecisionPoint, Candidate] = {}
        self.examples: dict[DecisionPoint, AppliedCandidate] = {}
        self._results: dict[DecisionPoint, MeasureResult] = {}

    def tell(self, trials: Sequence[RecordedTrial]) -> None:
        """Learn of measured candidates; telling one again changes nothing."""
        for trial in trials:
            result = trial.record.result
            if isinstance(result, MeasureFailure) and result.kind is FailureKind.WORKER_LOST:
                continue
            point = self.decisions.learn(trial.record.candidate.trace_json)
            if point is not None:
                self._learn(point, trial)
        self.secs = dict(zip(self._results, calibrated_secs(list(self._results.values())), strict=True))

    def _learn(self, point: DecisionPoint, trial: RecordedTrial) -> None:
        record = trial.record
        self._results[point] = record.result
        self.candidates[point] = record.candidate
        if isinstance(record.result, MeasureSuccess):
            self.measured[point] = record.candidate
        elif record.result.kind is FailureKind.BUILD_TIMEOUT:
            self.build_secs[point] = record.evaluator.build_timeout_secs
        if record.result.build_secs > 0.0:
            self.build_secs[point] = record.result.build_secs

    def find_examples(self, space: DesignSpace, seed: int) -> None:
        """Sample the space, which shows sketches that no trial was of, too."""
        for applied in space.sample(NUM_EXAMPLES, seed):
            point = self.decisions.learn(applied.candidate.trace_json)
            if point is not None:
                self.examples.setdefault(point, applied)

    def fastest_first(self) -> dict[DecisionPoint, Candidate]:
        """`measured`, in the order of their times."""
        return dict(sorted(self.measured.items(), key=lambda item: (self.secs[item[0]], item[1].key)))
