"""Points as whole numbers, for optimisers that know nothing but numbers."""

from collections.abc import Mapping, Sequence

from tunewright.core.factors import divisors
from tunewright.core.types import DecisionValue
from tunewright.search.decisions import DecisionPoint, DecisionSpace, Hole, Sketch, Tile
from tunewright.search.transfer import fit_tile

Numbers = dict[str, int]

_SKETCH = "sketch"


class Family:
    """Sketches with the same holes, as one box of whole numbers from 0 to `sizes[name]` - 1.

    A tile of k levels is k - 1 numbers, one for each level but the outermost: the rank of its factor among
    the divisors of the extent. They are read from the innermost level outwards: a factor that does not divide
    what is left becomes the nearest one that does, and the outermost level takes the rest. So a number means
    the same whatever the others are, a larger one is a larger factor, every combination is a tile, and every
    tile is some combination. All factorisations as one unordered choice would have none of that: 840 of them
    for an extent of 3136 in four levels, each of which says nothing about the next.

    Choices and locations are ranks, too, and the sketch is one more number. What has one value only is no
    number.
    """

    def __init__(self, space: DecisionSpace, sketches: Sequence[Sketch]) -> None:
        self.sketches = tuple(sketches)
        self._values = {_SKETCH: list(range(len(self.sketches)))} | _hole_values(space, self.sketches)
        self.sizes = {name: len(values) for name, values in self._values.items() if len(values) > 1}

    def encode(self, point: DecisionPoint) -> Numbers:
        """The numbers of a point, from which `decode` makes it again.

        Raises:
            ValueError: its sketch is of another family.
        """
        given = {_SKETCH: self.sketches.index(point.sketch)} | _by_name(point)
        return {name: _nearest(self._values[name], given[name]) for name in self.sizes}

    def decode(self, numbers: Mapping[str, int]) -> DecisionPoint:
        """The point that numbers, one for each of `sizes`, stand for."""
        chosen = {name: values[numbers.get(name, 0)] for name, values in self._values.items()}
        sketch = self.sketches[chosen[_SKETCH]]
        decisions: list[DecisionValue] = []
        for position, hole in enumerate(sketch.holes):
            if isinstance(hole, Tile):
                inner = [chosen[_name(position, level)] for level in range(1, hole.num_levels)]
                decisions.append(fit_tile([hole.extent, *inner], hole))
            else:
                decisions.append(chosen[_name(position)])
        return DecisionPoint(sketch, tuple(decisions))


def families(space: DecisionSpace) -> list[Family]:
    """The sketches seen so far, those with equal holes together, in the order of their first."""
    by_holes: dict[tuple[Hole, ...], list[Sketch]] = {}
    for sketch in space.sketches:
        by_holes.setdefault(sketch.holes, []).append(sketch)
    return [Family(space, members) for members in by_holes.values()]


def _hole_values(space: DecisionSpace, sketches: Sequence[Sketch]) -> dict[str, list[int]]:
    """What each number can stand for, ascending."""
    values: dict[str, list[int]] = {}
    for position, hole in enumerate(sketches[0].holes):
        if isinstance(hole, Tile):
            for level in range(1, hole.num_levels):
                limit = hole.max_innermost if level == hole.num_levels - 1 else hole.extent
                fitting = [divisor for divisor in divisors(hole.extent) if divisor <= limit]
                values[_name(position, level)] = fitting
        else:
            # A block may be inlined in one sketch only: elsewhere that is illegal, which its trial will tell.
            of_all = {number for sketch in sketches for number in space.numbers(sketch, position)}
            values[_name(position)] = sorted(of_all)
    return values


def _by_name(point: DecisionPoint) -> dict[str, int]:
    found: dict[str, int] = {}
    for position, value in enumerate(point.decisions):
        if isinstance(value, tuple):
            found |= {_name(position, level): factor for level, factor in enumerate(value) if level > 0}
        else:
            found[_name(position)] = value
    return found


def _nearest(values: Sequence[int], given: int) -> int:
    """The rank of a value; of the nearest one where it is missing, as in a tile beyond its hole's limits."""
    return min(range(len(values)), key=lambda rank: abs(values[rank] - given))


def _name(position: int, level: int | None = None) -> str:
    return f"{position}" if level is None else f"{position}/{level}"
