"""Design spaces in children: legal candidates, equal for any number of children."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tests.workers.workloads import matmul_task
from tunewright.core.types import AppliedCandidate, Candidate, DecisionValue, Draft, FailureKind, Origin
from tunewright.workers import Pool, ReplayFailure, design_spaces, replay_all
from tunewright.workers.frames import Message
from tunewright.workers.process_space import ProcessSpace
from tunewright.workers.streaming import Answer, PieceFailure

pytestmark = [pytest.mark.tvm, pytest.mark.slow]


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[Pool, Pool]]:
    cpus = sorted(os.sched_getaffinity(0))
    with Pool(cpus[:1]) as one, Pool((cpus * 3)[:3]) as three:
        yield one, three


def _content(applied: list[AppliedCandidate]) -> list[tuple[object, ...]]:
    return [
        (a.candidate.key, a.candidate.origin, a.candidate.parent_key, a.program_key, a.features.tobytes())
        for a in applied
    ]


def _decisions(candidate: Candidate) -> tuple[DecisionValue, ...]:
    instructions, decisions = json.loads(candidate.trace_json)
    end = [instruction[0] for instruction in instructions].index("EnterPostproc")
    return tuple(tuple(v) if isinstance(v, list) else v for index, v in decisions if index < end)


def _with_other_outer_tiles(parent: Candidate) -> Draft:
    """The two outermost factors of the rows are exchanged."""
    rows, *others = _decisions(parent)
    assert isinstance(rows, tuple) and len(rows) > 2
    return Draft(parent, ((rows[1], rows[0], *rows[2:]), *others), Origin.MUTATION)


def test_equal_for_one_and_three_children(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    one, three = (design_spaces(pool)(task) for pool in pools)
    sampled = one.sample(10, seed=5)
    assert _content(sampled) == _content(three.sample(10, seed=5))
    assert _content(sampled) != _content(one.sample(10, seed=6))
    drafts = [_with_other_outer_tiles(applied.candidate) for applied in sampled]
    realised = [applied for applied in three.realise(drafts) if applied is not None]
    assert _content(realised) == _content([a for a in one.realise(drafts) if a is not None])
    assert {a.candidate.origin for a in realised} == {Origin.MUTATION}
    assert len(realised) > len(sampled) / 2


def test_realised_drafts_keep_their_order(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    space = design_spaces(pools[1])(task)
    drafts = [_with_other_outer_tiles(applied.candidate) for applied in space.sample(5, seed=7)]
    refused = Draft(drafts[0].parent, (), Origin.CROSSOVER)
    realised = space.realise([drafts[0], refused, *drafts[1:]])
    assert realised[1] is None and len(realised) == len(drafts) + 1
    for draft, applied in zip(drafts, [realised[0], *realised[2:]], strict=True):
        assert applied is not None and applied.candidate.parent_key == draft.parent.key
        assert _decisions(applied.candidate) == draft.decisions


def test_applying_gives_the_program_that_was_sampled(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    space = design_spaces(pools[1])(task)
    sampled = space.sample(4, seed=2)
    broken = Candidate(task.key, "[[],{]", Origin.REPLAY)
    applied = space.apply([*(a.candidate for a in sampled), broken])
    assert applied[-1] is None
    for before, after in zip(sampled, applied, strict=False):
        assert after is not None
        assert after.program_key == before.program_key
        assert np.array_equal(after.features, before.features)
        assert after.features.dtype == np.float32 and not after.features.flags.writeable
    assert space.realise([]) == space.sample(0, seed=1) == []


def test_replay_all_tells_why_a_trace_does_not_apply(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    (sampled, *_) = design_spaces(pools[0])(task).sample(4, seed=3)
    mod_json = task.workload.mod_json
    good, bad = replay_all(
        pools[1], [(mod_json, sampled.candidate.trace_json), (mod_json, "[[], [[99, 1]]]")]
    )
    assert isinstance(good, str) and "nodes" in json.loads(good)
    assert isinstance(bad, ReplayFailure)
    assert bad.kind in (FailureKind.REPLAY, FailureKind.RUN)
    assert replay_all(pools[0], []) == []


class LateCrew:
    """Children that do not answer in time, until they do; it counts what they are asked."""

    def __init__(self, num_late: int) -> None:
        self.num_late = num_late
        self.num_asked = 0

    def answers(self, items: Sequence[Message], common: Message) -> list[Answer]:
        late = PieceFailure(FailureKind.RUN_TIMEOUT, "killed after 5 s of running")
        before, self.num_asked = self.num_asked, self.num_asked + len(items)
        return [late if before + i < self.num_late else None for i in range(len(items))]


@pytest.mark.parametrize(("num_late", "num_asked"), [(1000, 4), (3, 40), (0, 40)])
def test_a_space_none_of_whose_points_comes_in_time_is_given_up(
    num_late: int, num_asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    crew: Any = LateCrew(num_late)
    space = ProcessSpace(matmul_task(32), crew)
    assert space.sample(30, seed=0) == space.sample(10, seed=1) == []
    assert crew.num_asked == num_asked
    assert ("its default schedule stays" in caplog.text) is (num_asked == 4)
