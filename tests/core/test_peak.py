"""What a kernel takes at least, from what the machine can do at most."""

from datetime import UTC, datetime

import pytest

from tunewright.core.types import (
    MachineInfo,
    MachinePeak,
    TargetSpec,
    TensorSpec,
    Workload,
    WorkloadKey,
)

MACHINE = MachineInfo("CPU", 2, False, "none", "6.1", "0.27", "0.1", "22")
PEAK = MachinePeak(
    MACHINE,
    TargetSpec("cpu", 2),
    1e9,
    ((1024, 8e9), (1 << 20, 1e9)),
    datetime(2026, 1, 1, tzinfo=UTC),
)


def _workload(num_floats: int, flop: float) -> Workload:
    return Workload("w", WorkloadKey("k"), "{}", (TensorSpec((num_floats,), "float32"),), flop)


@pytest.mark.parametrize(
    ("num_bytes", "expected"), [(4, 8e9), (1024, 8e9), ((1 << 20) - 4, 8e9), (1 << 20, 1e9), (1 << 40, 1e9)]
)
def test_the_bandwidth_is_that_of_the_next_smaller_working_set(num_bytes: int, expected: float) -> None:
    assert PEAK.bytes_per_sec(num_bytes) == expected


def test_the_floor_is_the_slower_of_computing_and_moving() -> None:
    assert PEAK.floor_secs(_workload(1 << 18, flop=1e9)) == pytest.approx(1.0)
    assert PEAK.floor_secs(_workload(1 << 18, flop=1.0)) == pytest.approx((1 << 20) / 1e9)
