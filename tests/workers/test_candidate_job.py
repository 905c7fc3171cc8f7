"""What a child makes of a candidate before it is timed."""

import pytest

from tunewright.core.types import EvaluatorConfig
from tunewright.workers import candidate_job

pytestmark = pytest.mark.tvm
MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "model", "num_threads", "copies"),
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
    own: int, model: int, num_threads: int, copies: int
) -> None:
    streamed_bytes = EvaluatorConfig.for_model(model, num_threads=num_threads).streamed_bytes
    assert candidate_job._num_copies(own, streamed_bytes) == copies
