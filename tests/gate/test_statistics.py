"""The rule's error rates on made-up times, and what it says of single kernels."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from tests.gate.simulation import (
    FASTER,
    OPEN,
    SAME,
    SLOWER,
    Noise,
    heavy_tails,
    normal,
    odd_processes,
    outcomes,
    own_speeds,
)
from tunewright.gate.statistics import (
    GateRule,
    Judgement,
    PairedTimes,
    PairGroup,
    Verdict,
    holm,
    judge,
    split_pairs,
)

RULE = GateRule()
QUIET_CV = 0.02


def groups(sizes: tuple[int, ...], *, effect: float, cv: float, seed: int) -> tuple[PairGroup, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        PairGroup(
            tuple(0.01 * np.exp(rng.normal(0, cv, size))),
            tuple(0.01 * (1 + effect) * np.exp(rng.normal(0, cv, size))),
        )
        for size in sizes
    )


def first(*, num_looks: int = 1, effect: float = 0.0, cv: float = 0.01, seed: int = 0) -> PairedTimes:
    sizes = sum((RULE.group_sizes(look) for look in range(num_looks)), ())
    return PairedTimes(groups(sizes, effect=effect, cv=cv, seed=seed))


def judge_one(pairs: PairedTimes, rule: GateRule = RULE) -> Judgement:
    return judge({"k": pairs}, {"k": rule})["k"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [normal(QUIET_CV), heavy_tails(QUIET_CV), odd_processes(QUIET_CV), own_speeds(QUIET_CV / 2)],
    ids=["normal", "tails", "odd", "own"],
)
def test_the_same_program_twice_is_hardly_ever_slower(noise: Noise) -> None:
    """20,000 experiments in all; at most 4 of 1,000 alarms, whatever the noise."""
    verdicts, _ = outcomes(noise, effect=0.0, rule=RULE, num_rows=5000, seed=1)
    assert np.mean(verdicts == SLOWER) <= 0.004
    assert np.mean(verdicts == FASTER) <= 0.004


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "least"), [(0.05, 0.95), (0.10, 1.0)])
@pytest.mark.parametrize("num_kernels", [1, 20])
def test_slowdowns_are_found_on_a_quiet_machine(effect: float, least: float, num_kernels: int) -> None:
    verdicts, pairs = outcomes(
        normal(QUIET_CV), effect=effect, rule=RULE, num_rows=2000, seed=2, num_kernels=num_kernels
    )
    assert np.mean(verdicts == SLOWER) >= least
    assert pairs.mean() < 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [normal(2 * QUIET_CV), heavy_tails(2 * QUIET_CV), odd_processes(2 * QUIET_CV)],
    ids=["normal", "tails", "odd"],
)
def test_twice_the_noise_is_inconclusive_and_hardly_ever_wrong(noise: Noise) -> None:
    """27,000 experiments in all, with a threshold of 2 %: of each kind, at most 1 of 100 is wrong."""
    alike, _ = outcomes(noise, effect=0.0, rule=RULE, num_rows=2000, seed=3)
    assert np.mean((alike == SLOWER) | (alike == FASTER)) <= 0.01
    assert np.mean(alike == OPEN) > 0.5
    # What is just as large as the threshold, and a little larger, must not pass as the same.
    for effect in (0.02, 0.021, 0.03, 0.05, -0.03):
        changed, _ = outcomes(noise, effect=effect, rule=RULE, num_rows=1000, seed=4)
        assert np.mean(changed == SAME) <= 0.01
        assert np.mean(changed == (FASTER if effect > 0 else SLOWER)) <= 0.01
    for effect in (0.01, -0.01):
        small, _ = outcomes(noise, effect=effect, rule=RULE, num_rows=1000, seed=5)
        assert np.mean(small == (FASTER if effect > 0 else SLOWER)) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("noise", [normal(2 * QUIET_CV), heavy_tails(2 * QUIET_CV)], ids=["normal", "tails"])
def test_half_of_what_counts_is_hardly_ever_a_regression(noise: Noise) -> None:
    verdicts, _ = outcomes(noise, effect=0.01, rule=RULE, num_rows=2000, seed=6)
    assert np.mean(verdicts == SLOWER) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("cv", [0.005, 0.01, 0.02])
def test_what_a_green_result_could_have_seen_is_found(cv: float) -> None:
    """The promise of the green results of many experiments, kept by as many with such a slowdown."""
    promised = [
        judged.detectable_ratio
        for seed in range(60)
        for looks in (1, 2, 3, 4)
        if (judged := judge_one(first(num_looks=looks, cv=cv, seed=seed))).verdict is Verdict.SAME
    ]
    smallest = float(np.median([ratio for ratio in promised if ratio is not None]))
    assert 1.02 < smallest < 1.06
    verdicts, _ = outcomes(normal(cv), effect=smallest - 1, rule=RULE, num_rows=2000, seed=5)
    assert np.mean(verdicts == SLOWER) >= 0.95


def test_clear_cases() -> None:
    slower = first(effect=0.10)
    confirmed = PairedTimes(slower.first, groups(RULE.group_sizes(0), effect=0.1, cv=0.01, seed=1))
    judged = judge_one(confirmed)
    assert judged.verdict is Verdict.REGRESSED and judged.num_pairs == 15
    assert judged.low_ratio < 1.10 < judged.high_ratio and judged.p_value < 0.001
    assert judged.confirm_ratio == pytest.approx(1.10, abs=0.01)

    alone = judge_one(slower)
    assert alone.verdict is Verdict.INCONCLUSIVE and "no second one" in alone.reason
    refuted = PairedTimes(slower.first, groups(RULE.group_sizes(0), effect=0.0, cv=0.01, seed=1))
    assert judge_one(refuted).verdict is Verdict.INCONCLUSIVE
    assert "not in the second" in judge_one(refuted).reason

    faster = PairedTimes(first(effect=-0.10).first, groups(RULE.group_sizes(0), effect=-0.1, cv=0.01, seed=1))
    assert judge_one(faster).verdict is Verdict.IMPROVED
    same = judge_one(first(cv=0.003))
    assert same.verdict is Verdict.SAME and same.detectable_ratio is not None
    assert 1.02 < same.detectable_ratio < 1.03 and same.needed_pairs is None


def test_a_significant_change_that_is_too_small_does_not_count() -> None:
    small = judge_one(first(num_looks=2, effect=0.01, cv=0.002))
    assert small.p_value < 0.001 and small.verdict is Verdict.SAME
    strict = judge_one(first(num_looks=2, effect=0.01, cv=0.002), replace(RULE, min_effect_ratio=0.005))
    assert "regressed in the first round" in strict.reason
    floor = replace(RULE, min_effect_ratio=0.005, noise_floor_ratio=0.03)
    assert judge_one(first(num_looks=2, effect=0.01, cv=0.002), floor).verdict is Verdict.SAME


def test_one_odd_process_of_three_is_no_regression() -> None:
    """All pairs together would say so."""
    odd = groups((5,), effect=0.30, cv=0.002, seed=0)
    usual = groups((5, 5), effect=0.012, cv=0.002, seed=1)
    judged = judge_one(PairedTimes(odd + usual))
    assert judged.ratio > 1.02 and judged.low_ratio < 1
    assert judged.verdict is Verdict.INCONCLUSIVE and "regressed" not in judged.reason


@pytest.mark.slow
def test_an_inconclusive_result_says_how_many_pairs_it_takes() -> None:
    noisy = judge_one(first(num_looks=4, cv=0.045, seed=3))
    assert noisy.verdict is Verdict.INCONCLUSIVE and noisy.needed_pairs is not None
    assert noisy.needed_pairs > 80
    # With so many, the same noise allows a verdict.
    rule = replace(RULE, looks=(*RULE.looks, noisy.needed_pairs))
    verdicts, _ = outcomes(normal(0.045), effect=0.0, rule=rule, num_rows=100, seed=6)
    assert np.mean(verdicts == SAME) > 0.3


def test_more_kernels_need_more_evidence() -> None:
    weak = first(effect=0.03, cv=0.02, seed=8)
    alone = judge_one(weak)
    others = {str(number): first(cv=0.02, seed=number) for number in range(50)}
    together = judge({"k": weak, **others}, dict.fromkeys(["k", *others], RULE))["k"]
    assert "regressed in the first round" in alone.reason
    assert together.p_value > RULE.alpha > alone.p_value
    assert together.verdict is Verdict.INCONCLUSIVE


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, one in zip(p_values, adjusted, strict=True):
        assert raw <= one <= min(1.0, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)
    # It controls more than the rate of false discoveries does.
    assert all(a >= b - 1e-12 for a, b in zip(adjusted, false_discovery_control(p_values), strict=True))


@given(
    st.lists(st.integers(5, 60), min_size=1, max_size=6, unique=True).map(sorted),
    st.integers(1, 12),
)
def test_looks_share_the_error_rate_and_groups_the_pairs(looks: list[int], max_pairs: int) -> None:
    rule = GateRule(looks=tuple(looks), max_group_pairs=max_pairs)
    assert sum(rule.look_shares) == pytest.approx(1) and min(rule.look_shares) > 0
    assert len(rule.group_sizes(0)) >= 5
    total = 0
    for index, look in enumerate(looks):
        sizes = rule.group_sizes(index)
        total += sum(sizes)
        assert total == look and max(sizes) <= max_pairs and min(sizes) >= 1


def test_groups_are_nearly_equal() -> None:
    assert split_pairs(15, max_size=10, min_groups=3) == (5, 5, 5)
    assert split_pairs(15, max_size=10, min_groups=1) == (8, 7)


@given(st.floats(0.1, 10), st.integers(0, 30))
def test_units_of_time_and_swapped_sides_change_nothing(scale: float, seed: int) -> None:
    pairs = first(effect=0.03, cv=0.02, seed=seed)
    scaled = PairedTimes(
        tuple(
            PairGroup(
                tuple(scale * secs for secs in group.base_secs),
                tuple(scale * secs for secs in group.head_secs),
            )
            for group in pairs.first
        )
    )
    judged, again = judge_one(pairs), judge_one(scaled)
    assert judged.verdict is again.verdict and judged.ratio == pytest.approx(again.ratio)
    swapped = judge_one(PairedTimes(tuple(PairGroup(g.head_secs, g.base_secs) for g in pairs.first)))
    assert swapped.ratio == pytest.approx(1 / judged.ratio)
    assert math.log(swapped.low_ratio) == pytest.approx(-math.log(judged.high_ratio))
    assert swapped.p_value == pytest.approx(judged.p_value)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        PairGroup((1.0,), ())
    with pytest.raises(ValueError, match="finite"):
        PairGroup((1.0,), (0.0,))
    with pytest.raises(ValueError, match="looked at after"):
        judge_one(PairedTimes((PairGroup((1.0,), (1.0,)),)))
    with pytest.raises(ValueError, match="rising"):
        GateRule(looks=(15, 15))
    with pytest.raises(ValueError, match="alpha"):
        GateRule(alpha=0.7)
