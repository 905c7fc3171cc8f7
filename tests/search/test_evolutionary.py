import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.search.landscapes import TileLandscape, conv_landscape, gemm_landscape, measure_all
from tests.search.nests import NestSpace, ssrsrs
from tests.search.test_strategy import fitted_model
from tests.search.test_transfer import seed_of
from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    Draft,
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    Origin,
    RecordedTrial,
)
from tunewright.cost_model.draft_model import DraftTrees
from tunewright.scheduler.tuning import OnlineModel
from tunewright.search import (
    EvolutionaryConfig,
    EvolutionarySearch,
    Hardware,
    Proposal,
    RandomSearch,
    SearchStrategy,
)
from tunewright.search.decisions import DecisionSpace, distance

PRODUCT = ssrsrs([[512, 1, 1, 1], [512, 1, 1, 1]], [[512, 1]])
PRODUCT_ATTACHED = ssrsrs([[512, 1, 1, 1], [512, 1, 1, 1]], [[512, 1]], attach=1)
SLOW = MeasureSuccess((1.0,), build_secs=0.1, wall_secs=1.0, is_verified=True)


def best_secs(trials: list[RecordedTrial]) -> float:
    return min(trial.record.best_secs or float("inf") for trial in trials)


def run_session(
    landscape: TileLandscape, strategy: SearchStrategy, model: OnlineModel | None, n_trials: int
) -> list[RecordedTrial]:
    trials: list[RecordedTrial] = []
    while len(trials) < n_trials:
        batch = measure_all(landscape, [p.applied for p in strategy.ask(16)], first_index=len(trials))
        strategy.tell(batch)
        trials += batch
        if model is not None:
            model.fit_trials(trials)
    return trials


@pytest.mark.slow
@pytest.mark.parametrize("learns_features", [True, False], ids=["both models", "draft model alone"])
@pytest.mark.parametrize(
    # Measured with three other sets of ten seeds: medians 0.76-0.90 and 0.46-0.58, 8 to 10 wins of 10.
    ("make_landscape", "max_ratio"),
    [(gemm_landscape, 0.93), (conv_landscape, 0.8)],
)
def test_beats_random_at_equal_trials(
    make_landscape: Callable[[], TileLandscape], max_ratio: float, learns_features: bool
) -> None:
    random_best, evolved_best = [], []
    for seed in range(10):
        landscape, model = make_landscape(), OnlineModel(seed=seed)
        evolved = EvolutionarySearch(landscape, model, DraftTrees(seed=seed), seed=seed)
        trials = run_session(landscape, evolved, model if learns_features else None, 64)
        evolved_best.append(best_secs(trials))
        baseline = RandomSearch(landscape, seed=seed)
        batch = measure_all(landscape, [p.applied for p in baseline.ask(64)], first_index=0)
        random_best.append(best_secs(batch))

    assert statistics.median(evolved_best) < max_ratio * statistics.median(random_best)
    assert sum(e < r for e, r in zip(evolved_best, random_best, strict=True)) >= 8


def unfitted() -> OnlineModel:
    return OnlineModel(seed=0)


def told_strategy(
    landscape: TileLandscape, config: EvolutionaryConfig | None = None, *, n_told: int = 48
) -> EvolutionarySearch:
    strategy = EvolutionarySearch(
        landscape, fitted_model(landscape), DraftTrees(seed=1), seed=1, config=config
    )
    strategy.tell(measure_all(landscape, landscape.sample(n_told, seed=12345), first_index=0))
    return strategy


def measured_secs(landscape: TileLandscape, batch: list[Proposal]) -> list[float]:
    results = [landscape.measure(proposal.applied.candidate) for proposal in batch]
    return [result.median_secs for result in results if isinstance(result, MeasureSuccess)]


def failing_share(landscape: TileLandscape, told: list[RecordedTrial]) -> float:
    """Share of failures among 64 proposals after `told`, by the draft model alone."""
    strategy = EvolutionarySearch(landscape, unfitted(), DraftTrees(seed=1), seed=1)
    strategy.tell(told)
    results = [landscape.measure(p.applied.candidate) for _ in range(2) for p in strategy.ask(32)]
    return sum(isinstance(result, MeasureFailure) for result in results) / len(results)


def test_failures_teach_it_what_to_avoid() -> None:
    landscape = conv_landscape()
    shares = []
    for seed in range(4):
        told = measure_all(landscape, landscape.sample(96, seed=seed), first_index=0)
        successes = [trial for trial in told if isinstance(trial.record.result, MeasureSuccess)]
        assert len(successes) < len(told)
        shares.append((failing_share(landscape, told), failing_share(landscape, successes)))
    with_failures, without = (statistics.mean(side) for side in zip(*shares, strict=True))

    assert with_failures < 0.6 * without


def test_one_batch_of_trials_is_enough_to_draft_without_the_cost_model() -> None:
    landscape = gemm_landscape()
    strategy = EvolutionarySearch(landscape, unfitted(), DraftTrees(seed=0), seed=0)
    first = strategy.ask(16)
    assert {p.applied.candidate.origin for p in first} == {Origin.RANDOM}
    strategy.tell(measure_all(landscape, [p.applied for p in first], first_index=0))
    second = strategy.ask(16)
    origins = Counter(p.applied.candidate.origin for p in second)
    assert origins[Origin.MUTATION] + origins[Origin.CROSSOVER] >= 8
    assert {p.score for p in second} == {None}
    assert statistics.median(measured_secs(landscape, second)) < statistics.median(
        measured_secs(landscape, first)
    )


def test_without_trials_the_cost_model_of_other_tasks_chooses() -> None:
    landscape = gemm_landscape()
    guided = EvolutionarySearch(landscape, fitted_model(landscape), DraftTrees(seed=0), seed=0).ask(16)
    assert {p.applied.candidate.origin for p in guided} == {Origin.RANDOM}
    scores = [p.score for p in guided if p.score is not None]
    assert len(scores) == 12  # the others are random
    unguided = EvolutionarySearch(landscape, unfitted(), DraftTrees(seed=0), seed=0).ask(16)
    favourites = [p for p in guided if p.score is not None]
    assert statistics.median(measured_secs(landscape, favourites)) < 0.7 * statistics.median(
        measured_secs(landscape, unguided)
    )


def test_applies_no_more_than_it_may() -> None:
    landscape = gemm_landscape()
    strategy = told_strategy(landscape, EvolutionaryConfig(applied_per_trial=2.0))
    strategy.ask(1)  # applies examples of the sketches too
    before = landscape.num_applied
    assert len(strategy.ask(16)) == 16
    assert landscape.num_applied - before <= 2 * 16


def test_what_was_applied_in_vain_waits_for_later_batches() -> None:
    landscape = gemm_landscape()
    strategy = told_strategy(landscape, EvolutionaryConfig(random_share=0.0, applied_per_trial=2.0))
    applied_earlier: set[str] = set()
    num_waited = 0
    for index in range(6):
        batch = strategy.ask(8)
        num_waited += sum(p.applied.candidate.key in applied_earlier for p in batch)
        applied_earlier |= {applied.candidate.key for applied in landscape.applied}
        strategy.tell(measure_all(landscape, [p.applied for p in batch], first_index=100 + 8 * index))
    assert num_waited > 0


def test_a_batch_is_not_one_family() -> None:
    strategy = told_strategy(gemm_landscape(), EvolutionaryConfig(random_share=0.0, max_sibling_share=0.25))
    batch = strategy.ask(16)
    parents = Counter(p.applied.candidate.parent_key for p in batch if p.applied.candidate.parent_key)
    assert max(parents.values()) <= 4
    assert len({p.applied.features.tobytes() for p in batch}) == 16


class StrictLandscape(TileLandscape):
    """Only every third point is legal; whether it is shows when it is applied."""

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        return [
            applied if applied and int(applied.program_key, 16) % 3 == 0 else None
            for applied in super().realise(drafts)
        ]


def test_a_batch_is_filled_with_drafts_rather_than_with_random_points() -> None:
    """Of a small space's drafts most differ in one decision only, and many are illegal."""
    landscape = StrictLandscape("strict", (64, 64, 64), n_reduce=1, n_levels=3)
    strategy = told_strategy(landscape, EvolutionaryConfig(random_share=0.0))
    batch = strategy.ask(64)
    assert len(batch) == 64
    assert all(proposal.score is not None for proposal in batch)


def test_the_random_share_ignores_the_models() -> None:
    landscape = gemm_landscape()
    greedy = told_strategy(landscape, EvolutionaryConfig(random_share=0.0)).ask(16)
    lottery = told_strategy(landscape, EvolutionaryConfig(random_share=1.0)).ask(16)
    assert {p.applied.candidate.origin for p in lottery} == {Origin.RANDOM}
    assert all(p.applied.candidate.parent_key is None for p in lottery)
    scores = [statistics.mean(p.score or 0.0 for p in batch) for batch in (lottery, greedy)]
    assert scores[0] < 0.6 * scores[1]


def test_pruned_trials_count_as_slow_and_lost_workers_as_nothing() -> None:
    """The draft model learns the same of a pruned trial as of one timed in full, of a lost worker nothing."""
    landscape = gemm_landscape()
    trials = measure_all(landscape, landscape.sample(32, seed=3), first_index=0)
    limit = statistics.median(trial.record.best_secs for trial in trials if trial.record.best_secs)
    as_pruned, as_lost = (
        [_failed(trial, kind) if (trial.record.best_secs or 0) > limit else trial for trial in trials]
        for kind in (FailureKind.PRUNED, FailureKind.WORKER_LOST)
    )
    labels = []
    for told in (trials, as_pruned, as_lost):
        draft_model = SpyTrees(seed=0)
        strategy = EvolutionarySearch(landscape, unfitted(), draft_model, seed=0)
        strategy.tell(told)
        strategy.ask(4)
        labels.append(draft_model.labels)
    np.testing.assert_array_equal(labels[0], labels[1])
    slow = [trial for trial in trials if (trial.record.best_secs or 0.0) > limit]
    assert len(labels[2]) == len(trials) - len(slow) < len(labels[0])


class SpyTrees(DraftTrees):
    labels = np.empty(0, dtype=np.float32)

    def fit(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        self.labels = labels
        super().fit(vectors, labels)


def _failed(trial: RecordedTrial, kind: FailureKind) -> RecordedTrial:
    secs = trial.record.best_secs
    run_secs = (secs,) if kind is FailureKind.PRUNED and secs else ()
    result = MeasureFailure(kind, "slow", 0.1, run_secs=run_secs)
    return dataclasses.replace(trial, record=dataclasses.replace(trial.record, result=result))


def test_candidates_that_are_no_points_are_still_never_proposed_again() -> None:
    """A trace of an unknown form cannot be a parent; it counts as told all the same."""
    landscape = gemm_landscape()
    (trial, *others) = measure_all(landscape, landscape.sample(20, seed=3), first_index=0)
    foreign = dataclasses.replace(trial.record.candidate, trace_json="[[],{}]")
    record = dataclasses.replace(trial.record, candidate=foreign)
    strategy = EvolutionarySearch(landscape, unfitted(), DraftTrees(seed=0), seed=0)
    strategy.tell([dataclasses.replace(trial, record=record), *others])
    assert len(strategy.ask(16)) == 16


def test_the_first_batch_suits_the_hardware() -> None:
    space = NestSpace("product", [PRODUCT, PRODUCT_ATTACHED])
    hardware = Hardware(num_threads=4, vector_lanes=16)
    expected = []
    for opening_drafts in (2048, 0):
        config = EvolutionaryConfig(opening_drafts=opening_drafts)
        strategy = EvolutionarySearch(
            space, unfitted(), DraftTrees(seed=0), seed=0, hardware=hardware, config=config
        )
        batch = strategy.ask(16)
        decisions = DecisionSpace(hardware)
        points = [decisions.learn(p.applied.candidate.trace_json) for p in batch]
        expected.append(decisions.guesses([point for point in points if point]))
        assert len({point.sketch for point in points if point}) == 2
    suited, at_random = expected
    assert len(suited) == len(at_random) == 16
    assert np.median(suited) > -0.1  # of all that the guess can lose, in doublings
    assert np.median(at_random) < -1.0
    assert suited.min() < -1.0  # some are random all the same


def test_the_first_batch_takes_what_was_best_for_other_tasks() -> None:
    seeds = [
        seed_of(ssrsrs([[4, 8, 2, 4], [2, 2, 4, 16]], [[32, step]], unroll=2), step * 1e-3)
        for step in (4, 2, 8, 16)
    ]
    space = NestSpace("product", [PRODUCT, PRODUCT_ATTACHED])
    origins, first = [], []
    for transfer_share in (0.25, 0.0):
        config = EvolutionaryConfig(transfer_share=transfer_share)
        strategy = EvolutionarySearch(
            space, unfitted(), DraftTrees(seed=0), seed=0, seeds=seeds, config=config
        )
        batch = strategy.ask(16)
        origins.append(Counter(p.applied.candidate.origin for p in batch))
        first.append(space.point(batch[0].applied.candidate.trace_json).decisions)
    assert origins == [{Origin.TRANSFER: 4, Origin.RANDOM: 12}, {Origin.RANDOM: 16}]
    assert first[0][:2] == ((8, 8, 2, 4), (4, 2, 4, 16))  # twice the extents: inner factors stay


def test_what_seems_half_as_fast_is_not_taken_over() -> None:
    """Vectors of one number were best for the other task; here one can expect better."""
    narrow, wide = ([[4, 8, 2, 4], [2, 32, 4, 1]], [[4, 8, 2, 4], [2, 2, 4, 16]])
    taken = []
    for tiles in (narrow, wide):
        strategy = EvolutionarySearch(
            NestSpace("product", [PRODUCT, PRODUCT_ATTACHED]),
            unfitted(),
            DraftTrees(seed=0),
            seed=0,
            seeds=[seed_of(ssrsrs(tiles, [[32, 4]], unroll=2), 1e-3)],
            hardware=Hardware(num_threads=4, vector_lanes=16),
        )
        origins = [proposal.applied.candidate.origin for proposal in strategy.ask(16)]
        taken.append(origins.count(Origin.TRANSFER))
    assert taken == [0, 1]


def test_a_task_that_gains_nothing_takes_single_steps_from_its_best() -> None:
    landscape = gemm_landscape()
    strategy = told_strategy(landscape, EvolutionaryConfig(descent_patience=16, random_share=0.0))
    told = measure_all(landscape, landscape.sample(48, seed=12345), first_index=0)
    slow = [
        dataclasses.replace(trial, record=dataclasses.replace(trial.record, result=SLOW))
        for trial in measure_all(landscape, landscape.sample(20, seed=99), first_index=48)
    ]
    strategy.tell(slow)
    batch = strategy.ask(16)
    steps = [p for p in batch if p.applied.candidate.origin is Origin.DESCENT]
    assert len(steps) >= 4
    ranked = sorted(told, key=lambda trial: trial.record.best_secs or math.inf)
    decisions = DecisionSpace()
    summits = [decisions.learn(trial.record.candidate.trace_json) for trial in ranked[:2]]
    for step in steps:
        point = decisions.learn(step.applied.candidate.trace_json)
        assert point and min(distance(point, summit) for summit in summits if summit) == 1


def test_of_equally_fast_candidates_it_prefers_what_builds_quickly() -> None:
    """Full unrolling costs 8 s of building and gains nothing."""
    shares = []
    for build_model in (DraftTrees(seed=1), None):
        space = NestSpace("builds", [PRODUCT])
        strategy = EvolutionarySearch(space, unfitted(), DraftTrees(seed=1), build_model, seed=1)
        told = measure_all(gemm_landscape(), space.sample(64, seed=3), first_index=0, measure=_slow_to_build)
        strategy.tell(told)
        points = [space.point(p.applied.candidate.trace_json) for p in strategy.ask(32)]
        shares.append(sum(point.decisions[-1] == 3 for point in points) / len(points))
    with_model, without = shares
    assert with_model <= 0.1 < without


def test_a_batch_is_never_larger_than_asked() -> None:
    config = EvolutionaryConfig(random_share=1.0, descent_share=1.0, descent_patience=0)
    assert len(told_strategy(gemm_landscape(), config).ask(8)) == 8


def _slow_to_build(candidate: Candidate) -> MeasureSuccess:
    *_, unroll = [value for _, value in json.loads(candidate.trace_json)[1]]
    return MeasureSuccess((1e-3,), build_secs=8.0 if unroll == 3 else 0.2, wall_secs=1.0, is_verified=True)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="applied_per_trial is 0"):
        EvolutionaryConfig(applied_per_trial=0.5)
    with pytest.raises(ValueError, match="random_share is 5"):
        EvolutionaryConfig(random_share=5)


class Repairing:
    """A space that turns whatever is drafted into one of the few programs that it samples, as TVM moves a
    block to the nearest legal loop."""

    def __init__(self, landscape: TileLandscape) -> None:
        self._programs = landscape.sample(24, seed=5)

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        return [self._programs[(seed + i) % len(self._programs)] for i in range(n)]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        return [self._programs[i % 3] for i, _ in enumerate(drafts)]


def test_a_draft_that_becomes_a_known_program_is_not_proposed_twice() -> None:
    landscape = gemm_landscape()
    space = Repairing(landscape)
    strategy = EvolutionarySearch(space, OnlineModel(seed=1), DraftTrees(seed=1), seed=1)
    keys: list[str] = []
    for _ in range(3):
        batch = strategy.ask(8)
        keys += [proposal.applied.candidate.key for proposal in batch]
        strategy.tell(measure_all(landscape, [p.applied for p in batch], first_index=len(keys)))
    assert len(keys) == len(set(keys)) >= 16
