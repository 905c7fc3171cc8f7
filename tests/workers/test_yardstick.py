"""When the machine's speed counts as changed."""

import itertools

import pytest

from tunewright.workers.yardstick import has_moved


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((1.00, 1.01, 1.02, 1.00), (1.10, 1.11, 1.10, 1.12), True),
        ((1.10, 1.11, 1.10, 1.12), (1.00, 1.01, 1.02, 1.00), True),
        ((1.00, 1.01, 1.00, 1.01), (1.02, 1.03, 1.02, 1.03), False),  # by less than 3 %
        ((1.00, 1.30, 1.02, 1.05), (1.10, 1.11, 1.10, 1.12), False),  # the samples overlap
        ((), (1.0, 1.0, 1.0, 1.0), False),
        ((1.0, 1.0, 1.0, 1.0), (), False),
    ],
)
def test_moved(before: tuple[float, ...], after: tuple[float, ...], expected: bool) -> None:
    assert has_moved(before, after) is expected


def test_noise_alone_seldom_moves_it() -> None:
    """Of all ways to deal eight different samples to before and after, 2 of 70 keep them apart."""
    samples = [1.0 + 0.1 * i for i in range(8)]
    deals = list(itertools.combinations(samples, 4))
    moved = [deal for deal in deals if has_moved(deal, tuple(s for s in samples if s not in deal))]
    assert (len(moved), len(deals)) == (2, 70)
