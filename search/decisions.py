"""Schedules as points: the sampled decisions of a trace, without TVM.

Applying a trace costs 4-40 ms, changing its decisions some 20 us. A search that drafts thousands of points
here and applies only the promising ones follows Pruner (Qiao et al., ASPLOS 2025).
"""

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.core.factors import prime_factors
from tunewright.core.keys import canonical_json
from tunewright.core.loop_nest import LoopNest, read_nest
from tunewright.core.tile_rules import VECTOR_LEVELS, are_reasonable, fullest_vector
from tunewright.core.types import DecisionValue, FloatArray
from tunewright.search.prior import INLINED, Hardware, guess

# Single moves cannot leave a bad tile whose every neighbour is bad too.
_REDRAWN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Tile:
    """`extent` split into `num_levels` factors, outermost first, the innermost at most `max_innermost`."""

    extent: int
    num_levels: int
    max_innermost: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The index of one of `num_choices` values."""

    num_choices: int


@dataclass(frozen=True, slots=True)
class Location:
    """The loop that a block is computed at, -1 for none. Which are legal depends on the other decisions: TVM
    takes the nearest one outside, so any that another point of the task has, at whatever block, will do.

    -2 inlines the block, which is not legal everywhere: only where it was seen.
    """


Hole = Tile | Choice | Location


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """A structure with holes, in the order of its instructions; the same object for all of its points.

    `columns`: slice of each hole in the flattened decisions. `sums`: float32 (n_flat, n_sums) of 0 and 1,
    which sums of the flattened logarithms are features. `nest`: None where no block is tiled.
    """

    index: int
    signature: str = field(repr=False)
    holes: tuple[Hole, ...]
    columns: tuple[slice, ...]
    sums: FloatArray = field(repr=False)
    nest: LoopNest | None


@dataclass(frozen=True, slots=True)
class DecisionPoint:
    """One value for each hole: the factors of a tile, or a number."""

    sketch: Sketch
    decisions: tuple[DecisionValue, ...]


@dataclass(frozen=True, slots=True)
class ParsedTrace:
    """`signature` is equal for all points of a sketch and for those of other extents."""

    signature: str
    holes: tuple[Hole, ...]
    columns: tuple[slice, ...]
    values: tuple[DecisionValue, ...]
    nest: LoopNest | None


class DecisionSpace:
    """What the traces seen so far tell of a task's design space: its sketches, and where blocks may go."""

    def __init__(self, hardware: Hardware | None = None) -> None:
        self._hardware = hardware or Hardware()
        self._sketches: dict[str, Sketch] = {}
        self._loops: list[int] = []  # seen as locations anywhere
        self._inlined: set[tuple[int, int]] = set()  # (sketch, position) where that was seen
        self._free: dict[int, tuple[list[int], list[int]]] = {}

    def learn(self, trace_json: str) -> DecisionPoint | None:
        """The point of a trace; None where the text is no trace, or has decisions of an unknown kind."""
        try:
            parsed = parse_trace(trace_json)
        except (ValueError, TypeError, IndexError, KeyError):
            return None
        sketch = self._sketches.get(parsed.signature)
        if sketch is None:
            sketch = self._sketches[parsed.signature] = _make_sketch(len(self._sketches), parsed)
        if sketch.holes != parsed.holes:
            return None
        for position, value in enumerate(parsed.values):
            if isinstance(sketch.holes[position], Location) and isinstance(value, int):
                self._add_location(sketch, position, value)
        return DecisionPoint(sketch, parsed.values)

    def _add_location(self, sketch: Sketch, position: int, location: int) -> None:
        if location == INLINED and (sketch.index, position) not in self._inlined:
            self._inlined.add((sketch.index, position))
            self._free.clear()
        elif location != INLINED and location not in self._loops:
            self._loops.append(location)
            self._free.clear()

    def vectors(self, points: Sequence[DecisionPoint]) -> FloatArray:
        """What a draft model reads: float32 (n_points, n_columns), the same columns for every point.

        Sketch index, then per hole the log2 of its factors or its number, then sums of logarithms: extents
        of inner tiles, the body of the innermost loops, the number of outermost chunks; zeros at the end of
        shorter sketches. `n_columns` grows when a new sketch is seen.
        """
        width = max((1 + sum(sketch.sums.shape) for sketch in self._sketches.values()), default=1)
        rows = np.zeros((len(points), width), dtype=np.float32)
        for sketch in self._sketches.values():
            members = [i for i, point in enumerate(points) if point.sketch is sketch]
            if not members:
                continue
            flat = np.array([_flatten(points[i]) for i in members], dtype=np.float32)
            for hole, columns in zip(sketch.holes, sketch.columns, strict=True):
                if isinstance(hole, Tile):
                    flat[:, columns] = np.log2(flat[:, columns])
            features = np.concatenate([flat, flat @ sketch.sums], axis=1)
            rows[members, 0] = sketch.index
            rows[np.ix_(members, range(1, 1 + features.shape[1]))] = features
        return rows

    def guesses(self, points: Sequence[DecisionPoint]) -> npt.NDArray[np.float64]:
        """What the hardware makes one expect of points: log2 of their speed (n_points,), up to a constant."""
        expected = np.zeros(len(points))
        for sketch in self._sketches.values():
            members = [i for i, point in enumerate(points) if point.sketch is sketch]
            if members and sketch.nest is not None:
                flat = np.array([_flatten(points[i]) for i in members], dtype=np.float32)
                expected[members] = guess(sketch.nest, flat, self._hardware)
        return expected

    def is_reasonable(self, point: DecisionPoint) -> bool:
        """Whether the space has the point: a sketch of our own has only such tiles as are worth a trial."""
        nest = point.sketch.nest
        if nest is None or not nest.is_unrolled:
            return True
        tiles = [value for value in point.decisions if isinstance(value, tuple)]
        return are_reasonable(
            tiles,
            vector_lanes=self._hardware.vector_lanes,
            num_registers=self._hardware.vector_registers,
            num_results=nest.num_results,
        )

    def mutate(self, point: DecisionPoint, rng: random.Random) -> DecisionPoint:
        """A neighbour: one prime factor moved inside a tile, now and then all of them; or another number.

        A tile is chosen in proportion to its prime factors. The point itself where nothing can change.
        """
        positions, weights = self._free_holes(point.sketch)
        if not positions:
            return point
        position = rng.choices(positions, cum_weights=weights)[0]
        hole, value = point.sketch.holes[position], point.decisions[position]
        if isinstance(hole, Tile) and isinstance(value, tuple):
            changed: DecisionValue = (
                self._random_tile(point.sketch, hole, rng)
                if rng.random() < _REDRAWN_SHARE
                else _move_prime(hole, value, rng)
            )
        else:
            others = [other for other in self.numbers(point.sketch, position) if other != value]
            changed = rng.choice(others) if others else value
        return replaced(point, position, changed)

    def neighbours(self, point: DecisionPoint) -> list[DecisionPoint]:
        """All points one step away: a prime factor moved inside a tile, a choice one up or down, a block
        computed at another loop that was seen."""
        found: list[DecisionPoint] = []
        for position, (hole, value) in enumerate(zip(point.sketch.holes, point.decisions, strict=True)):
            if isinstance(hole, Tile) and isinstance(value, tuple):
                steps: list[DecisionValue] = list(_prime_moves(hole, value))
            else:
                numbers = self.numbers(point.sketch, position)
                is_near = (
                    (lambda n, at=value: abs(n - at) == 1) if isinstance(hole, Choice) else (lambda n: True)
                )
                steps = [number for number in numbers if number != value and is_near(number)]
            found += [replaced(point, position, step) for step in steps]
        return found

    @property
    def sketches(self) -> tuple[Sketch, ...]:
        """Those seen so far, by their index."""
        return tuple(self._sketches.values())

    def like(self, foreign: ParsedTrace) -> Sketch | None:
        """The sketch of which another task's trace is a point but for its extents; otherwise one whose tiled
        block has the same loops in the same order, None where there is none."""
        exact = self._sketches.get(foreign.signature)
        if exact is not None or foreign.nest is None:
            return exact
        nests = ((sketch, sketch.nest) for sketch in self._sketches.values() if sketch.nest is not None)
        return next((sketch for sketch, nest in nests if nest.has_same_loops(foreign.nest)), None)

    def redraw(self, point: DecisionPoint, rng: random.Random) -> DecisionPoint:
        """A random point of the same sketch."""
        return DecisionPoint(
            point.sketch,
            tuple(
                self._random_tile(point.sketch, hole, rng)
                if isinstance(hole, Tile)
                else rng.choice(self.numbers(point.sketch, position))
                for position, hole in enumerate(point.sketch.holes)
            ),
        )

    def _random_tile(self, sketch: Sketch, hole: Tile, rng: random.Random) -> tuple[int, ...]:
        """In a sketch of our own, vectors are as full as they can be: few tiles of all factors have such."""
        is_own = sketch.nest is not None and sketch.nest.is_unrolled
        if not is_own or hole.num_levels != VECTOR_LEVELS:
            return _random_tile(hole, rng)
        lanes = fullest_vector(hole.extent, self._hardware.vector_lanes)
        rest = Tile(hole.extent // lanes, hole.num_levels - 1, hole.extent)
        return (*_random_tile(rest, rng), lanes)

    def numbers(self, sketch: Sketch, position: int) -> Sequence[int]:
        """What may stand in a hole that is no tile; the locations are those that were seen."""
        hole = sketch.holes[position]
        if isinstance(hole, Choice):
            return range(hole.num_choices)
        return [INLINED, *self._loops] if (sketch.index, position) in self._inlined else self._loops

    def _free_holes(self, sketch: Sketch) -> tuple[list[int], list[int]]:
        """Holes that can take another value, with cumulative weights."""
        if sketch.index not in self._free:
            weights = [
                _num_moves(hole) if isinstance(hole, Tile) else int(len(self.numbers(sketch, position)) > 1)
                for position, hole in enumerate(sketch.holes)
            ]
            positions = [position for position, weight in enumerate(weights) if weight]
            cumulative = np.cumsum([weights[position] for position in positions]).tolist()
            self._free[sketch.index] = positions, cumulative
        return self._free[sketch.index]


def replaced(point: DecisionPoint, position: int, value: DecisionValue) -> DecisionPoint:
    """The point with another value in one of its holes."""
    decisions = point.decisions
    return DecisionPoint(point.sketch, (*decisions[:position], value, *decisions[position + 1 :]))


def crossover(a: DecisionPoint, b: DecisionPoint, rng: random.Random) -> DecisionPoint:
    """Each decision from one of two points of the same sketch.

    Raises:
        ValueError: their sketches differ.
    """
    if a.sketch is not b.sketch:
        raise ValueError(f"points of sketches {a.sketch.index} and {b.sketch.index}, expected equal ones")
    pairs = zip(a.decisions, b.decisions, strict=True)
    return DecisionPoint(a.sketch, tuple(x if rng.random() < 0.5 else y for x, y in pairs))


def distance(a: DecisionPoint, b: DecisionPoint) -> float:
    """Number of decisions in which they differ, infinite between sketches."""
    if a.sketch is not b.sketch:
        return math.inf
    return sum(x != y for x, y in zip(a.decisions, b.decisions, strict=True))


def parse_trace(trace_json: str) -> ParsedTrace:
    """A recorded trace without its postprocessing.

    Raises:
        ValueError, TypeError, IndexError, KeyError: it is no trace, or has decisions of an unknown kind.
    """
    instructions, recorded = json.loads(trace_json)
    kinds = [instruction[0] for instruction in instructions]
    end = kinds.index("EnterPostproc") if "EnterPostproc" in kinds else len(kinds)
    taken = [(index, value) for index, value in recorded if index < end]
    holes = tuple(_hole(instructions[index], value) for index, value in taken)
    columns = _columns(holes)
    by_instruction = {index: where for (index, _), where in zip(taken, columns, strict=True)}
    return ParsedTrace(
        # The instructions as a whole: sketches may differ only in the loop that a block is moved to.
        canonical_json([instructions[:end], [index for index, _ in taken]]),
        holes,
        columns,
        tuple(tuple(value) if isinstance(value, list) else int(value) for _, value in taken),
        read_nest(instructions[:end], by_instruction),
    )


def has_decisions(trace_json: str) -> bool:
    """Whether a trace is one of many: the point of a sketch with holes."""
    try:
        return bool(parse_trace(trace_json).holes)
    except (ValueError, TypeError, IndexError, KeyError):
        return False


def _hole(instruction: Sequence[Any], value: Any) -> Hole:
    match instruction[0], instruction[2]:
        case "SamplePerfectTile", [num_levels, max_innermost]:
            extent = math.prod(value)
            if len(value) != num_levels or extent < 1:
                raise ValueError(f"{value} is no tile of {num_levels} levels")
            return Tile(extent, num_levels, max_innermost if max_innermost > 0 else extent)
        case "SampleCategorical", [candidates, _]:
            return Choice(len(candidates))
        case "SampleComputeLocation", _:
            return Location()
    raise ValueError(f"{instruction[0]} is no decision that a draft can change")


def _columns(holes: Sequence[Hole]) -> tuple[slice, ...]:
    columns, start = [], 0
    for hole in holes:
        width = hole.num_levels if isinstance(hole, Tile) else 1
        columns.append(slice(start, start + width))
        start += width
    return tuple(columns)


def _make_sketch(index: int, parsed: ParsedTrace) -> Sketch:
    n_flat = parsed.columns[-1].stop if parsed.columns else 0
    sums = _sums(parsed.holes, parsed.columns, n_flat)
    return Sketch(index, parsed.signature, parsed.holes, parsed.columns, sums, parsed.nest)


def _sums(holes: Sequence[Hole], columns: Sequence[slice], n_flat: int) -> FloatArray:
    """Each sum as a column of zeros and ones."""
    by_depth: dict[int, list[slice]] = {}
    for hole, where in zip(holes, columns, strict=True):
        if isinstance(hole, Tile):
            by_depth.setdefault(hole.num_levels, []).append(where)
    tiles = [where for group in by_depth.values() for where in group]
    sums: list[list[slice]] = []
    for num_levels, group in by_depth.items():
        inner = range(2, num_levels - 1)
        sums += [[slice(where.start + level, where.stop)] for where in group for level in inner]
        sums += [
            [slice(where.start + level, where.start + level + 1) for where in group]
            for level in range(num_levels)
        ]
    sums.append([slice(where.stop - 1, where.stop) for where in tiles])
    sums.append([slice((where.start + where.stop) // 2, where.stop) for where in tiles])
    matrix = np.zeros((n_flat, len(sums)), dtype=np.float32)
    for column, parts in enumerate(sums):
        for part in parts:
            matrix[part, column] = 1.0
    return matrix


def _flatten(point: DecisionPoint) -> list[int]:
    flat: list[int] = []
    for value in point.decisions:
        if isinstance(value, tuple):
            flat.extend(value)
        else:
            flat.append(value)
    return flat


def _move_prime(hole: Tile, tile: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
    """One prime factor moved from one level to another; a random tile where the limit forbids the move."""
    factors = list(tile)
    source = rng.choice([level for level, factor in enumerate(factors) if factor > 1])
    prime = rng.choice(prime_factors(factors[source]))
    factors[source] //= prime
    sink = int(rng.random() * (hole.num_levels - 1))
    sink += sink >= source
    factors[sink] *= prime
    return tuple(factors) if factors[-1] <= hole.max_innermost else _random_tile(hole, rng)


def _prime_moves(hole: Tile, tile: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for source, sink in itertools.permutations(range(hole.num_levels), 2):
        for prime in sorted(set(prime_factors(tile[source]))):
            factors = list(tile)
            factors[source] //= prime
            factors[sink] *= prime
            if factors[-1] <= hole.max_innermost:
                yield tuple(factors)


def _random_tile(hole: Tile, rng: random.Random) -> tuple[int, ...]:
    """Every prime factor at a random level, the innermost within its limit."""
    factors = [1] * hole.num_levels
    primes = list(prime_factors(hole.extent))
    rng.shuffle(primes)
    for prime in primes:
        level = int(rng.random() * hole.num_levels)  # a third of randrange's time
        if level == hole.num_levels - 1 and level > 0 and factors[level] * prime > hole.max_innermost:
            level = int(rng.random() * level)
        factors[level] *= prime
    return tuple(factors)


def _num_moves(hole: Tile) -> int:
    return len(prime_factors(hole.extent)) if hole.num_levels > 1 else 0
