import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.landscapes import gemm_landscape
from tunewright.core.factors import divisors
from tunewright.search.decisions import DecisionPoint, DecisionSpace, Tile, crossover

MAX_INNERMOST = 16


def trace(tiles: list[list[int]], choice: int, location: int, *, loop: str = "l9") -> str:
    """A sketch of tiles, an unrolling and a location; another `loop` makes another sketch."""
    instructions: list[Any] = [["GetSBlock", [], ["C", "main"], ["b0"]]]
    decisions: list[Any] = []

    def add(instruction: list[Any], value: Any) -> None:
        decisions.append([len(instructions), value])
        instructions.append(instruction)

    for index, tile in enumerate(tiles):
        add(["SamplePerfectTile", [f"l{index}"], [len(tile), MAX_INNERMOST], [f"v{index}"]], tile)
    instructions.append(["ReverseComputeAt", ["b0", loop], [1, -1], []])
    add(["SampleCategorical", [], [[0, 16, 64], [0.3, 0.3, 0.4]], ["v"]], choice)
    add(["SampleComputeLocation", ["b0"], [], ["l"]], location)
    instructions.append(["EnterPostproc", [], [], []])
    add(["SampleCategorical", [], [[1, 2], [0.5, 0.5]], ["w"]], 1)
    return json.dumps([instructions, decisions])


@st.composite
def tiles(draw: st.DrawFn) -> list[int]:
    outer = draw(st.lists(st.integers(1, 60), min_size=0, max_size=3))
    return [*outer, draw(st.integers(1, MAX_INNERMOST))]


def is_legal(point: DecisionPoint) -> bool:
    return all(
        math.prod(value) == hole.extent and len(value) == hole.num_levels and value[-1] <= hole.max_innermost
        for hole, value in zip(point.sketch.holes, point.decisions, strict=True)
        if isinstance(hole, Tile) and isinstance(value, tuple) and len(value) > 1
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(tiles(), min_size=1, max_size=4), st.integers(0, 2**31))
def test_products_and_limits_hold_whatever_is_done(start: list[list[int]], seed: int) -> None:
    space, rng = DecisionSpace(), random.Random(seed)
    point, other = space.learn(trace(start, 0, -1)), space.learn(trace(start, 2, 3))
    assert point and other and point.sketch is other.sketch
    for _ in range(30):
        mutant = space.mutate(point, rng)
        changed = sum(a != b for a, b in zip(mutant.decisions, point.decisions, strict=True))
        assert changed <= 1
        point = crossover(mutant, space.redraw(other, rng), rng)
        *tile_values, choice, location = point.decisions
        assert is_legal(mutant) and is_legal(point)
        assert choice in (0, 1, 2) and location in (-1, 3)
        assert [math.prod(t) for t in tile_values if isinstance(t, tuple)] == [math.prod(t) for t in start]


@settings(deadline=None, max_examples=30)
@given(st.lists(tiles(), min_size=1, max_size=4), st.integers(0, 2), st.integers(-2, 9))
def test_a_trace_gives_its_own_decisions(start: list[list[int]], choice: int, location: int) -> None:
    space = DecisionSpace()
    point = space.learn(trace(start, choice, location))
    assert point == space.learn(trace(start, choice, location))
    assert point and point.decisions == (*map(tuple, start), choice, location)  # none of the postprocessing


def test_mutations_reach_every_point() -> None:
    """Tiles of 12 in three levels: 18 ways; 3 unrollings; 2 locations."""
    space, rng = DecisionSpace(), random.Random(1)
    point = space.learn(trace([[12, 1, 1]], 0, -1))
    space.learn(trace([[12, 1, 1]], 0, 4))
    assert point
    reached = set()
    for _ in range(5000):
        point = space.mutate(point, rng)
        reached.add(point)
    assert len(reached) == 18 * 3 * 2


def test_sketches_that_differ_in_one_loop_are_different() -> None:
    space = DecisionSpace()
    one, other = (space.learn(trace([[2, 3]], 0, -1, loop=loop)) for loop in ("l8", "l9"))
    assert one and other and one.sketch is not other.sketch
    with pytest.raises(ValueError, match="sketches 0 and 1"):
        crossover(one, other, random.Random(0))
    assert [row[0] for row in space.vectors([other, one])] == [1.0, 0.0]


def test_vectors_tell_sums_of_logarithms() -> None:
    space = DecisionSpace()
    points = [space.learn(trace([[2, 4, 8, 1], [1, 1, 2, 16], [4, 8]], 2, location)) for location in (-1, 5)]
    known = [point for point in points if point]
    first, second = space.vectors(known)
    assert (first != second).sum() == 1  # the location only
    assert first[1:13].tolist() == [1, 2, 3, 0, 0, 0, 1, 4, 2, 3, 2, -1]
    assert first[13:15].tolist() == [3, 5]  # the inner two levels of each deep tile
    assert first[15:19].tolist() == [1, 2, 4, 4]  # level by level
    assert first[-2:].tolist() == [0 + 4 + 3, 3 + 5 + 3]  # innermost body, inner halves


def test_vectors_of_shorter_sketches_are_padded() -> None:
    space = DecisionSpace()
    short = space.learn(trace([[4]], 0, -1))
    assert short
    narrow = space.vectors([short])
    space.learn(trace([[2, 2, 2], [2, 2]], 0, -1))
    wide = space.vectors([short])
    assert wide.shape[1] > narrow.shape[1] and wide.dtype == np.float32
    assert wide[0, : narrow.shape[1]].tolist() == narrow[0].tolist() and not wide[0, narrow.shape[1] :].any()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[[["SampleCategorical"]],[[0,1]]]',
        '[[["SamplePartitionedTile",["l"],[2,1,1],["v"]]],[[0,[2,2]]]]',
        '[[["SamplePerfectTile",["l"],[3,64],["v"]]],[[0,[2,2]]]]',
        '[[["SampleComputeLocation",["b"],[],["l"]]],[[0,null]]]',
    ],
)
def test_what_is_no_known_trace_is_no_point(text: str) -> None:
    assert DecisionSpace().learn(text) is None


def test_a_trace_of_other_extents_is_no_point_of_the_sketch() -> None:
    space = DecisionSpace()
    assert space.learn(trace([[2, 4]], 0, -1))
    assert space.learn(trace([[2, 3]], 0, -1)) is None


def test_a_sketch_without_choices_stays_as_it_is() -> None:
    space = DecisionSpace()
    point = space.learn("[[],[]]")
    assert point and space.mutate(point, random.Random(0)) == point == space.redraw(point, random.Random(0))
    assert space.vectors([point]).shape[0] == 1


def test_landscapes_speak_the_same_language() -> None:
    (applied,) = gemm_landscape().sample(1, seed=0)
    point = DecisionSpace().learn(applied.candidate.trace_json)
    assert point and len(point.decisions) == 4


def test_neighbours_are_all_points_one_step_away() -> None:
    space = DecisionSpace()
    point = space.learn(trace([[12, 1, 1], [1, 16]], 1, -1))
    space.learn(trace([[12, 1, 1], [1, 16]], 0, 4))
    assert point
    found = [one.decisions for one in space.neighbours(point)]
    assert len(set(found)) == len(found)
    assert set(found) == {
        *(((*tile,), (1, 16), 1, -1) for tile in ([6, 2, 1], [6, 1, 2], [4, 3, 1], [4, 1, 3])),
        ((12, 1, 1), (2, 8), 1, -1),
        ((12, 1, 1), (1, 16), 0, -1),
        ((12, 1, 1), (1, 16), 2, -1),
        ((12, 1, 1), (1, 16), 1, 4),
    }


def test_steps_beyond_the_innermost_limit_are_no_neighbours() -> None:
    space = DecisionSpace()
    point = space.learn(trace([[2, 16]], 1, -1))
    assert point
    assert {one.decisions[0] for one in space.neighbours(point)} == {(2, 16), (4, 8)}


@pytest.mark.parametrize("value", [1, 2, 7, 36, 97, 3136, 802816])
def test_divisors_are_all_and_ascending(value: int) -> None:
    assert divisors(value) == tuple(one for one in range(1, value + 1) if value % one == 0)
