"""Our tuner with techniques switched off: the only place where they can be.

`TECHNIQUES` maps the name of a technique to the change that takes it out. A variant is the full tuner
("full"), the tuner without one ("without-X"), with one alone ("only-X"), with none of them ("none"), or
random search with all that does not concern the search ("random").
Those of `LOG_TECHNIQUES` only work with a log of other tasks: "full+log", "without-X+log".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tunewright.core.types import TargetSpec
from tunewright.scheduler import tuning
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions
from tunewright.search import EvolutionaryConfig, EvolutionarySearch
from tunewright.workers import WorkerConfig

WITH_LOG = "+log"
FULL = "full"
_RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a variant may change."""

    options: TuneOptions
    workers: WorkerConfig
    evolutionary: EvolutionaryConfig


Change = Callable[[Setup], Setup]


def full_setup(target: TargetSpec, *, num_trials: int, seed: int) -> Setup:
    """The tuner as it is, but never giving up before the trials are spent: peers do not either."""
    return Setup(
        TuneOptions(Budget(num_trials=num_trials, patience=num_trials), seed=seed),
        WorkerConfig.for_threads(target.num_threads),
        EvolutionaryConfig(),
    )


def search_with(config: EvolutionaryConfig) -> None:
    """From now on sessions of this process wire their search as ever, but with this configuration."""
    tuning.EvolutionarySearch = partial(EvolutionarySearch, config=config)  # type: ignore


def variant_names() -> list[str]:
    """The full tuner first."""
    return [
        FULL,
        *(f"without-{name}" for name in TECHNIQUES),
        *(f"only-{name}" for name in TECHNIQUES),
        "none",
        _RANDOM,
        FULL + WITH_LOG,
        *(f"without-{name}{WITH_LOG}" for name in LOG_TECHNIQUES),
    ]


def change_of(variant: str) -> Change:
    """Raises: ValueError for a name that `variant_names` does not list."""
    if variant not in variant_names():
        raise ValueError(f"variant {variant!r} is unknown; choose of: {', '.join(variant_names())}")
    if variant == _RANDOM:
        return _options(strategy="random")
    kind, _, name = variant.removesuffix(WITH_LOG).partition("-")
    off = {
        FULL: [],
        "without": [name],
        "only": [other for other in TECHNIQUES if other != name],
        "none": list(TECHNIQUES),
    }[kind]

    def change(setup: Setup) -> Setup:
        for technique in off:
            setup = (TECHNIQUES | LOG_TECHNIQUES)[technique](setup)
        return setup

    return change


def _search(**changes: Any) -> Change:
    return lambda setup: replace(setup, evolutionary=replace(setup.evolutionary, **changes))


def _evolution(**changes: Any) -> Change:
    def change(setup: Setup) -> Setup:
        evolution = replace(setup.evolutionary.evolution, **changes)
        return replace(setup, evolutionary=replace(setup.evolutionary, evolution=evolution))

    return change


def _options(**changes: Any) -> Change:
    return lambda setup: replace(setup, options=replace(setup.options, **changes))


def _evaluator(**changes: Any) -> Change:
    def change(setup: Setup) -> Setup:
        evaluator = replace(setup.options.evaluator, **changes)
        return replace(setup, options=replace(setup.options, evaluator=evaluator))

    return change


def _workers(**changes: Any) -> Change:
    return lambda setup: replace(setup, workers=replace(setup.workers, **changes))


# Each entry takes one technique OUT.
SEARCH_TECHNIQUES: dict[str, Change] = {
    # 64 is what MetaSchedule measures between two looks at the results.
    "small-batches": _options(batch_size=64),
    "two-stages": _search(applied_per_trial=1.0),
    "suited-opening": _search(opening_drafts=0),
    "descent": _search(descent_share=0.0),
    "build-weight": _search(build_weight=0.0),
    "diversity": _search(max_sibling_share=1.0),
    "random-share": _search(random_share=0.0),
    "crossover": _evolution(crossover_share=0.0),
    "fresh-blood": _evolution(fresh_share=0.0),
}

TECHNIQUES: dict[str, Change] = {
    **SEARCH_TECHNIQUES,
    # Building and measuring.
    "duplicates": _workers(drops_duplicates=False),
    "build-limits": _workers(adapts_build_limit=False),
    "overlap": _workers(overlaps_builds=False),
    "reference": _workers(watches_reference=False),
    "early-stop": _evaluator(prune_ratio=1e9),
    "adaptive-samples": _evaluator(target_relative_ci=0.0),
}

LOG_TECHNIQUES: dict[str, Change] = {
    "transfer": _search(transfer_share=0.0),
    "model-in-opening": _search(opening_applied_per_trial=1.0),
}
