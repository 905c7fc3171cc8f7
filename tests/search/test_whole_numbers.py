"""Every point is some combination of numbers, and every combination is a legal point."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.landscapes import MAX_INNERMOST, TileLandscape, gemm_landscape
from tunewright.core.keys import canonical_json
from tunewright.search.decisions import DecisionPoint, DecisionSpace, Tile
from tunewright.search.whole_numbers import Family, families

EXTENTS = st.lists(st.sampled_from([1, 2, 7, 12, 56, 64, 96, 512, 3136]), min_size=1, max_size=3)


def family_of(landscape: TileLandscape, seed: int = 0) -> tuple[DecisionSpace, Family, list[DecisionPoint]]:
    space = DecisionSpace()
    learnt = [space.learn(applied.candidate.trace_json) for applied in landscape.sample(8, seed)]
    (family,) = families(space)
    return space, family, [point for point in learnt if point is not None]


@given(EXTENTS, st.integers(2, 4), st.integers(0, 1000))
def test_decoding_what_was_encoded_gives_the_point(extents: list[int], n_levels: int, seed: int) -> None:
    space, family, points = family_of(
        TileLandscape("any", (*extents, 4), n_reduce=1, n_levels=n_levels), seed=seed
    )
    rng = random.Random(seed)
    for point in [*points, *(space.redraw(points[0], rng) for _ in range(20))]:
        numbers = family.encode(point)
        assert numbers.keys() == family.sizes.keys()
        assert all(0 <= number < family.sizes[name] for name, number in numbers.items())
        assert family.decode(numbers) == point


@given(EXTENTS, st.data())
def test_every_combination_is_a_tile_within_its_limits(extents: list[int], data: st.DataObject) -> None:
    _, family, _ = family_of(TileLandscape("any", (*extents, 4), n_reduce=1))
    numbers = {name: data.draw(st.integers(0, size - 1)) for name, size in family.sizes.items()}
    point = family.decode(numbers)
    for hole, tile in zip(point.sketch.holes, point.decisions, strict=True):
        if isinstance(hole, Tile) and isinstance(tile, tuple):
            assert math.prod(tile) == hole.extent
            assert tile[-1] <= MAX_INNERMOST


def test_all_combinations_are_all_points() -> None:
    _, family, _ = family_of(TileLandscape("small", (8, 6, 2), n_reduce=1, n_levels=3))
    boxes = [range(size) for size in family.sizes.values()]
    decoded = {
        family.decode(dict(zip(family.sizes, ranks, strict=True))) for ranks in itertools.product(*boxes)
    }
    # Ways to write 8, 6 and 2 as ordered products of three factors, and four unrollings.
    assert len({point.decisions for point in decoded}) == 10 * 9 * 3 * 4


def test_a_larger_number_is_no_smaller_factor() -> None:
    _, family, points = family_of(gemm_landscape())
    start = family.encode(points[0])
    for name, position, level in [("0/3", 0, 3), ("1/2", 1, 2), ("2/1", 2, 1)]:
        tiles = [
            family.decode({**start, name: rank}).decisions[position] for rank in range(family.sizes[name])
        ]
        factors = [tile[level] for tile in tiles if isinstance(tile, tuple)]
        assert factors == sorted(factors)
        assert len(set(factors)) > 1


def trace(*instructions: list[object], decisions: list[object]) -> str:
    return canonical_json([list(instructions), decisions])


def located(marker: str, tile: list[int], location: int) -> str:
    """Sketches that differ in `marker` only have the same holes."""
    return trace(
        ["GetSBlock", [], [marker, "main"], ["b0"]],
        ["SamplePerfectTile", ["l0"], [2, 64], ["v0", "v1"]],
        ["SampleComputeLocation", ["b0"], [], ["l1"]],
        decisions=[[1, tile], [2, location]],
    )


def test_sketches_with_equal_holes_are_one_family() -> None:
    space = DecisionSpace()
    texts = [located("a", [4, 2], -1), located("b", [8, 1], 3), located("b", [8, 1], 5)]
    other = trace(["SampleCategorical", [], [[0, 1, 2], [0.3, 0.3, 0.4]], ["v"]], decisions=[[0, 1]])
    points = [space.learn(text) for text in [*texts, other]]
    both, single = families(space)
    assert both.sizes == {"sketch": 2, "0/1": 4, "1": 3}  # locations -1, 3 and 5
    assert single.sizes == {"0": 3}
    for point in points[:3]:
        assert point is not None
        assert both.decode(both.encode(point)) == point
    first = points[0]
    assert first is not None
    with pytest.raises(ValueError, match="not in"):
        single.encode(first)


def test_a_tile_beyond_the_limits_becomes_a_near_one() -> None:
    space, family, points = family_of(TileLandscape("one", (512, 2), n_reduce=1, n_levels=2))
    wide = DecisionPoint(points[0].sketch, ((2, 256), *points[0].decisions[1:]))
    assert family.decode(family.encode(wide)).decisions[0] == (8, 64)
    assert space.sketches == (points[0].sketch,)
