"""What the roofline draws, against arithmetic done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tests.plots.conftest import MACHINE, START
from tunewright.core.types import MachinePeak, TargetSpec, TensorSpec, Workload, WorkloadKey
from tunewright.plots import make_roofline, offscreen_axes, roofline

PEAK = MachinePeak(
    MACHINE,
    TargetSpec("skylake-avx512", 2),
    100e9,
    ((1 << 18, 80e9), (1 << 20, 200e9), (1 << 28, 20e9)),
    START,
)
# 3 x 4000 bytes, 48 FLOP per byte.
MATMUL = Workload(
    "matmul 10x100 -> 100", WorkloadKey("a"), "{}", (TensorSpec((1000,), "float32"),) * 3, 576e3
)
COPY = replace(MATMUL, name="concatenate", flop=0.0)


def test_points_are_speed_over_work_per_byte() -> None:
    data = make_roofline([(MATMUL, 1e-5), (COPY, 1e-5)], PEAK)
    assert data.num_left_out == 1
    (point,) = data.points
    assert (point.flop_per_byte, point.gflops) == pytest.approx((48.0, 57.6))
    ax = roofline(data, ax=offscreen_axes())
    cache, memory, points, *_ = ax.get_lines()
    np.testing.assert_allclose(points.get_xdata(), [48.0])
    np.testing.assert_allclose(points.get_ydata(), [57.6])
    # The roofs bend where the bandwidth times the work per byte is the peak.
    assert np.asarray(cache.get_xdata())[1] == pytest.approx(100 / 200)
    assert np.asarray(memory.get_xdata())[1] == pytest.approx(100 / 20)
    for roof in (cache, memory):
        x, y = (np.asarray(values) for values in (roof.get_xdata(), roof.get_ydata()))
        assert y[1] == pytest.approx(100) == y[2]
        assert y[0] / x[0] == pytest.approx(y[1] / x[1])
    assert cache.get_linestyle() != memory.get_linestyle()
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "100 GFLOP/s (float32), 200 GB/s in 1 MiB",
        "100 GFLOP/s (float32), 20 GB/s in 256 MiB",
        "1 task; 1 without arithmetic left out",
        "1  matmul 10x100 -> 100",
    ]
    assert "FLOP/byte" in ax.get_xlabel() and "GFLOP/s" in ax.get_ylabel()


def test_a_machine_with_one_bandwidth_has_one_roof() -> None:
    one = replace(PEAK, bandwidths=((1 << 18, 80e9),))
    roof, points, *_ = roofline(make_roofline([(MATMUL, 1e-5)], one)).get_lines()
    assert np.asarray(roof.get_xdata())[1] == pytest.approx(100 / 80)
    assert len(points.get_xdata()) == 1


def test_only_the_first_tasks_have_numbers() -> None:
    ax = roofline(make_roofline([(MATMUL, 1e-5)] * 30, PEAK))
    assert [text.get_text() for text in ax.texts] == [str(number) for number in range(1, 9)]


def test_no_arithmetic_is_said() -> None:
    with pytest.raises(ValueError, match="no task that does arithmetic"):
        roofline(make_roofline([(COPY, 1e-5)], PEAK))
