import random
from collections.abc import Sequence

import numpy as np
import pytest

from tests.search.landscapes import Decisions, TileLandscape, gemm_landscape
from tunewright.core.types import Candidate, Origin
from tunewright.search import EvolutionConfig
from tunewright.search.decisions import DecisionPoint, DecisionSpace
from tunewright.search.population import Scores, evolve, random_draft


def seeds(landscape: TileLandscape, space: DecisionSpace, n: int) -> dict[DecisionPoint, Candidate]:
    candidates = [applied.candidate for applied in landscape.sample(n, seed=1)]
    points = [space.learn(candidate.trace_json) for candidate in candidates]
    return {point: candidate for point, candidate in zip(points, candidates, strict=True) if point}


def test_finds_the_optimum_of_a_model_that_is_right() -> None:
    """With the true seconds for a model, the drafts end near the best of 20 000 random points."""
    landscape, space = gemm_landscape(), DecisionSpace()
    measured = seeds(landscape, space, 16)

    def secs(point: DecisionPoint) -> float:
        return landscape.secs(Decisions.from_values(point.decisions))

    def score(points: Sequence[DecisionPoint]) -> Scores:
        return np.array([-secs(point) for point in points])

    rng = random.Random(0)
    drafts = evolve(space, measured, set(), {}, score, rng, EvolutionConfig())
    found = [secs(point) for point in drafts]
    assert found == sorted(found)
    (start,) = list(measured)[:1]
    assert found[0] < 1.02 * min(secs(space.redraw(start, rng)) for _ in range(20_000))
    assert all(draft.decisions == point.decisions for point, draft in drafts.items())
    assert {draft.parent.key for draft in drafts.values()} <= {c.key for c in measured.values()}
    assert {draft.origin for draft in drafts.values()} >= {Origin.MUTATION, Origin.CROSSOVER}


def test_survivors_compete_again() -> None:
    landscape, space = gemm_landscape(), DecisionSpace()
    measured = seeds(landscape, space, 16)
    rng = random.Random(0)
    favourite, draft = random_draft(space, list(measured.items()), rng)

    def score(points: Sequence[DecisionPoint]) -> Scores:
        return np.array([float(point == favourite) for point in points])

    config = EvolutionConfig(population_size=8, num_generations=1)
    first, *_ = evolve(space, measured, set(), {favourite: draft}, score, rng, config).items()
    assert first == (favourite, draft)


@pytest.mark.parametrize("num_generations", [1, 5])
def test_equal_generators_give_equal_drafts(num_generations: int) -> None:
    results = []
    for _ in range(2):
        space = DecisionSpace()
        measured = seeds(gemm_landscape(), space, 8)
        config = EvolutionConfig(population_size=50, num_generations=num_generations)
        drafts = evolve(space, measured, set(), {}, lambda p: np.zeros(len(p)), random.Random(4), config)
        results.append([(draft.decisions, draft.origin) for draft in drafts.values()])
    assert results[0] == results[1]
    assert len(results[0]) > 30


def test_what_was_measured_takes_no_drafts_place() -> None:
    """A session that has measured most of the best goes on with what is next."""
    space, landscape = DecisionSpace(), gemm_landscape()
    measured = seeds(landscape, space, 64)

    def score(points: Sequence[DecisionPoint]) -> Scores:
        return np.array([1.0 if point in measured else 0.0 for point in points])

    config = EvolutionConfig(population_size=32, num_generations=2)
    drafts = evolve(space, measured, measured.keys(), {}, score, random.Random(1), config)
    assert len(drafts) > 48
    assert not drafts.keys() & measured.keys()
