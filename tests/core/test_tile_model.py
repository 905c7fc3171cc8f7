"""The analytic model of register tiles: what it must prefer, whatever the machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.core.tile_model import _LAUNCH_CYCLES, relative_speed


def speed(
    *tiles: list[int], num_threads: int = 1, num_registers: int = 32, lanes: int | None = None
) -> float:
    factors = [np.array([tile], dtype=np.float64) for tile in tiles]
    speeds = relative_speed(factors, num_threads=num_threads, num_registers=num_registers, lanes=lanes)
    return float(speeds[0])


GOOD = ([1, 64, 8], [1, 16, 2, 16], [128, 4])


@pytest.mark.parametrize(
    "worse",
    [
        ([1, 64, 8], [1, 32, 2, 8], [128, 4]),  # half of every vector is empty
        ([1, 512, 1], [1, 16, 2, 16], [128, 4]),  # two accumulators cannot hide the latency
        ([1, 512, 1], [1, 1, 32, 16], [128, 4]),  # a load for every multiply-add, and spills
        ([1, 8, 64], [1, 16, 2, 16], [128, 4]),  # 128 accumulators do not fit
        ([1, 64, 8], [1, 16, 2, 16], [512, 1]),  # a loop around every step
        ([64, 1, 8], [1, 16, 2, 16], [128, 4]),  # every chunk reads all columns again
    ],
)
def test_what_wastes_is_slower(worse: tuple[list[int], ...]) -> None:
    assert speed(*worse) < speed(*GOOD)


def test_accumulators_leave_registers_for_what_is_read() -> None:
    """16 registers, as AVX2 has: 12 accumulators are better than 14; of 32 registers either is as good."""
    twelve, fourteen = ([1, 84, 6], [1, 16, 2, 8], [128, 4]), ([1, 72, 7], [1, 16, 2, 8], [128, 4])
    assert speed(*twelve, num_registers=16) > speed(*fourteen, num_registers=16) + 0.1
    assert speed(*twelve) == pytest.approx(speed(*fourteen), abs=0.1)


def test_chunks_that_do_not_divide_leave_threads_idle() -> None:
    four, six = ([4, 12, 10], [6, 8, 10])
    assert speed(four, *GOOD[1:], num_threads=4) > speed(six, *GOOD[1:], num_threads=4)
    assert speed(GOOD[0], *GOOD[1:], num_threads=4) < speed([4, 16, 8], *GOOD[1:], num_threads=4) - 1.5


def test_what_is_over_before_other_threads_have_started_is_one_chunk() -> None:
    small, columns, depth = [1, 1, 7], [1, 3, 2, 16], [12, 8]  # 64,512 multiply-adds: a microsecond
    shared = speed([1, 1, 7], [3, 1, 2, 16], depth, num_threads=4)
    assert speed(small, columns, depth, num_threads=4) > shared
    large = [400, 8]
    assert speed(small, columns, large, num_threads=4) < speed(small, [3, 1, 2, 16], large, num_threads=4)


def test_twice_the_work_takes_about_twice_the_time() -> None:
    rows, columns, depth = GOOD
    assert speed(rows, columns, [256, 4]) == pytest.approx(speed(*GOOD) - 1, abs=0.1)
    assert speed([1, 128, 8], columns, depth) == pytest.approx(speed(*GOOD) - 1, abs=0.1)


def test_taps_and_channels_unrolled_together_spill() -> None:
    """Of 3x3 convolutions with 14 accumulators those with both unrolled took 1.4 times as long."""
    rows, columns = [1, 8, 7], [1, 2, 2, 16]
    plain = speed([1, 56, 1], rows, columns, [3, 1], [3, 1], [8, 8])
    assert speed([1, 56, 1], rows, columns, [3, 1], [1, 3], [8, 8]) < plain - 0.2
    assert speed([1, 56, 1], rows, columns, [3, 1], [1, 3], [32, 2]) == pytest.approx(plain, abs=0.1)


def test_depthwise_taps_share_what_neighbouring_rows_read() -> None:
    """Tiles along the axis whose taps are unrolled; of a depthwise convolution such ones were fastest."""
    columns, none = [3, 3, 1, 16], [1, 1]
    shared = speed([14, 4, 1], [1, 7, 8], columns, [3, 1], [1, 3], none)
    assert shared > speed([14, 4, 1], [1, 7, 8], columns, [1, 3], [3, 1], none)
    assert shared > speed([14, 4, 1], [1, 7, 8], columns, [3, 1], [3, 1], none)


def test_fixed_lanes_are_lanes() -> None:
    rows, columns, depth = GOOD
    assert speed(rows, columns[:3], depth, lanes=16) == speed(*GOOD)


@given(
    st.lists(st.integers(1, 8), min_size=3, max_size=3),
    st.lists(st.integers(1, 8), min_size=4, max_size=4),
    st.lists(st.integers(1, 8), min_size=2, max_size=2),
    st.integers(1, 8),
)
def test_it_always_has_an_answer(rows: list[int], columns: list[int], depth: list[int], threads: int) -> None:
    """Also for a product with a vector, a convolution's window, and pooling.

    More threads never cost more than to start them, which a tiling of one chunk does not.
    """
    for tiles in (
        (columns, depth),
        (rows, rows, columns, [3, 1], [1, 3], depth),
        (rows, columns, depth, depth),
    ):
        one, many = speed(*tiles), speed(*tiles, num_threads=threads)
        assert np.isfinite(one) and np.isfinite(many)
        if all(tile[0] == 1 for tile in tiles if len(tile) > 2):
            assert many == one
        else:
            assert 2**-many <= 2**-one + _LAUNCH_CYCLES
