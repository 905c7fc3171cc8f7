import pytest

from tunewright.core.errors import ConfigError
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import STRATEGIES, STRATEGY_NAMES, TuneOptions, strategy_name


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
