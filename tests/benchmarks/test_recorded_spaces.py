"""A small space, timed whole and searched again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded_spaces import ranking, recording, replay
from side_by_side.variants import full_setup

from tests.workers.workloads import matmul_task
from tunewright.core.types import Draft, Origin, TuningTask
from tunewright.search.decisions import DecisionSpace
from tunewright.search.evolutionary import EvolutionaryConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def recorded(folder: Path) -> replay.RecordedTask:

    def make_task(name: str, target: object) -> TuningTask:
        return matmul_task(16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "make_task", make_task)
        recording.record("small", folder, num_passes=1, num_threads=1)
    return replay.load(folder, "small")


@pytest.mark.tvm
def test_every_point_is_timed_once(recorded: replay.RecordedTask) -> None:
    keys = [trial.record.candidate.key for trial in recorded.trials]
    assert len(keys) == len(set(keys)) == len(recorded.secs) > 20
    assert recorded.best_secs == min(recorded.secs.values()) > 0.0


@pytest.mark.tvm
def test_a_draft_is_looked_up(recorded: replay.RecordedTask) -> None:
    space, decisions = replay.RecordedSpace(recorded), DecisionSpace()
    some = space.sample(4, seed=1)
    assert [one.candidate.key for one in space.sample(4, seed=1)] == [one.candidate.key for one in some]
    wanted, parent = some[0].candidate, some[1].candidate
    point = decisions.learn(wanted.trace_json)
    assert point is not None
    unknown = tuple((3,) * len(value) if isinstance(value, tuple) else value for value in point.decisions)
    drafts = [Draft(parent, values, Origin.MUTATION) for values in (point.decisions, unknown)]
    found, missing = space.realise(drafts)
    assert missing is None
    assert found is not None and found.candidate.key == wanted.key
    assert (found.candidate.origin, found.candidate.parent_key) == (Origin.MUTATION, parent.key)


@pytest.mark.tvm
def test_a_search_finds_the_best_of_a_small_space(recorded: replay.RecordedTask) -> None:
    setup = full_setup(recorded.task.target, num_trials=len(recorded.secs), seed=0)
    setup = replace(setup, evolutionary=EvolutionaryConfig(random_share=0.0))
    curve = replay.search(recorded, replay.RecordedSpace(recorded), setup, noise=0.0)
    assert np.all(np.diff(curve) <= 0.0)
    assert curve[-1] == recorded.best_secs


@pytest.mark.tvm
def test_a_space_is_ranked_by_models_and_by_a_measurement(recorded: replay.RecordedTask) -> None:
    slower = {key: 2.0 * secs for key, secs in recorded.secs.items()}
    reverse = {key: 1.0 / secs for key, secs in recorded.secs.items()}
    timed_twice = replace(recorded, passes=[recorded.secs, slower])
    models = ranking.fit(recorded.trials, num_seeds=2)
    ranked = ranking.rank(timed_twice, models)
    assert ranked["one measurement"]["pairwise_accuracy"] == 1.0
    assert ranked["the cost model"]["pairwise_accuracy"] > 0.8  # it has seen them
    assert all(0.0 < metrics["top_1_score"] <= 1.0 for metrics in ranked.values())
    contradicted = ranking.rank(replace(recorded, passes=[recorded.secs, reverse]), models)
    assert contradicted["one measurement"]["pairwise_accuracy"] == 0.0


@pytest.mark.tvm
def test_a_model_that_ranks_a_task_has_not_seen_it(folder: Path, recorded: replay.RecordedTask) -> None:
    url = ranking.log_url(str(folder / "small.0.sqlite"))
    other = replace(
        recorded, task=replace(recorded.task, target=replace(recorded.task.target, num_threads=7))
    )
    assert ranking.training_trials([url], [recorded]) == []
    assert len(ranking.training_trials([url], [other])) >= len(recorded.trials) - 1
