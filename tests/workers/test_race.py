"""Who is verified after a race."""

from typing import Any

from tests.workers.workloads import matmul_task, measure_input
from tunewright.core.types import FailureKind, MeasureFailure, MeasureSuccess
from tunewright.workers.batch import Batch
from tunewright.workers.config import WorkerConfig
from tunewright.workers.timing import Timing
from tunewright.workers.trial import Trial

TASK = matmul_task()


def _trials(num: int) -> list[Trial]:
    inputs = [measure_input(TASK, f"trace {i}") for i in range(num)]
    return [Trial(i, one, i, (0,), 0.0, 1.0) for i, one in enumerate(inputs)]


class Judge(Batch):
    """Knows which kernels are wrong, and notes which were compared."""

    def __init__(self, wrong: set[int]) -> None:
        nothing: Any = None
        super().__init__(nothing, nothing, WorkerConfig((0,), (0,)), nothing, [])
        self.wrong = wrong
        self.compared: list[int] = []

    def _verified(self, trial: Trial, timing: Timing) -> MeasureSuccess | MeasureFailure:
        self.compared.append(trial.index)
        if trial.index in self.wrong:
            return trial.failure(FailureKind.WRONG_RESULT, "wrong")
        return trial.success(timing, is_verified=True)


def _judge(judge: Judge, secs: list[float | None]) -> dict[int, Any]:
    """None stands for a failure."""
    outcomes: list[tuple[Trial, Timing | MeasureFailure]] = [
        (trial, trial.failure(FailureKind.RUN, "crashed") if one is None else Timing((one,), False))
        for trial, one in zip(_trials(len(secs)), secs, strict=True)
    ]
    return {trial.index: result for trial, result in judge._judged(outcomes)}


def test_those_near_the_winner_are_compared() -> None:
    judge = Judge(wrong=set())
    results = _judge(judge, [1.2, 1.0, None, 1.04])
    assert judge.compared == [1, 3]
    assert results[1].is_verified and results[3].is_verified and not results[0].is_verified
    assert results[2].kind is FailureKind.RUN


def test_a_wrong_kernel_that_is_fastest_does_not_win_for_anybody() -> None:
    judge = Judge(wrong={0})
    results = _judge(judge, [0.1, 1.0, 2.0, 1.03])
    assert judge.compared == [0, 1, 3]
    assert results[0].kind is FailureKind.WRONG_RESULT
    assert results[1].is_verified and results[3].is_verified and not results[2].is_verified
