import dataclasses
import json
import math

import pytest

from tests.search.nests import UNROLL_STEPS, ssrsrs
from tunewright.core.loop_nest import LoopNest
from tunewright.search.decisions import DecisionSpace, parse_trace
from tunewright.search.prior import Hardware

HARDWARE = Hardware(num_threads=4, vector_lanes=16)
# 4 x 4 chunks; 4 rows of one full vector in registers, 12 accumulators unrolled.
GOOD_I, GOOD_J, GOOD_K = [4, 1, 4, 12], [4, 2, 2, 16], [32, 4]


def guess(trace: str) -> float:
    space = DecisionSpace(HARDWARE)
    point = space.learn(trace)
    assert point
    return float(space.guesses([point])[0])


def nest_of(trace: str) -> LoopNest:
    nest = parse_trace(trace).nest
    assert nest
    return nest


def good(**changes: object) -> str:
    tiles = {"i": GOOD_I, "j": GOOD_J, "k": GOOD_K, "unroll": UNROLL_STEPS.index(64)} | changes
    i, j, k = (tiles.pop(axis) for axis in "ijk")
    return ssrsrs([i, j], [k], **tiles)  # type: ignore[arg-type, list-item]


def test_a_schedule_without_waste_is_expected_to_lose_nothing() -> None:
    assert guess(good()) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("changes", "doublings_lost"),
    [
        ({"j": [4, 2, 4, 8]}, 0.6 * 1),  # half a vector
        ({"j": [4, 4, 1, 17]}, 0.6 * math.log2(32 / 17)),  # two vectors, one of them for one number
        ({"i": [1, 4, 4, 12], "j": [1, 8, 2, 16], "attach": 1}, 0.25 * 2),  # one chunk for four threads
        ({"i": [3, 2, 4, 12], "j": [1, 8, 2, 16], "attach": 1}, 0.25 * math.log2(4 / 3)),  # three chunks
        ({"i": [4, 1, 4, 56]}, 0.4 * 1),  # twice 28 accumulators
        ({"i": [4, 4, 4, 2]}, 0.2 * 2),  # two where eight are needed
        ({"unroll": UNROLL_STEPS.index(0)}, 0.13 * math.log2(12)),
        ({"location": -2}, 1.3),
        ({"location": -1}, 0.0),
        ({"location": 5}, 0.0),
    ],
)
def test_each_waste_costs_what_was_measured(changes: dict[str, object], doublings_lost: float) -> None:
    assert guess(good(**changes)) == pytest.approx(-doublings_lost, abs=1e-6)


def test_outer_loops_are_fused_until_there_are_jobs_enough() -> None:
    """3 x 1 chunks outside; where nothing is computed there, the next level joins: 3 x 1 x 8 = 24."""
    few = good(i=[3, 8, 1, 12], j=[1, 8, 2, 16], attach=1)
    many = good(i=[3, 8, 1, 12], j=[1, 8, 2, 16])
    capped = good(i=[3, 8, 1, 12], j=[1, 8, 2, 16], max_jobs=2)  # 3 are more than enough
    assert guess(many) == pytest.approx(0.0)
    assert guess(few) == guess(capped) == pytest.approx(-0.25 * math.log2(4 / 3))


def test_the_order_of_loops_is_read_from_the_trace() -> None:
    nest = nest_of(ssrsrs([[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 10]], attach=2, location=3))
    assert nest.columns == (0, 4, 1, 5, 8, 2, 6, 9, 3, 7)
    assert (nest.num_parallel, nest.num_inner, nest.max_jobs) == (3, 2, 64)
    assert (nest.unroll, nest.unroll_steps, nest.locations) == (10, UNROLL_STEPS, (11,))
    free = nest_of(ssrsrs([[1, 2, 3, 4], [5, 6, 7, 8]], [[9, 10]]))
    assert free.num_parallel == 4  # all before the first reduction
    assert not free.has_same_loops(nest)
    assert nest.has_same_loops(dataclasses.replace(nest, locations=(), max_jobs=8))


def test_where_nothing_is_tiled_nothing_is_expected() -> None:
    trace = json.dumps([[["SampleCategorical", [], [[0, 16], [0.5, 0.5]], ["u"]]], [[0, 1]]])
    assert parse_trace(trace).nest is None
    assert guess(trace) == 0.0
