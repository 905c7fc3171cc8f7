"""What a child makes of a candidate before it is timed."""

from types import SimpleNamespace
from typing import Any

import pytest

from tunewright.workers import candidate_job

pytestmark = pytest.mark.tvm
MIB = 1 << 20


@pytest.mark.parametrize(
    ("weight_bytes", "streamed_bytes", "num_threads", "copies"),
    [
        (4 * MIB, 0, 4, 1),  # the kernel alone
        (4 * MIB, 4 * MIB, 4, 1),  # a model of one layer
        (4 * MIB, 5 * MIB, 4, 2),
        (MIB, 100 * MIB, 4, 16),  # more than the caches of four CPUs hold
        (MIB, 100 * MIB, 1, 4),
        (400 * MIB, 600 * MIB, 4, 1),  # streams by itself
        (1024, 100 * MIB, 4, 64),
        (0, 100 * MIB, 4, 1),
    ],
)
def test_weights_are_copied_until_no_cache_of_a_cpu_holds_them(
    weight_bytes: int, streamed_bytes: int, num_threads: int, copies: int
) -> None:
    kernel: Any = SimpleNamespace(weight_bytes=weight_bytes)
    payload = {"streamed_bytes": streamed_bytes, "task": {"target": {"num_threads": num_threads}}}
    assert candidate_job._weight_copies(kernel, payload) == copies
