"""Evolution of drafts: thousands of points, none of them applied, scored by a model of their decisions."""

import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from tunewright.core.types import Candidate, Draft, Origin
from tunewright.search.decisions import DecisionPoint, DecisionSpace, crossover
from tunewright.search.strategy import Scores

Drafts = dict[DecisionPoint, Draft]
Scorer = Callable[[Sequence[DecisionPoint]], Scores]


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """How many drafts are made before each batch, at some 20 us each, and how."""

    population_size: int = 192
    num_generations: int = 4
    # New blood in every generation: without it the population ends in the basin of the first batch.
    fresh_share: float = 0.2
    crossover_share: float = 0.25
    # A child takes one more mutation with this chance, again and again: single steps get stuck.
    further_step_chance: float = 0.5


def evolve(
    space: DecisionSpace,
    measured: Mapping[DecisionPoint, Candidate],
    known: Set[DecisionPoint],
    survivors: Drafts,
    score: Scorer,
    rng: random.Random,
    config: EvolutionConfig,
) -> Drafts:
    """All new drafts of some generations, best first.

    What was measured breeds as well, but takes nobody's place: a long session has measured most of the best.

    Args:
        measured: the parents of the first generation, best first; not empty. Each of them stands for
            itself and lends its sketch to fresh blood.
        known: what is not wanted.
        survivors: drafts of an earlier call, which compete again.
    """
    ancestors = list(measured.items())
    population: Drafts = {
        point: Draft(candidate, point.decisions, Origin.REPLAY) for point, candidate in ancestors
    }
    for point, draft in survivors.items():
        population.setdefault(point, draft)
    found = dict(survivors)
    ranked = best_drafts(population, score, config.population_size)
    for _ in range(config.num_generations):
        for _ in range(config.population_size):
            kind = rng.random()
            if kind < config.fresh_share:
                child, draft = random_draft(space, ancestors, rng)
            else:
                crosses = kind < config.fresh_share + config.crossover_share
                child, draft = breed(space, ranked, crosses, rng, config)
            if space.is_reasonable(child):
                found.setdefault(child, draft)
                population.setdefault(child, draft)
        population = dict(ranked := best_drafts(population, score, config.population_size))
    new = {point: draft for point, draft in found.items() if point not in known}
    return dict(best_drafts(new, score, len(new)))


def random_draft(
    space: DecisionSpace, ancestors: Sequence[tuple[DecisionPoint, Candidate]], rng: random.Random
) -> tuple[DecisionPoint, Draft]:
    """A random point of the sketch of one of `ancestors`."""
    point, candidate = rng.choice(ancestors)
    fresh = space.redraw(point, rng)
    return fresh, Draft(candidate, fresh.decisions, Origin.RANDOM)


def best_drafts(population: Drafts, score: Scorer, n: int) -> list[tuple[DecisionPoint, Draft]]:
    points = list(population)
    order = np.argsort(-score(points), kind="stable")[:n]
    return [(points[index], population[points[index]]) for index in order]


def breed(
    space: DecisionSpace,
    ranked: Sequence[tuple[DecisionPoint, Draft]],
    crosses: bool,
    rng: random.Random,
    config: EvolutionConfig,
) -> tuple[DecisionPoint, Draft]:
    """A child of one of `ranked`, best first, or of two where it `crosses` and they are of one sketch."""
    point, draft = _draw(ranked, rng)
    origin = Origin.MUTATION
    if crosses:
        other, _ = _draw(ranked, rng)
        if other.sketch is point.sketch and other != point:
            point, origin = crossover(point, other, rng), Origin.CROSSOVER
    if origin is Origin.MUTATION:
        point = space.mutate(point, rng)
    while rng.random() < config.further_step_chance:
        point = space.mutate(point, rng)
    return point, Draft(draft.parent, point.decisions, origin)


def _draw(ranked: Sequence[tuple[DecisionPoint, Draft]], rng: random.Random) -> tuple[DecisionPoint, Draft]:
    """One of them; the density falls from the best to the worst as a square root rises."""
    return ranked[int(len(ranked) * rng.random() ** 2)]
