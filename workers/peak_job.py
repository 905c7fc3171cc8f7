"""What the machine can do at most, found in a child: the fastest of some kernels that do only one thing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.core.tvm_adapter.canonical import tensor_args
from tunewright.core.tvm_adapter.kernel import BoundKernel, build_kernel
from tunewright.core.tvm_adapter.peak_kernels import PeakKernel, multiply_adds, updates
from tunewright.core.tvm_adapter.target import vector_lanes
from tunewright.core.types import FailureKind, TargetSpec
from tunewright.workers.child import JobError
from tunewright.workers.config import available_memory_bytes
from tunewright.workers.frames import Message
from tunewright.workers.threads import set_kernel_threads

# Accumulators as rows x vectors: for 16 and for 32 registers, for one and for two loads per cycle.
_TILES = ((4, 3), (6, 2), (8, 2), (8, 3), (12, 2), (14, 2))
_NUM_SAMPLES = 8
_WORKING_SET_BYTES = tuple(1 << bits for bits in range(18, 29, 2))  # 256 KiB to 256 MiB
_TOLERANCE = 1e-4


def measure_peak(target: TargetSpec, cpus: Sequence[int]) -> Message:
    """FLOP per second, and bytes per second for working sets from caches to memory.

    Raises:
        JobError: a kernel gives wrong numbers, so its speed means nothing.
    """
    set_kernel_threads(target.num_threads, cpus)
    flop_per_sec = max(peak.per_sec() for peak in multiply_add_peaks(target))
    threads, lanes = target.num_threads, vector_lanes(target)
    sizes = [size for size in _WORKING_SET_BYTES if size <= available_memory_bytes() // 4]
    bandwidths = [(size, _bound(updates(threads, lanes, size), target).per_sec()) for size in sizes]
    return {"flop_per_sec": flop_per_sec, "bandwidths": bandwidths}


@dataclass(frozen=True, slots=True)
class BoundPeak:
    """A kernel that gave right numbers, ready to be timed; `amount`: FLOP or bytes of one call."""

    kernel: BoundKernel
    amount: float

    def per_sec(self) -> float:
        """Amount per second in the fastest of some samples: disturbances only ever add time."""
        return self.amount / min(self.kernel.time(1) for _ in range(_NUM_SAMPLES))


def multiply_add_peaks(target: TargetSpec) -> Iterator[BoundPeak]:
    """Multiply-adds in several tiles of registers; which is the fastest depends on the machine.

    Raises:
        JobError: a kernel gives wrong numbers.
    """
    for rows, vectors in _TILES:
        kernel = multiply_adds(target.num_threads, vector_lanes(target), rows=rows, vectors=vectors)
        yield _bound(kernel, target)


def _bound(kernel: PeakKernel, target: TargetSpec) -> BoundPeak:
    specs = tensor_args(kernel.module["main"])
    rng = np.random.default_rng(0)
    numbers = rng.random(1 << 16, dtype=np.float32)
    *inputs, output = (np.resize(numbers, spec.shape) for spec in specs)
    bound = build_kernel(kernel.module, target).bind([*inputs, output])
    bound.poison()
    bound.run()
    _check(inputs, bound.outputs()[0])
    return BoundPeak(bound, kernel.amount)


def _check(inputs: Sequence[np.ndarray], output: np.ndarray) -> None:
    first, second = (array.astype(np.float64) for array in (inputs[0][:1], inputs[1]))
    if second.ndim == 2:  # blocks of products
        expected = (first[0] @ second)[np.newaxis]
    else:
        expected = first * second.sum()
    if not np.allclose(output[:1], expected, rtol=_TOLERANCE):
        raise JobError(FailureKind.WRONG_RESULT, "a kernel that was to show the machine's peak is wrong")
