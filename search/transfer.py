"""The best schedules of other tasks as first drafts of this one: their tiles fit to its extents.

Tasks of one model are alike: on a server CPU, re-applying other tasks' schedules gives half of what tuning
would (Gibson and Cano, "Transfer-Tuning", PACT 2022).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tunewright.core.factors import divisors
from tunewright.core.types import Candidate, DecisionValue, Draft, Origin, RecordedTrial, known_secs
from tunewright.search.decisions import (
    DecisionPoint,
    DecisionSpace,
    Hole,
    ParsedTrace,
    Sketch,
    Tile,
    parse_trace,
)
from tunewright.search.population import Drafts

# Which loop computes a block, when the other task's blocks are not the same ones, counts as much as a factor
# of two in an extent.
_OTHER_STRUCTURE = 1.0


def transferred_drafts(
    space: DecisionSpace, examples: Mapping[DecisionPoint, Candidate], seeds: Sequence[RecordedTrial]
) -> Drafts:
    """What `seeds` become in this task's sketches, nearest extents first, of equal ones the fastest first.

    Args:
        examples: own candidates; the first one of a sketch lends what a seed does not decide.
        seeds: the best trials of other tasks on the same target; those without a like sketch are left out.
    """
    by_sketch = {point.sketch: (point, candidate) for point, candidate in reversed(list(examples.items()))}
    found: list[tuple[float, float, DecisionPoint, Draft]] = []
    for seed in seeds:
        try:
            foreign = parse_trace(seed.record.candidate.trace_json)
        except (ValueError, TypeError, IndexError, KeyError):
            continue
        sketch = space.like(foreign)
        if sketch is None or sketch not in by_sketch:
            continue
        own, candidate = by_sketch[sketch]
        point = DecisionPoint(sketch, _projected(foreign, own))
        draft = Draft(candidate, point.decisions, Origin.TRANSFER)
        found.append((_distance(foreign, sketch), known_secs(seed.record.result), point, draft))
    found.sort(key=lambda item: item[:2])
    drafts: Drafts = {}
    for _, _, point, draft in found:
        drafts.setdefault(point, draft)
    return drafts


def fit_tile(factors: Sequence[int], hole: Tile) -> tuple[int, ...]:
    """The tile of another extent that is most like `factors`: inner levels first, each as near as a divisor
    of what is left can be; the outermost takes the rest."""
    rest, inner = hole.extent, []
    for level in range(hole.num_levels - 1, 0, -1):
        limit = hole.max_innermost if level == hole.num_levels - 1 else rest
        fitting = [divisor for divisor in divisors(rest) if divisor <= limit]
        nearest = min(fitting, key=lambda divisor: abs(math.log2(divisor / factors[level])))
        inner.append(nearest)
        rest //= nearest
    return (rest, *reversed(inner))


def _projected(foreign: ParsedTrace, own: DecisionPoint) -> tuple[DecisionValue, ...]:
    """Hole by hole the next value of its kind; one's own where there is no more."""
    values: dict[type[Hole], list[DecisionValue]] = defaultdict(list)
    for hole, value in zip(foreign.holes, foreign.values, strict=True):
        values[type(hole)].insert(0, value)
    projected: list[DecisionValue] = []
    for hole, fallback in zip(own.sketch.holes, own.decisions, strict=True):
        value = values[type(hole)].pop() if values[type(hole)] else fallback
        if isinstance(hole, Tile) and isinstance(value, tuple):
            value = fit_tile(value, hole) if len(value) == hole.num_levels else fallback
        projected.append(value)
    return tuple(projected)


def _distance(foreign: ParsedTrace, sketch: Sketch) -> float:
    """Sum of the factors between extents, as log2."""
    pairs = zip(_extents(foreign.holes), _extents(sketch.holes), strict=False)
    other_structure = foreign.signature != sketch.signature
    return sum(abs(math.log2(a / b)) for a, b in pairs) + _OTHER_STRUCTURE * other_structure


def _extents(holes: Sequence[Hole]) -> list[int]:
    return [hole.extent for hole in holes if isinstance(hole, Tile)]
