"""Trials to draw, and pyplot without a screen."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import matplotlib
import pytest
from matplotlib import pyplot

from tunewright.core.types import (
    CandidateKey,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    Origin,
    TaskKey,
)
from tunewright.tuning_logs.codec import Setup
from tunewright.tuning_logs.trial_facts import TrialFacts

MakeTrial = Callable[..., TrialFacts]
START = datetime(2026, 1, 2, tzinfo=UTC)
MACHINE = MachineInfo("Test CPU", 2, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    """Draw off screen, and leave no figure open."""
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture
def make_trial() -> MakeTrial:
    """A trial of a task: verified where it has a time, unless told otherwise; else it failed."""

    def make(
        task: str,
        secs: float | None = None,
        *,
        failure: FailureKind = FailureKind.BUILD,
        origin: Origin = Origin.RANDOM,
        is_verified: bool = True,
        is_in_quarantine: bool = False,
        is_duplicate: bool = False,
        run_secs: tuple[float, ...] | None = None,
        build_secs: float = 0.0,
        wall_secs: float = 1.0,
        yardstick_secs: float | None = None,
        predicted_score: float | None = None,
        model_id: str | None = None,
        at_secs: float = 0.0,
        number: int = 0,
    ) -> TrialFacts:
        samples = run_secs if run_secs is not None else () if secs is None else (secs,)
        return TrialFacts(
            record_id=number,
            session_id="session",
            task_key=TaskKey(task),
            trial_index=number,
            candidate_key=CandidateKey("c" * 64),
            parent_key=None,
            origin=origin,
            failure_kind=failure if secs is None else None,
            message="no" if secs is None else None,
            run_secs_json=json.dumps(samples),
            ranked_secs=secs,
            is_verified=secs is not None and is_verified,
            is_in_quarantine=is_in_quarantine,
            is_duplicate=is_duplicate,
            is_noisy=False,
            build_secs=build_secs,
            wall_secs=wall_secs,
            steal_ratio=None,
            yardstick_secs=yardstick_secs,
            predicted_score=predicted_score,
            finished_at=START + timedelta(seconds=at_secs),
            machine=MACHINE,
            setup=Setup("random", 0, model_id, "0", 1, EvaluatorConfig()),
        )

    return make
