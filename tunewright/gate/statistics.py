"""What pairs of timings say: whether head is slower than base, and what could have been seen. Pure.

A pair is one time of each side, taken one after the other in random order; all that counts is the logarithm
of their ratio. Pairs are looked at after fixed numbers of them. Of the error rate, each look may use the
share that the spending function of Lan and DeMets (Biometrika 70, 1983; the one that resembles Pocock's
boundaries) gives to its interval; a p-value divided by its look's share is valid whatever the looks have in
common (Bonferroni with weights), so stopping early needs no correction beyond that. Over kernels the p-values
are adjusted by Holm's method: one false alarm among all kernels fails the whole gate.

Where a process finds its memory decides how fast it is for as long as it lives: kernels were seen whose
processes differ by 4 % and whose pairs, within a process, by less than 1 %. So everything is asked twice, of
the pairs and of the processes' medians (Student's t), and the more doubtful answer counts: repetitions are
worth something at the level where the times vary (Kalibera and Jones, "Rigorous Benchmarking in Reasonable
Time", ISMM 2013).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from scipy.stats import t as student_t

from tunewright.gate.signed_rank import Floats, estimate_and_interval, p_greater

Booleans = npt.NDArray[np.bool_]

DEFAULT_LOOKS = (15, 30, 50, 80)
_POWER = 0.95
_MAX_NEEDED_PAIRS = 100_000


class Verdict(StrEnum):
    """What the gate says of one kernel or model."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"  # on one side only
    ERROR = "error"  # a side cannot be run


@dataclass(frozen=True, slots=True)
class GateRule:
    """When a change counts.

    It must be larger than both `min_effect_ratio` and `noise_floor_ratio` (0.02 is 2 %), and significant:
    `alpha` is the one-sided error rate of a whole run. `looks`: numbers of pairs after which they are looked
    at, all in fresh processes of at most `max_group_pairs` pairs, and at least `min_groups` before the first.
    """

    min_effect_ratio: float = 0.02
    noise_floor_ratio: float = 0.0
    alpha: float = 0.01
    looks: tuple[int, ...] = DEFAULT_LOOKS
    min_groups: int = 5
    max_group_pairs: int = 5

    def __post_init__(self) -> None:
        is_rising = all(low < high for low, high in zip((0, *self.looks), self.looks, strict=False))
        if not self.looks or not is_rising or self.looks[0] < self.min_groups or self.min_groups < 1:
            raise ValueError(f"looks is {self.looks}, expected rising numbers from {self.min_groups}")
        if not 0 < self.alpha < 0.5 or self.min_effect_ratio <= 0 or self.noise_floor_ratio < 0:
            raise ValueError("alpha must lie in (0, 0.5), the effect above 0, the noise floor not below")

    @property
    def threshold_ratio(self) -> float:
        """The change that must be exceeded."""
        return max(self.min_effect_ratio, self.noise_floor_ratio)

    @property
    def look_shares(self) -> tuple[float, ...]:
        """The share of `alpha` that each look may use; they add up to 1."""
        times = np.array((0, *self.looks)) / self.looks[-1]
        return tuple(float(share) for share in np.diff(np.log1p((math.e - 1) * times)))

    def group_sizes(self, look_index: int) -> tuple[int, ...]:
        """Pairs of each fresh group of processes that lead from the look before to this one."""
        known = self.looks[look_index - 1] if look_index else 0
        return split_pairs(
            self.looks[look_index] - known,
            max_size=self.max_group_pairs,
            min_groups=1 if look_index else self.min_groups,
        )


def split_pairs(num_pairs: int, *, max_size: int, min_groups: int) -> tuple[int, ...]:
    """Nearly equal groups, the larger ones first."""
    num_groups = max(min_groups, math.ceil(num_pairs / max_size))
    size, extra = divmod(num_pairs, num_groups)
    return tuple(size + (index < extra) for index in range(num_groups))


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What experiments (n_rows) with as many pairs each show; logarithms of ratios, head over base.

    `center` is the Hodges-Lehmann estimate of the median; `low` and `high` are limits, each wrong with the
    probability that was asked for at most. They and the p-values are the more doubtful ones of pairs and
    groups.
    """

    center: Floats
    low: Floats
    high: Floats
    p_slower: Floats
    p_faster: Floats


def estimate(log_ratios: Floats, group_sizes: Sequence[int], *, tail_probability: float) -> Estimates:
    """Estimate from log ratios (n_rows, n_pairs); the columns of a group follow each other."""
    if sum(group_sizes) != log_ratios.shape[1]:
        raise ValueError(f"groups of {sum(group_sizes)} pairs, but there are {log_ratios.shape[1]}")
    center, low, high = estimate_and_interval(log_ratios, tail_probability)
    groups = np.split(log_ratios, np.cumsum(group_sizes)[:-1], axis=1)
    medians = np.stack([np.median(group, axis=1) for group in groups], axis=1)
    mean, half_width, p_slower, p_faster = _of_groups(medians, tail_probability)
    return Estimates(
        center=center,
        low=np.minimum(low, mean - half_width),
        high=np.maximum(high, mean + half_width),
        p_slower=np.maximum(p_greater(log_ratios), p_slower),
        p_faster=np.maximum(p_greater(-log_ratios), p_faster),
    )


def _of_groups(medians: Floats, tail_probability: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean of groups' medians (n_rows, n_groups), the half width of its interval, p-values of both sides."""
    num_groups = medians.shape[1]
    mean = medians.mean(axis=1)
    if num_groups == 1:
        return mean, np.full(len(mean), np.inf), np.ones(len(mean)), np.ones(len(mean))
    # Medians that are all equal, of a clock with coarse ticks, must not divide by zero.
    error = np.maximum(medians.std(axis=1, ddof=1) / math.sqrt(num_groups), np.finfo(np.float64).tiny)
    half_width = student_t.isf(tail_probability, num_groups - 1) * error
    return mean, half_width, *(student_t.sf(sign * mean / error, num_groups - 1) for sign in (1, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What estimates amount to, (n_rows,) each; where none is true, nothing can be said."""

    is_slower: Booleans
    is_faster: Booleans
    is_same: Booleans


def decide(found: Estimates, p_slower: Floats, p_faster: Floats, rule: GateRule) -> Decisions:
    """Slower: significant, and larger than what counts. Same: the whole interval is smaller.

    Args:
        p_slower, p_faster: (n_rows,), adjusted for looks and kernels.
    """
    threshold = math.log1p(rule.threshold_ratio)
    is_slower = (found.center > threshold) & (p_slower <= rule.alpha)
    is_faster = (found.center < -threshold) & (p_faster <= rule.alpha)
    is_within = (found.low > -threshold) & (found.high < threshold)
    return Decisions(is_slower, is_faster, is_within & ~is_slower & ~is_faster)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in their order (Holm 1979, Scand. Journal of Statistics 6)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Seconds per call of the pairs that were timed by one fresh group of processes, in their order."""

    base_secs: tuple[float, ...]
    head_secs: tuple[float, ...]

    def __post_init__(self) -> None:
        secs = self.base_secs + self.head_secs
        if len(self.base_secs) != len(self.head_secs) or not secs:
            raise ValueError(f"{len(self.base_secs)} times of base, {len(self.head_secs)} of head: no pairs")
        if not all(math.isfinite(one) and one > 0 for one in secs):
            raise ValueError("times must be finite and positive")


@dataclass(frozen=True, slots=True)
class PairedTimes:
    """All pairs of a kernel; those of a second round only where the first one found something."""

    first: tuple[PairGroup, ...]
    second: tuple[PairGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the pairs of one kernel say; ratios are head over base, above 1 where head is slower.

    `ratio` with its limits: of the first round, as precise as its looks allow; `confirm_ratio` that of the
    second. `is_suspect`: the first found something, and there was no second. `p_value`: of the direction that
    it shows, adjusted for looks and kernels. `detectable_ratio`: of
    SAME, the smallest slowdown that would have been found with 95 % power. `needed_pairs`: of INCONCLUSIVE,
    how many pairs it would take, None where no number is known to do.
    """

    verdict: Verdict
    num_pairs: int
    ratio: float
    low_ratio: float
    high_ratio: float
    p_value: float
    confirm_ratio: float | None = None
    is_suspect: bool = False
    detectable_ratio: float | None = None
    needed_pairs: int | None = None
    reason: str = ""


def judge(times: Mapping[str, PairedTimes], rules: Mapping[str, GateRule]) -> dict[str, Judgement]:
    """Judge kernels together, each by its rule. Their first rounds end at one of the rule's looks.

    What the first round found stays INCONCLUSIVE without a second one, which is looked at in the same way and
    needs no correction for the number of kernels: it only takes back.
    """
    looked = {name: _look(pairs.first, rules[name]) for name, pairs in times.items()}
    p_slower = dict(zip(looked, holm([one.p_slower for one in looked.values()]), strict=True))
    p_faster = dict(zip(looked, holm([one.p_faster for one in looked.values()]), strict=True))
    return {
        name: _judgement(
            one, times[name].second, rules[name], p_slower[name], p_faster[name], num_kernels=len(looked)
        )
        for name, one in looked.items()
    }


def alone(groups: Sequence[PairGroup], rule: GateRule) -> Verdict:
    """What one round of one kernel says by itself, with nothing to correct for but its looks."""
    return _alone(_look(groups, rule), rule)


def num_looks(pairs: Sequence[PairGroup], rule: GateRule) -> int:
    """How many looks these pairs are for.

    Raises:
        ValueError: their number is none of the rule's.
    """
    num_pairs = sum(len(group.base_secs) for group in pairs)
    if num_pairs not in rule.looks:
        raise ValueError(f"{num_pairs} pairs, but they are looked at after {rule.looks}")
    return rule.looks.index(num_pairs) + 1


@dataclass(frozen=True, slots=True)
class _Look:
    """The last look at a kernel; p-values are adjusted for looks, `deviation` is that of the centre."""

    index: int
    found: Estimates
    p_slower: float
    p_faster: float
    deviation: float


def sequential_p(p_values: Floats, shares: Sequence[float]) -> Floats:
    """P-values (n_rows,) that hold after as many looks as `p_values` (n_looks, n_rows) are of."""
    weighted = p_values / np.array(shares[: len(p_values)])[:, np.newaxis]
    smallest: Floats = np.minimum(weighted.min(axis=0), 1.0)
    return smallest


def _look(groups: Sequence[PairGroup], rule: GateRule) -> _Look:
    last = num_looks(groups, rule) - 1
    tail = rule.alpha * rule.look_shares[last]
    looks = [
        estimate(log_ratios(known)[np.newaxis], [len(one.base_secs) for one in known], tail_probability=tail)
        for known in (_first_pairs(groups, num_pairs) for num_pairs in rule.looks[: last + 1])
    ]
    p_slower = sequential_p(np.array([one.p_slower for one in looks]), rule.look_shares)
    p_faster = sequential_p(np.array([one.p_faster for one in looks]), rule.look_shares)
    found = looks[-1]
    deviation = float(found.high[0] - found.low[0]) / 2 / float(norm.isf(tail))
    return _Look(last, found, float(p_slower[0]), float(p_faster[0]), deviation)


def _first_pairs(groups: Sequence[PairGroup], num_pairs: int) -> list[PairGroup]:
    """The groups that hold the first pairs; the last one may be cut."""
    found: list[PairGroup] = []
    for group in groups:
        if left := num_pairs - sum(len(one.base_secs) for one in found):
            found.append(PairGroup(group.base_secs[:left], group.head_secs[:left]))
    return found


def log_ratios(groups: Sequence[PairGroup]) -> Floats:
    """Logarithms of head over base, (n_pairs,)."""
    head = np.array([secs for group in groups for secs in group.head_secs])
    base = np.array([secs for group in groups for secs in group.base_secs])
    logs: Floats = np.log(head / base)
    return logs


def _judgement(
    look: _Look,
    second: Sequence[PairGroup],
    rule: GateRule,
    p_slower: float,
    p_faster: float,
    *,
    num_kernels: int,
) -> Judgement:
    found = look.found
    center = float(found.center[0])
    decided = decide(found, np.array([p_slower]), np.array([p_faster]), rule)
    verdict, confirm_ratio, reason = Verdict.INCONCLUSIVE, None, ""
    if decided.is_same[0]:
        verdict = Verdict.SAME
    elif decided.is_slower[0] or decided.is_faster[0]:
        suspected = Verdict.REGRESSED if decided.is_slower[0] else Verdict.IMPROVED
        reason = f"{suspected} in the first round, and there was no second one"
        if second:
            again = _look(second, rule)
            confirm_ratio = math.exp(float(again.found.center[0]))
            is_confirmed = _alone(again, rule) is suspected
            verdict = suspected if is_confirmed else Verdict.INCONCLUSIVE
            reason = "" if is_confirmed else f"{suspected} in the first round, but not in the second"
    elif look.index + 1 < len(rule.looks):
        reason = "measuring ended early"
    else:
        reason = "too noisy for the number of pairs"
    is_suspect = bool(decided.is_slower[0] or decided.is_faster[0]) and not second
    is_open = verdict is Verdict.INCONCLUSIVE and confirm_ratio is None and not is_suspect
    return Judgement(
        verdict=verdict,
        num_pairs=rule.looks[look.index],
        ratio=math.exp(center),
        low_ratio=math.exp(float(found.low[0])),
        high_ratio=math.exp(float(found.high[0])),
        p_value=p_slower if center > 0 else p_faster,
        confirm_ratio=confirm_ratio,
        is_suspect=is_suspect,
        detectable_ratio=_detectable(look, rule, num_kernels) if verdict is Verdict.SAME else None,
        needed_pairs=_needed_pairs(look, rule, num_kernels) if is_open else None,
        reason=reason,
    )


def _alone(look: _Look, rule: GateRule) -> Verdict:
    decided = decide(look.found, np.array([look.p_slower]), np.array([look.p_faster]), rule)
    if decided.is_same[0]:
        return Verdict.SAME
    if decided.is_slower[0]:
        return Verdict.REGRESSED
    return Verdict.IMPROVED if decided.is_faster[0] else Verdict.INCONCLUSIVE


def _detectable(look: _Look, rule: GateRule, num_kernels: int) -> float:
    """The slowdown, as a ratio above 1, that both rounds find with 95 % power at this look's precision."""
    quantile = float(norm.ppf(math.sqrt(_POWER)))
    tail = rule.alpha * rule.look_shares[look.index] / num_kernels
    is_large = math.log1p(rule.threshold_ratio) + quantile * look.deviation
    is_significant = (float(norm.isf(tail)) + quantile) * look.deviation
    return math.exp(max(is_large, is_significant))


def _needed_pairs(look: _Look, rule: GateRule, num_kernels: int) -> int | None:
    """Pairs after which the same centre with the same noise would be a verdict."""
    num_pairs = rule.looks[look.index]
    center, threshold = abs(float(look.found.center[0])), math.log1p(rule.threshold_ratio)
    tail = rule.alpha * rule.look_shares[-1]
    deviation_of_one = look.deviation * math.sqrt(num_pairs)
    if center < threshold:
        needed = (float(norm.isf(tail)) * deviation_of_one / (threshold - center)) ** 2
    else:
        needed = (float(norm.isf(tail / num_kernels)) * deviation_of_one / center) ** 2
    if not num_pairs < needed < _MAX_NEEDED_PAIRS:
        return None
    return math.ceil(needed)
