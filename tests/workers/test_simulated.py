"""The simulated measurer keeps the contract, and its landscape can be searched."""

import itertools
import json
import statistics

import pytest

from tests.workers.measurer_contract import MeasurerContract
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MeasureFailure,
    MeasureInput,
    MeasureSuccess,
    Origin,
    TargetSpec,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.workers import Failing, Noisy, SimulatedMeasurer

TASK = TuningTask(Workload("toy", WorkloadKey("k"), "{}", (), 1e9), TargetSpec("generic", 2))


def _input(tiles: list[int], incumbent_secs: float | None = None) -> MeasureInput:
    trace = json.dumps([[], [[0, tiles], [1, 3]]])
    return MeasureInput(TASK, Candidate(TASK.key, trace, Origin.RANDOM), EvaluatorConfig(), incumbent_secs)


INPUTS = [_input([a, b, 64 // a // b]) for a in (1, 2, 4, 8) for b in (1, 2, 4, 8)]


@pytest.mark.tvm
@pytest.mark.slow
class TestContract(MeasurerContract):
    """The same promises as the real ones."""

    @pytest.fixture
    def measurer(self) -> SimulatedMeasurer:
        return SimulatedMeasurer()


def _secs(results: list[object]) -> list[float]:
    return [result.median_secs for result in results if isinstance(result, MeasureSuccess)]


def test_the_same_candidate_always_takes_the_same_time() -> None:
    first, second = SimulatedMeasurer(), SimulatedMeasurer()
    assert first.measure(INPUTS) == second.measure(INPUTS[::-1])[::-1]


def test_neighbours_are_alike_and_the_range_is_wide() -> None:
    secs = _secs(SimulatedMeasurer().measure(INPUTS))
    near = statistics.fmean(abs(a - b) / min(a, b) for a, b in itertools.pairwise(secs))
    assert max(secs) / min(secs) > 1.5
    assert near < max(secs) / min(secs)


def test_much_slower_candidates_are_pruned() -> None:
    (result,) = SimulatedMeasurer().measure([_input([1, 1, 64], incumbent_secs=1e-6)])
    assert isinstance(result, MeasureFailure) and result.kind is FailureKind.PRUNED
    assert len(result.run_secs) == 1


def test_noise_and_failures_depend_on_the_seed_only() -> None:
    def measure(seed: int) -> list[object]:
        noisy = Noisy(SimulatedMeasurer(), relative_std=0.05, seed=seed)
        return list(Failing(noisy, ratio=0.5, seed=seed, kind=FailureKind.BUILD).measure(INPUTS))

    assert measure(1) == measure(1) != measure(2)
    failures = [result for result in measure(1) if isinstance(result, MeasureFailure)]
    assert 2 <= len(failures) <= 14
    assert {failure.kind for failure in failures} == {FailureKind.BUILD}
    success = next(result for result in measure(1) if isinstance(result, MeasureSuccess))
    assert len(set(success.run_secs)) == 3
