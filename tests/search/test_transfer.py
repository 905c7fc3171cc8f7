import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.landscapes import gemm_landscape, measure_all
from tests.search.nests import NestSpace, ssrsrs
from tunewright.core.types import Candidate, MeasureSuccess, Origin, RecordedTrial, TaskKey
from tunewright.search.decisions import DecisionPoint, DecisionSpace, Tile
from tunewright.search.transfer import fit_tile, transferred_drafts

OTHER_TASK = TaskKey("other")


def seed_of(trace: str, secs: float = 1e-3) -> RecordedTrial:
    landscape = gemm_landscape()
    (trial,) = measure_all(landscape, landscape.sample(1, seed=0), first_index=0)
    result = MeasureSuccess((secs,), build_secs=0.1, wall_secs=0.1, is_verified=True)
    candidate = Candidate(OTHER_TASK, trace, Origin.MUTATION)
    return dataclasses.replace(
        trial, record=dataclasses.replace(trial.record, candidate=candidate, result=result)
    )


def drafts_of(own: list[str], seeds: list[RecordedTrial]) -> list[tuple[DecisionPoint, Origin]]:
    space, task = DecisionSpace(), NestSpace("own", own)
    points = [space.learn(trace) for trace in own]
    examples = {p: Candidate(task.task_key, t, Origin.RANDOM) for p, t in zip(points, own, strict=True) if p}
    drafts = transferred_drafts(space, examples, seeds)
    assert all(draft.decisions == point.decisions for point, draft in drafts.items())
    assert all(draft.parent in examples.values() for draft in drafts.values())
    return [(point, draft.origin) for point, draft in drafts.items()]


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(1, 3000), st.sampled_from([16, 64]))
def test_a_fit_tile_is_legal(factors: list[int], extent: int, limit: int) -> None:
    tile = fit_tile(factors, Tile(extent, len(factors), limit))
    assert math.prod(tile) == extent and len(tile) == len(factors) and tile[-1] <= limit


@pytest.mark.parametrize(
    ("factors", "extent", "expected"),
    [
        ((4, 2, 8, 16), 1024, (4, 2, 8, 16)),  # the same extent: the same tile
        ((4, 2, 8, 16), 2048, (8, 2, 8, 16)),  # the outermost takes the rest
        ((2, 2, 2, 7), 64, (2, 2, 2, 8)),
        ((1, 1, 1, 16), 7, (1, 1, 1, 7)),
        ((1, 1, 1, 48), 49, (1, 1, 1, 49)),
    ],
)
def test_inner_factors_stay_as_near_as_divisors_allow(
    factors: tuple[int, ...], extent: int, expected: tuple[int, ...]
) -> None:
    assert fit_tile(factors, Tile(extent, 4, 64)) == expected


def test_the_nearest_extents_come_first_and_the_fastest_of_them() -> None:
    own = ssrsrs([[64, 1, 1, 1], [64, 1, 1, 1]], [[64, 1]], unroll=0)
    far = seed_of(ssrsrs([[512, 1, 1, 1], [256, 1, 1, 2]], [[256, 2]], unroll=1), 1e-6)
    slow = seed_of(ssrsrs([[16, 2, 1, 4], [8, 1, 1, 8]], [[32, 2]], unroll=2), 2e-3)
    fast = seed_of(ssrsrs([[8, 1, 1, 16], [8, 1, 1, 8]], [[16, 4]], unroll=3), 1e-3)
    drafts = drafts_of([own], [far, slow, fast, fast])
    assert [point.decisions for point, _ in drafts] == [
        ((4, 1, 1, 16), (8, 1, 1, 8), (16, 4), 3),
        ((8, 2, 1, 4), (8, 1, 1, 8), (32, 2), 2),
        ((64, 1, 1, 1), (32, 1, 1, 2), (32, 2), 1),
    ]
    assert {origin for _, origin in drafts} == {Origin.TRANSFER}


def test_another_structure_with_the_same_loops_lends_its_tiles() -> None:
    """The other task pads its input; this one's own block location stays."""
    own = ssrsrs([[8, 1, 1, 1], [16, 1, 1, 1]], [[4, 1]], block="b5", location=-1)
    foreign = seed_of(ssrsrs([[2, 1, 2, 2], [1, 1, 1, 16]], [[1, 4]], unroll=2))
    ((point, _),) = drafts_of([own], [foreign])
    assert point.decisions == ((2, 1, 2, 2), (1, 1, 1, 16), (1, 4), 2, -1)


def test_what_fits_no_sketch_is_left_out() -> None:
    own = ssrsrs([[8, 1, 1, 1], [16, 1, 1, 1]], [[4, 1]], attach=1)
    other_loops = seed_of(ssrsrs([[8, 1, 1, 1]], [[4, 1]]))
    other_attachment = seed_of(ssrsrs([[8, 1, 1, 1], [16, 1, 1, 1]], [[4, 1]], attach=3))
    assert drafts_of([own], [other_loops, other_attachment, seed_of("no trace")]) == []
