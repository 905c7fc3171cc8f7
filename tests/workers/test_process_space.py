"""Design spaces in children: legal candidates, equal for any number of children."""

import json
import os
from collections.abc import Iterator

import numpy as np
import pytest

from tests.workers.workloads import matmul_task
from tunewright.core.types import AppliedCandidate, Candidate, FailureKind, Origin
from tunewright.workers import Pool, ProcessSpace, ReplayFailure, replay_all

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


def test_equal_for_one_and_three_children(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    one, three = (ProcessSpace(task, pool) for pool in pools)
    sampled = one.sample(10, seed=5)
    assert _content(sampled) == _content(three.sample(10, seed=5))
    assert _content(sampled) != _content(one.sample(10, seed=6))
    parents = [applied.candidate for applied in sampled[:3]]
    mutated = three.mutate(parents, 7, seed=1)
    assert _content(mutated) == _content(one.mutate(parents, 7, seed=1))
    assert {applied.candidate.parent_key for applied in mutated} <= {parent.key for parent in parents}
    assert mutated and all(applied.candidate.origin is Origin.MUTATION for applied in mutated)


def test_applying_gives_the_program_that_was_sampled(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    space = ProcessSpace(task, pools[1])
    sampled = space.sample(4, seed=2)
    broken = Candidate(task.key, "[[],{]", Origin.REPLAY)
    applied = space.apply([*(a.candidate for a in sampled), broken])
    assert applied[-1] is None
    for before, after in zip(sampled, applied, strict=False):
        assert after is not None
        assert after.program_key == before.program_key
        assert np.array_equal(after.features, before.features)
        assert after.features.dtype == np.float32 and not after.features.flags.writeable
    assert space.mutate([], 4, seed=1) == space.sample(0, seed=1) == []


def test_replay_all_tells_why_a_trace_does_not_apply(pools: tuple[Pool, Pool]) -> None:
    task = matmul_task(32)
    (sampled, *_) = ProcessSpace(task, pools[0]).sample(4, seed=3)
    mod_json = task.workload.mod_json
    good, bad = replay_all(
        pools[1], [(mod_json, sampled.candidate.trace_json), (mod_json, "[[], [[99, 1]]]")]
    )
    assert isinstance(good, str) and "nodes" in json.loads(good)
    assert isinstance(bad, ReplayFailure)
    assert bad.kind in (FailureKind.REPLAY, FailureKind.RUN)
    assert replay_all(pools[0], []) == []
