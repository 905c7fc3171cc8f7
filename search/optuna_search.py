"""Optuna's samplers as search strategies, over the same decisions as every other strategy.

Each batch is asked of studies that are made anew from what was told, so that the trials alone steer it,
whichever session measured them: tenths of a second for a batch of 16 after 500 trials. They are
in memory: what lasts is the tuning log.

Sketches with equal holes share one study, of whole numbers (see `whole_numbers`). Where a task has several
such families, one more study chooses among them. TPE would treat conditional parameters in this way itself;
CMA-ES cannot have any, and would fall back to random ones.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState, create_trial

from tunewright.core.types import Candidate, Draft, Origin
from tunewright.search.decisions import DecisionPoint, Sketch
from tunewright.search.drafting import DraftingSearch
from tunewright.search.population import Drafts
from tunewright.search.samplers import check_sampler
from tunewright.search.space import DesignSpace
from tunewright.search.told_points import ToldPoints
from tunewright.search.whole_numbers import families

Values = dict[str, int]

_FAMILY = "family"


class OptunaSearch(DraftingSearch):
    """Proposes what a sampler of Optuna suggests.

    Args:
        sampler: one of `SAMPLERS`.

    Raises:
        ConfigError: `sampler` is unknown.
    """

    def __init__(self, space: DesignSpace, *, sampler: str, seed: int) -> None:
        check_sampler(sampler)
        super().__init__(f"optuna-{sampler}", space, partial(_Suggestions, sampler), seed=seed)


class _Suggestions:
    """Drafts one batch."""

    def __init__(
        self, sampler: str, told: ToldPoints, illegal: Mapping[DecisionPoint, int], seed: int
    ) -> None:
        self._families = families(told.decisions)
        self._studies = [
            _BoxStudy(sampler, {name: IntDistribution(0, size - 1) for name, size in one.sizes.items()}, seed)
            for one in self._families
        ]
        of_families = CategoricalDistribution(range(len(self._families)))
        self._choice = _BoxStudy("random" if sampler == "random" else "tpe", {_FAMILY: of_families}, seed)
        self._place = {sketch: place for place, one in enumerate(self._families) for sketch in one.sketches}
        self._parents = _parents(told)
        self._open: dict[DecisionPoint, Trial] = {}
        # As it happened: the generations of CMA-ES are in this order.
        found: list[tuple[int, float | None, DecisionPoint]] = [
            (index, secs, point) for index, (point, secs) in enumerate(told.secs.items())
        ]
        found += [(num_told, None, point) for point, num_told in illegal.items()]
        for _, secs, point in sorted(found, key=lambda item: item[0]):
            self._add(point, secs)

    def draft(self, n: int) -> Drafts:
        drafts: Drafts = {}
        for _ in range(n if self._families else 0):
            place = self._choice.ask().params[_FAMILY] if len(self._families) > 1 else 0
            trial = self._studies[place].ask()
            point = self._families[place].decode(trial.params)
            self._open.setdefault(point, trial)
            drafts[point] = Draft(self._parents[point.sketch], point.decisions, Origin.SAMPLED)
        return drafts

    def refuse(self, point: DecisionPoint) -> None:
        """Others of the batch stay open: TPE keeps away from what is being measured."""
        place = self._place[point.sketch]
        self._studies[place].close(self._open.pop(point))

    def _add(self, point: DecisionPoint, secs: float | None) -> None:
        """A measured point; None for one that is illegal, which says nothing about its family."""
        place = self._place[point.sketch]
        self._studies[place].add(self._families[place].encode(point), secs)
        if secs is not None and len(self._families) > 1:
            self._choice.add({_FAMILY: place}, secs)


class _BoxStudy:
    """A study of points in a box; less is better."""

    def __init__(self, sampler: str, box: dict[str, BaseDistribution], seed: int) -> None:
        self._box = box
        self._makes_generations = sampler == "cmaes"
        with quiet():
            self._study = optuna.create_study(sampler=_make_sampler(sampler, seed))

    def ask(self) -> Trial:
        return self._study.ask(self._box)

    def close(self, trial: Trial) -> None:
        """What was asked has no value."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def add(self, values: Values, value: float | None) -> None:
        """A point from anywhere; without a value, None or infinite, it is worse than all that have one."""
        if self._makes_generations:
            # CMA-ES marks what it suggests as of a generation, and learns from nothing else. So it is asked
            # for each point, and told of this one as if it were its own suggestion. Failures have a value,
            # the worst: a generation that waited for points that succeed would go on asking for the same.
            self._study.enqueue_trial(values)
            trial = self.ask()
            _ = trial.relative_params  # Optuna asks the sampler when they are read first
            self._study.tell(trial, math.inf if value is None else value)
            return
        has_value = value is not None and math.isfinite(value)
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if has_value else TrialState.PRUNED,
                params=values,
                distributions=self._box,
                value=value if has_value else None,
            )
        )


def _make_sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "tpe":
            # Factors of one tile pay together only; the trials of a batch are asked before any is measured.
            return TPESampler(multivariate=True, constant_liar=True, seed=seed)
        case "cmaes":
            return CmaEsSampler(warn_independent_sampling=False, seed=seed)
        case _:
            return RandomSampler(seed=seed)


def _parents(told: ToldPoints) -> dict[Sketch, Candidate]:
    """A candidate of each sketch, which lends its drafts its structure."""
    examples = {point.sketch: applied.candidate for point, applied in told.examples.items()}
    return {point.sketch: candidate for point, candidate in told.candidates.items()} | examples


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's line for each new study, and without its warnings about what is experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
