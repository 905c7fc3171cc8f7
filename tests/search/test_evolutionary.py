import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from tests.search.landscapes import (
    TileLandscape,
    conv_landscape,
    gemm_landscape,
    measure_all,
)
from tests.search.test_strategy import fitted_model
from tunewright.core.types import MeasureFailure, MeasureSuccess, Origin, RecordedTrial
from tunewright.cost_model import make_training_set
from tunewright.cost_model.xgboost_model import XGBoostCostModel
from tunewright.search import EvolutionaryConfig, EvolutionarySearch, RandomSearch, SearchStrategy


def best_secs(trials: list[RecordedTrial]) -> float:
    return min(trial.record.best_secs or float("inf") for trial in trials)


def run_session(
    landscape: TileLandscape, strategy: SearchStrategy, model: XGBoostCostModel, n_trials: int
) -> list[RecordedTrial]:
    trials: list[RecordedTrial] = []
    while len(trials) < n_trials:
        batch = measure_all(landscape, [p.applied for p in strategy.ask(16)], first_index=len(trials))
        strategy.tell(batch)
        trials += batch
        model.fit(make_training_set(trials))
    return trials


@pytest.mark.slow
@pytest.mark.parametrize("make_landscape", [gemm_landscape, conv_landscape])
def test_beats_random_at_equal_trials(make_landscape: Callable[[], TileLandscape]) -> None:
    random_best, evolved_best = [], []
    for seed in range(10):
        landscape, model = make_landscape(), XGBoostCostModel(seed=seed, num_threads=1)
        evolved = EvolutionarySearch(landscape, model, seed=seed)
        evolved_best.append(best_secs(run_session(landscape, evolved, model, 64)))
        baseline = RandomSearch(landscape, seed=seed)
        batch = measure_all(landscape, [p.applied for p in baseline.ask(64)], first_index=0)
        random_best.append(best_secs(batch))
    assert statistics.median(evolved_best) < 0.9 * statistics.median(random_best)
    assert sum(e < r for e, r in zip(evolved_best, random_best, strict=True)) >= 8


def told_strategy(landscape: TileLandscape, config: EvolutionaryConfig) -> EvolutionarySearch:
    strategy = EvolutionarySearch(landscape, fitted_model(landscape), seed=1, config=config)
    strategy.tell(measure_all(landscape, landscape.sample(48, seed=12345), first_index=0))
    return strategy


def failing_share(
    landscape: TileLandscape, training: list[RecordedTrial], told: list[RecordedTrial]
) -> float:
    """Share of failures among 64 proposals guided by a model of the `training` trials."""
    model = XGBoostCostModel(seed=0, num_threads=1)
    model.fit(make_training_set(training))
    strategy = EvolutionarySearch(landscape, model, seed=1)
    strategy.tell(told)
    results = [landscape.measure(p.applied.candidate) for _ in range(2) for p in strategy.ask(32)]
    return sum(isinstance(result, MeasureFailure) for result in results) / len(results)


def test_failures_teach_it_what_to_avoid() -> None:
    landscape = conv_landscape()
    shares = []
    for seed in range(3):
        told = measure_all(landscape, landscape.sample(96, seed=seed), first_index=0)
        successes = [trial for trial in told if isinstance(trial.record.result, MeasureSuccess)]
        assert len(successes) < len(told)
        shares.append((failing_share(landscape, told, told), failing_share(landscape, successes, told)))
    with_failures, without = (statistics.mean(side) for side in zip(*shares, strict=True))
    assert with_failures < 0.6 * without


def test_applies_a_few_candidates_for_each_trial() -> None:
    landscape = gemm_landscape()
    config = EvolutionaryConfig(candidates_per_trial=5)
    strategy = told_strategy(landscape, config)
    before = landscape.num_applied
    assert len(strategy.ask(16)) == 16
    assert landscape.num_applied - before <= 5 * 16


def test_a_batch_is_not_one_family() -> None:
    strategy = told_strategy(gemm_landscape(), EvolutionaryConfig(random_share=0.0, max_sibling_share=0.25))
    batch = strategy.ask(16)
    parents = Counter(p.applied.candidate.parent_key for p in batch if p.applied.candidate.parent_key)
    assert max(parents.values()) <= 4
    assert len({p.applied.features.tobytes() for p in batch}) == 16


def test_the_random_share_ignores_the_scores() -> None:
    greedy = told_strategy(gemm_landscape(), EvolutionaryConfig(random_share=0.0)).ask(16)
    lottery = told_strategy(gemm_landscape(), EvolutionaryConfig(random_share=1.0, fresh_share=1.0)).ask(16)
    assert {p.applied.candidate.origin for p in lottery} == {Origin.RANDOM}
    scores = [p.score for p in greedy if p.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert statistics.mean(p.score or 0.0 for p in lottery) < 0.5 * statistics.mean(scores)


def test_mutates_the_best_measured_also_without_a_pool() -> None:
    landscape = gemm_landscape()
    applied = landscape.sample(200, seed=5)
    results = [(landscape.measure(a.candidate), a) for a in applied]
    (_, champion) = min(
        ((r.median_secs, a) for r, a in results if isinstance(r, MeasureSuccess)), key=lambda pair: pair[0]
    )
    config = EvolutionaryConfig(num_elites=1, num_generations=1, fresh_share=0.0, max_sibling_share=1.0)
    strategy = EvolutionarySearch(landscape, fitted_model(landscape), seed=1, config=config)
    strategy.tell(measure_all(landscape, applied, first_index=0))
    parents = {p.applied.candidate.parent_key for p in strategy.ask(8)}
    assert parents == {champion.candidate.key}


def test_a_second_batch_also_offers_runners_up_of_the_first() -> None:
    landscape = gemm_landscape()
    strategy = told_strategy(landscape, EvolutionaryConfig(random_share=0.0))
    strategy.ask(8)
    applied_before = {applied.candidate.key for applied in strategy.pool}
    assert applied_before & {p.applied.candidate.key for p in strategy.ask(8)}


@pytest.mark.parametrize("field", ["candidates_per_trial", "num_generations", "num_elites", "max_pool"])
def test_counts_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0"):
        EvolutionaryConfig(**{field: 0})


def test_shares_are_shares() -> None:
    with pytest.raises(ValueError, match="random_share is 5"):
        EvolutionaryConfig(random_share=5)
