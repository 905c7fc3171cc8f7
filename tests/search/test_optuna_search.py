import logging
import statistics
from collections.abc import Sequence

import optuna
import pytest

from tests.search.landscapes import (
    Decisions,
    TileLandscape,
    conv_landscape,
    gemm_landscape,
    measure_all,
    tiny_landscape,
)
from tunewright.core.errors import ConfigError
from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    Draft,
    FailureKind,
    MeasureFailure,
    MeasureResult,
    Origin,
    RecordedTrial,
)
from tunewright.search import RandomSearch, SearchStrategy
from tunewright.search.optuna_search import OptunaSearch


def run(strategy: SearchStrategy, landscape: TileLandscape, n_trials: int) -> list[RecordedTrial]:
    trials: list[RecordedTrial] = []
    while len(trials) < n_trials:
        batch = [proposal.applied for proposal in strategy.ask(8)]
        trials += measure_all(landscape, batch, first_index=len(trials))
        strategy.tell(trials[-8:])
    return trials


def best_secs(trials: Sequence[RecordedTrial]) -> float:
    return min(trial.record.best_secs for trial in trials if trial.record.best_secs is not None)


@pytest.mark.slow
def test_tpe_beats_random_at_equal_trials() -> None:
    """Medians over other sets of ten seeds: 0.80-0.87 of random's seconds."""
    by_strategy: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed in range(10):
        landscape = gemm_landscape()
        tpe = OptunaSearch(landscape, sampler="tpe", seed=seed)
        for name, strategy in (("tpe", tpe), ("random", RandomSearch(landscape, seed=seed))):
            by_strategy[name].append(best_secs(run(strategy, landscape, 64)))
    medians = {name: statistics.median(secs) for name, secs in by_strategy.items()}
    assert medians["tpe"] < 0.93 * medians["random"]


def mean_innermost(applied: Sequence[AppliedCandidate]) -> float:
    decisions = [Decisions.from_json(one.candidate.trace_json) for one in applied]
    return statistics.mean(tile[-1] for one in decisions for tile in one.tiles)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_what_another_session_measured_steers_the_sampler(sampler: str) -> None:
    """Told that small innermost factors are fast, or that large ones are, it suggests such."""
    means = []
    for sign in (1, -1):
        landscape = gemm_landscape()

        def secs(candidate: Candidate, sign: int = sign) -> MeasureResult:
            tiles = Decisions.from_json(candidate.trace_json).tiles
            result = gemm_landscape().measure(candidate)
            size = sum(tile[-1] for tile in tiles)
            if isinstance(result, MeasureFailure):
                return result
            return type(result)((1e-3 * size**sign,), build_secs=0.1, wall_secs=0.1, is_verified=True)

        foreign = measure_all(landscape, landscape.sample(200, seed=5), first_index=0, measure=secs)
        strategy = OptunaSearch(landscape, sampler=sampler, seed=1)
        strategy.tell(foreign)
        means.append(mean_innermost([p.applied for p in strategy.ask(16)]))
    assert means[0] < 0.7 * means[1]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_failures_are_avoided(sampler: str) -> None:
    """Where deep unrolling breaks every build, less of it is suggested than where nothing breaks."""

    def breaks(candidate: Candidate) -> MeasureResult:
        if Decisions.from_json(candidate.trace_json).unroll >= 64:
            return MeasureFailure(FailureKind.BUILD, "too deep", wall_secs=0.1)
        return even(candidate)

    def even(candidate: Candidate) -> MeasureResult:
        result = gemm_landscape().measure(candidate)
        return result if isinstance(result, MeasureFailure) else type(result)((1e-3,), 0.1, 0.1, True)

    deep = []
    for measure in (breaks, even):
        landscape = gemm_landscape()
        strategy = OptunaSearch(landscape, sampler=sampler, seed=0)
        strategy.tell(measure_all(landscape, landscape.sample(200, seed=5), first_index=0, measure=measure))
        asked = [Decisions.from_json(p.applied.candidate.trace_json) for p in strategy.ask(32)]
        deep.append(sum(one.unroll >= 64 for one in asked))
    assert deep[0] < deep[1]


def test_random_candidates_come_first_then_suggestions_which_have_no_parent() -> None:
    landscape = gemm_landscape()
    trials = run(OptunaSearch(landscape, sampler="tpe", seed=0), landscape, 32)
    origins = [trial.record.candidate.origin for trial in trials]
    assert origins[:16] == [Origin.RANDOM] * 16
    assert set(origins[16:]) == {Origin.SAMPLED}
    assert {trial.record.candidate.parent_key for trial in trials} == {None}


class Picky(TileLandscape):
    """Half of the drafts are illegal."""

    drafted: list[Draft]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        self.drafted = [*getattr(self, "drafted", []), *drafts]
        applied = super().realise(drafts)
        return [
            None if draft.decisions[-1] in (0, 3) else one for draft, one in zip(drafts, applied, strict=True)
        ]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_illegal_points_are_drafted_once(sampler: str) -> None:
    landscape = Picky("picky", (64, 64, 64), n_reduce=1)
    trials = run(OptunaSearch(landscape, sampler=sampler, seed=0), landscape, 64)
    assert len(trials) == 64
    decisions = [draft.decisions for draft in landscape.drafted]
    assert len(set(decisions)) == len(decisions)
    suggested = [t for t in trials if t.record.candidate.origin is Origin.SAMPLED]
    assert len(suggested) >= 24


def test_an_unknown_sampler() -> None:
    with pytest.raises(ConfigError, match="sampler 'gp' is unknown; choose one of: tpe, cmaes, random"):
        OptunaSearch(tiny_landscape(), sampler="gp", seed=0)


def test_optuna_says_nothing_and_keeps_its_settings(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    verbosity = optuna.logging.get_verbosity()
    with caplog.at_level(logging.DEBUG):
        run(OptunaSearch(conv_landscape(), sampler="cmaes", seed=0), conv_landscape(), 32)
    assert optuna.logging.get_verbosity() == verbosity
    assert "".join(capfd.readouterr()) == ""
