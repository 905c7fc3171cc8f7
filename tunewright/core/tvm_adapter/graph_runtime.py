"""Run a compiled model: weights prepared and packed once, threads set for whoever calls."""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tunewright.core.tvm_adapter.graph import MAIN_FUNCTION, PACK_FUNCTION, PREPARE_FUNCTION
from tunewright.core.tvm_adapter.tensors import Array, memory_of

logger = logging.getLogger(__name__)

_BIG_CORES = 1  # TVM's affinity mode that takes a number of threads; without binding, only the number counts


def save_params(params: Sequence[Array], path: Path) -> None:
    """Write a model's weights, in order."""
    named = {str(index): tvm.runtime.tensor(array) for index, array in enumerate(params)}
    tvm.runtime.save_param_dict_to_file(named, str(path))


class GraphExecutor:
    """A compiled model in this process.

    TVM's thread pool belongs to the calling thread, so the thread count is set per calling thread.
    """

    def __init__(self, library: Path, params: Path, *, num_params: int, num_threads: int) -> None:
        """Load, and transform the weights once.

        Raises:
            RuntimeError: a file is damaged.
        """
        # Read by TVM when it makes a thread's pool: a pool that is too small could never be enlarged.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        pool_size = max(num_threads, int(os.environ.get("TVM_NUM_THREADS", "0")), os.cpu_count() or 1)
        os.environ["TVM_NUM_THREADS"] = str(pool_size)
        self._num_threads = num_threads
        self._config_threadpool = tvm.get_global_func("runtime.config_threadpool")
        self._configured = threading.local()
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        named = tvm.runtime.load_param_dict_from_file(str(params))
        weights = [named[str(index)] for index in range(num_params)]
        self._set_threads()
        self._weights = list(machine[PACK_FUNCTION](machine[PREPARE_FUNCTION](weights)))
        self._main = machine[MAIN_FUNCTION]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """One run. Inputs of the model's shapes and dtypes, in order; returns the outputs in order."""
        self._set_threads()
        result: Any = self._main(*self._copied(inputs), *self._weights)
        outputs = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [_copy(output) for output in outputs]

    def _copied(self, inputs: Sequence[Array]) -> Sequence[tvm.runtime.Tensor]:
        """The inputs in buffers of the calling thread; fresh pages would cost more than the copy."""
        if not hasattr(self._configured, "inputs"):
            tensors = [tvm.runtime.empty(array.shape, str(array.dtype)) for array in inputs]
            self._configured.inputs = [(tensor, memory_of(tensor)) for tensor in tensors]
        buffers: list[tuple[tvm.runtime.Tensor, Array | None]] = self._configured.inputs
        for (buffer, memory), array in zip(buffers, inputs, strict=True):
            if memory is None:
                buffer.copyfrom(array)
            else:
                np.copyto(memory, array)
        return [buffer for buffer, _ in buffers]

    def _set_threads(self) -> None:
        # Another model may have set this thread's count since; setting it costs under a microsecond.
        self._config_threadpool(_BIG_CORES, self._num_threads)
        if not getattr(self._configured, "is_checked", False):
            self._configured.is_checked = True
            actual = tvm.runtime.num_threads()
            if actual != self._num_threads:
                logger.warning("running with %d threads, compiled for %d", actual, self._num_threads)


def _copy(tensor: tvm.runtime.Tensor) -> Array:
    memory = memory_of(tensor)
    return tensor.numpy() if memory is None else memory.copy()
