import statistics

import pytest

from tests.search.landscapes import gemm_landscape
from tests.search.test_optuna_search import best_secs, run
from tunewright.core.types import Origin
from tunewright.search import GeneticSearch, RandomSearch


@pytest.mark.slow
def test_beats_random_at_equal_trials() -> None:
    """Medians over other sets of ten seeds: 0.82-0.92 of random's seconds."""
    genetic, baseline = [], []
    for seed in range(10):
        landscape = gemm_landscape()
        genetic.append(best_secs(run(GeneticSearch(landscape, seed=seed), landscape, 128)))
        baseline.append(best_secs(run(RandomSearch(landscape, seed=seed), landscape, 128)))
    assert statistics.median(genetic) < 0.95 * statistics.median(baseline)


def test_children_descend_from_the_fastest() -> None:
    landscape = gemm_landscape()
    trials = run(GeneticSearch(landscape, seed=0), landscape, 128)
    assert {t.record.candidate.origin for t in trials[:16]} == {Origin.RANDOM}
    secs = {t.record.candidate.key: t.record.best_secs for t in trials if t.record.best_secs is not None}
    children = [t.record.candidate for t in trials[64:] if t.record.candidate.parent_key is not None]
    assert {child.origin for child in children} == {Origin.MUTATION, Origin.CROSSOVER}
    parents = [secs[child.parent_key] for child in children if child.parent_key is not None]
    assert statistics.median(parents) < statistics.quantiles(secs.values(), n=4)[0]
    fresh = [t for t in trials[64:] if t.record.candidate.origin is Origin.RANDOM]
    assert 0 < len(fresh) < 32
