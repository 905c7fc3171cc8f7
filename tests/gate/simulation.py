"""The whole protocol of the gate on made-up times, many experiments at once.

python -m tests.gate.simulation     the table of docs/gate.md, some minutes
"""

from collections.abc import Callable

import numpy as np

from tunewright.gate.signed_rank import Floats
from tunewright.gate.statistics import Decisions, GateRule, decide, estimate, sequential_p

# Log times (n_rows, n_pairs, 2) of base and head without any effect; the last argument: sizes of groups.
Noise = Callable[[np.random.Generator, int, tuple[int, ...]], Floats]

SLOWER, FASTER, SAME, OPEN = 1, 2, 3, 0


def normal(cv: float) -> Noise:
    """What a quiet machine does, with a walk of the machine's speed that both sides share."""

    def draw(rng: np.random.Generator, num_rows: int, sizes: tuple[int, ...]) -> Floats:
        num_pairs = sum(sizes)
        speed = rng.normal(0, 0.03, (num_rows, num_pairs, 1)).cumsum(axis=1)
        # The second of a pair runs at another point of the walk, and either side may be the second.
        step = rng.normal(0, 0.2 * cv, (num_rows, num_pairs))
        noise = rng.normal(0, cv, (num_rows, num_pairs, 2)) + speed
        noise[np.arange(num_rows)[:, None], np.arange(num_pairs), rng.integers(0, 2, step.shape)] += step
        return noise

    return draw


def heavy_tails(cv: float) -> Noise:
    """One time in ten is disturbed, by 20 % on average; disturbances only add time."""

    def draw(rng: np.random.Generator, num_rows: int, sizes: tuple[int, ...]) -> Floats:
        noise = normal(cv)(rng, num_rows, sizes)
        return noise + rng.exponential(0.2, noise.shape) * (rng.random(noise.shape) < 0.1)

    return draw


def odd_processes(cv: float, *, share: float = 0.1, slowdown: float = 0.08) -> Noise:
    """One process in ten is slow as long as it lives, and every process has a speed of its own."""

    def draw(rng: np.random.Generator, num_rows: int, sizes: tuple[int, ...]) -> Floats:
        shape = (num_rows, len(sizes), 2)
        own = rng.normal(0, 0.005, shape) + slowdown * (rng.random(shape) < share)
        return normal(cv)(rng, num_rows, sizes) + np.repeat(own, sizes, axis=1)

    return draw


def own_speeds(cv: float, *, spread: float = 0.03) -> Noise:
    """Every process has a speed of its own, by more than its pairs differ."""

    def draw(rng: np.random.Generator, num_rows: int, sizes: tuple[int, ...]) -> Floats:
        own = rng.normal(0, spread, (num_rows, len(sizes), 2))
        return normal(cv)(rng, num_rows, sizes) + np.repeat(own, sizes, axis=1)

    return draw


def outcomes(
    noise: Noise, *, effect: float, rule: GateRule, num_rows: int, seed: int, num_kernels: int = 1
) -> tuple[Floats, Floats]:
    """Verdicts (n_rows,) of two rounds, and pairs of the first; head takes 1 + `effect` times as long.

    `num_kernels`: the first round's p-values are multiplied by it, as Holm's method does with the smallest.
    """
    rng = np.random.default_rng(seed)
    verdicts, num_pairs = _round(noise, rng, num_rows, effect, rule, num_kernels)
    suspects = np.flatnonzero((verdicts == SLOWER) | (verdicts == FASTER))
    if suspects.size:
        again, _ = _round(noise, rng, suspects.size, effect, rule, 1)
        verdicts[suspects] = np.where(again == verdicts[suspects], again, OPEN)
    return verdicts, num_pairs


def _round(
    noise: Noise, rng: np.random.Generator, num_rows: int, effect: float, rule: GateRule, num_kernels: int
) -> tuple[Floats, Floats]:
    verdicts, num_pairs = np.zeros(num_rows), np.zeros(num_rows)
    rows = np.arange(num_rows)  # those that are still open
    sizes: tuple[int, ...] = ()
    logs = np.empty((num_rows, 0))
    p_values = np.empty((2, 0, num_rows))
    for look, share in enumerate(rule.look_shares):
        new = rule.group_sizes(look)
        sizes += new
        times = noise(rng, rows.size, new)
        logs = np.concatenate([logs, times[:, :, 1] - times[:, :, 0] + np.log1p(effect)], axis=1)
        found = estimate(logs, sizes, tail_probability=rule.alpha * share)
        p_values = np.concatenate([p_values, [[found.p_slower], [found.p_faster]]], axis=1)
        slower, faster = (np.minimum(num_kernels * sequential_p(p, rule.look_shares), 1.0) for p in p_values)
        codes = _codes(decide(found, slower, faster, rule))
        verdicts[rows], num_pairs[rows] = codes, rule.looks[look]
        is_open = codes == OPEN
        rows, logs, p_values = rows[is_open], logs[is_open], p_values[:, :, is_open]
        if not rows.size:
            break
    return verdicts, num_pairs


def _codes(decided: Decisions) -> Floats:
    return decided.is_slower * SLOWER + decided.is_faster * FASTER + decided.is_same * SAME


def main() -> None:
    """Print how often each verdict is reached, by noise and effect."""
    experiments = [
        ("the same code twice", normal(0.02), 0.0, 20_000),
        ("the same, 1 in 10 times disturbed by 20 %", heavy_tails(0.02), 0.0, 20_000),
        ("the same, 1 in 10 processes 8 % slow for life", odd_processes(0.02), 0.0, 20_000),
        ("the same, processes that differ by 3 %, their pairs by 1 %", own_speeds(0.01), 0.0, 20_000),
        ("the same, 1 % noise", normal(0.01), 0.0, 20_000),
        ("the same, 4 % noise", normal(0.04), 0.0, 20_000),
        ("head 5 % slower", normal(0.02), 0.05, 5000),
        ("head 10 % slower", normal(0.02), 0.10, 5000),
        ("head 5 % slower, 4 % noise", normal(0.04), 0.05, 5000),
        ("head 2 % slower, 4 % noise", normal(0.04), 0.02, 5000),
    ]
    for label, noise, effect, num_rows in experiments:
        verdicts, pairs = outcomes(noise, effect=effect, rule=GateRule(), num_rows=num_rows, seed=0)
        shares = [f"{100 * np.mean(verdicts == one):.4g} %" for one in (SLOWER, FASTER, SAME, OPEN)]
        print(f"| {label} | {num_rows:,} | {' | '.join(shares)} | {pairs.mean():.0f} |")


if __name__ == "__main__":
    main()
