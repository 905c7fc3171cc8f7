import pytest

from tests.cost_model.trials import success, trial
from tunewright.core.errors import ConfigError
from tunewright.cost_model.hyper_parameters import HyperParameters
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import (
    STRATEGIES,
    STRATEGY_NAMES,
    OnlineModel,
    TuneOptions,
    strategy_name,
)


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_every_name_that_people_choose_is_a_strategy(name: str) -> None:
    assert strategy_name(name, None) in STRATEGIES
    TuneOptions(Budget(num_trials=1), strategy=strategy_name(name, None))


def test_a_sampler_is_a_strategy_of_its_own() -> None:
    assert strategy_name("optuna", None) == "optuna-tpe"
    assert strategy_name("optuna", "cmaes") == "optuna-cmaes"


@pytest.mark.parametrize(
    ("strategy", "sampler", "words"),
    [
        ("optuna", "gp", "sampler 'gp' is unknown; choose one of: tpe, cmaes, random"),
        ("random", "tpe", "strategy 'random' has no samplers: leave out --sampler"),
        ("annealing", None, "'annealing' is unknown; choose one of: evolutionary, genetic, optuna, random"),
    ],
)
def test_what_is_no_strategy(strategy: str, sampler: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        strategy_name(strategy, sampler)


@pytest.mark.parametrize("has_base", [False, True])
def test_parameters_reach_the_sessions_model(has_base: bool) -> None:
    trials = [trial(success(1e-3 * (1 + n)), seed=n) for n in range(40)]
    base = OnlineModel(seed=0).fit_trials(trials) if has_base else None
    small, full = (
        OnlineModel(seed=0, base=base, params=params).fit_trials(trials)
        for params in (HyperParameters(num_rounds=4), HyperParameters())
    )
    assert len(small.booster_ubj) < len(full.booster_ubj)
