"""Records to draw, and pyplot without a screen."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import matplotlib
import pytest
from matplotlib import pyplot

from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    MachineInfo,
    MeasureResult,
    Origin,
    TaskKey,
    TuningRecord,
)

MakeRecord = Callable[..., TuningRecord]


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    """Draw off screen, and leave no figure open."""
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture
def make_record() -> MakeRecord:
    machine = MachineInfo("Test CPU", 2, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")

    def make(task: str, result: MeasureResult, origin: Origin = Origin.RANDOM) -> TuningRecord:
        return TuningRecord(
            session_id="session",
            trial_index=0,
            candidate=Candidate(TaskKey(task), "[]", origin),
            result=result,
            evaluator=EvaluatorConfig(),
            machine=machine,
            strategy="random",
            seed=0,
            finished_at=datetime(2026, 1, 2, tzinfo=UTC),
            code_version="0",
        )

    return make
