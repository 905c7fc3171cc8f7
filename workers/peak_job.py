"""What the machine can do at most, found in a child: the fastest of some kernels that do only one thing."""

from collections.abc import Sequence

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
    threads, lanes = target.num_threads, vector_lanes(target)
    _, _, flop_per_sec = fastest_multiply_adds(target)
    sizes = [size for size in _WORKING_SET_BYTES if size <= available_memory_bytes() // 4]
    bandwidths = [(size, _measured(updates(threads, lanes, size), target)[1]) for size in sizes]
    return {"flop_per_sec": flop_per_sec, "bandwidths": bandwidths}


def fastest_multiply_adds(target: TargetSpec) -> tuple[BoundKernel, float, float]:
    """The kernel that reaches most, FLOP of one call, and FLOP per second in the fastest of some samples.

    Raises:
        JobError: a kernel gives wrong numbers.
    """
    found = []
    for rows, vectors in _TILES:
        kernel = multiply_adds(target.num_threads, vector_lanes(target), rows=rows, vectors=vectors)
        bound, rate = _measured(kernel, target)
        found.append((bound, kernel.amount, rate))
    return max(found, key=lambda item: item[2])


def _measured(kernel: PeakKernel, target: TargetSpec) -> tuple[BoundKernel, float]:
    """Amount per second in the fastest sample: disturbances only ever add time."""
    specs = tensor_args(kernel.module["main"])
    rng = np.random.default_rng(0)
    numbers = rng.random(1 << 16, dtype=np.float32)
    *inputs, output = (np.resize(numbers, spec.shape) for spec in specs)
    bound = build_kernel(kernel.module, target).bind([*inputs, output])
    bound.poison()
    bound.run()
    _check(inputs, bound.outputs()[0])
    return bound, kernel.amount / min(bound.time(1) for _ in range(_NUM_SAMPLES))


def _check(inputs: Sequence[np.ndarray], output: np.ndarray) -> None:
    first, second = (array.astype(np.float64) for array in (inputs[0][:1], inputs[1]))
    if second.ndim == 2:  # blocks of products
        expected = (first[0] @ second)[np.newaxis]
    else:
        expected = first * second.sum()
    if not np.allclose(output[:1], expected, rtol=_TOLERANCE):
        raise JobError(FailureKind.WRONG_RESULT, "a kernel that was to show the machine's peak is wrong")
