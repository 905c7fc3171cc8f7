"""StrategyContract: what every search strategy must do."""

from collections.abc import Callable

import pytest

from tests.search.landscapes import (
    TileLandscape,
    gemm_landscape,
    measure_all,
    tiny_landscape,
)
from tunewright.core.types import CandidateKey, MeasureFailure, RecordedTrial
from tunewright.cost_model.draft_model import DraftTrees
from tunewright.scheduler.tuning import OnlineModel
from tunewright.search import (
    DesignSpace,
    EvolutionarySearch,
    GeneticSearch,
    Proposal,
    RandomSearch,
    SearchStrategy,
)
from tunewright.search.optuna_search import OptunaSearch
from tunewright.search.samplers import SAMPLERS

MakeStrategy = Callable[[DesignSpace, int], SearchStrategy]


def fitted_model(landscape: TileLandscape, n_trials: int = 48) -> OnlineModel:
    model = OnlineModel(seed=0)
    trials = measure_all(landscape, landscape.sample(n_trials, seed=12345), first_index=0)
    model.fit_trials(trials)
    return model


def make_random(space: DesignSpace, seed: int) -> SearchStrategy:
    return RandomSearch(space, seed=seed)


def make_unfitted(space: DesignSpace, seed: int) -> SearchStrategy:
    return EvolutionarySearch(space, OnlineModel(seed=0), DraftTrees(seed=seed), seed=seed)


def make_fitted(space: DesignSpace, seed: int) -> SearchStrategy:
    return EvolutionarySearch(space, fitted_model(gemm_landscape()), DraftTrees(seed=seed), seed=seed)


def make_genetic(space: DesignSpace, seed: int) -> SearchStrategy:
    return GeneticSearch(space, seed=seed)


def make_optuna(sampler: str) -> MakeStrategy:
    return lambda space, seed: OptunaSearch(space, sampler=sampler, seed=seed)


MAKERS: dict[str, MakeStrategy] = {
    "random": make_random,
    "unfitted": make_unfitted,
    "fitted": make_fitted,
    "genetic": make_genetic,
    **{f"optuna-{sampler}": make_optuna(sampler) for sampler in SAMPLERS},
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def make_strategy(request: pytest.FixtureRequest) -> MakeStrategy:
    make: MakeStrategy = request.param
    return make


def keys(proposals: list[Proposal]) -> list[CandidateKey]:
    return [proposal.applied.candidate.key for proposal in proposals]


def ask_and_tell(
    strategy: SearchStrategy, landscape: TileLandscape, n: int, told: int
) -> list[RecordedTrial]:
    trials = measure_all(landscape, [p.applied for p in strategy.ask(n)], first_index=told)
    strategy.tell(trials)
    return trials


def test_asks_give_distinct_candidates_and_programs(make_strategy: MakeStrategy) -> None:
    strategy = make_strategy(gemm_landscape(), 1)
    batches = [strategy.ask(n) for n in (8, 0, 1, 16, 8)]
    assert [len(batch) for batch in batches] == [8, 0, 1, 16, 8]
    proposals = [proposal for batch in batches for proposal in batch]
    assert len(set(keys(proposals))) == len(proposals)
    assert len({proposal.applied.program_key for proposal in proposals}) == len(proposals)


def test_the_same_seed_and_trials_give_the_same_asks(make_strategy: MakeStrategy) -> None:
    first, second, other = (make_strategy(gemm_landscape(), seed) for seed in (7, 7, 8))
    for told in (0, 8, 16):
        batches = [keys([*s.ask(4), *s.ask(4)]) for s in (first, second, other)]
        assert batches[0] == batches[1] != batches[2]
        trials = measure_all(gemm_landscape(), gemm_landscape().sample(8, seed=told), first_index=told)
        for strategy in (first, second, other):
            strategy.tell(trials)


def test_what_was_told_is_never_proposed_again(make_strategy: MakeStrategy) -> None:
    landscape = tiny_landscape()
    known = measure_all(landscape, landscape.sample(30, seed=3), first_index=0)
    strategy = make_strategy(landscape, 1)
    strategy.tell(known)
    strategy.tell(known)  # a repeated ingest changes nothing
    proposed = []
    while batch := strategy.ask(8):
        proposed += keys(batch)
    assert proposed
    assert not set(proposed) & {trial.record.candidate.key for trial in known}


def test_an_exhausted_space_ends_after_nearly_all_programs(make_strategy: MakeStrategy) -> None:
    landscape = tiny_landscape()
    programs = {applied.program_key for applied in landscape.sample(2000, seed=0)}
    strategy = make_strategy(landscape, 5)
    proposed: set[str] = set()
    while batch := strategy.ask(8):
        proposed |= {proposal.applied.program_key for proposal in batch}
    assert proposed <= programs
    assert len(proposed) >= 0.8 * len(programs)
    assert strategy.ask(8) == []


def test_a_task_of_nothing_but_failures_goes_on(make_strategy: MakeStrategy) -> None:
    landscape = TileLandscape("broken", (64, 64, 64), n_reduce=1, max_body=0)
    strategy = make_strategy(landscape, 1)
    for told in (0, 8, 16):
        trials = ask_and_tell(strategy, landscape, 8, told)
        assert len(trials) == 8
        assert all(isinstance(trial.record.result, MeasureFailure) for trial in trials)


def test_a_killed_session_goes_on_from_its_records(make_strategy: MakeStrategy) -> None:
    landscape = gemm_landscape()
    killed = make_strategy(landscape, 1)
    trials: list[RecordedTrial] = []
    for _ in range(3):
        trials += ask_and_tell(killed, landscape, 8, len(trials))
    killed.ask(8)  # proposed, perhaps measured, never recorded: free to be proposed again

    resumed, again = make_strategy(landscape, 1), make_strategy(landscape, 1)
    resumed.tell(trials)
    for trial in trials:
        again.tell([trial])
    batch = keys(resumed.ask(8))
    assert len(batch) == 8
    assert not set(batch) & {trial.record.candidate.key for trial in trials}
    assert keys(again.ask(8)) == batch
