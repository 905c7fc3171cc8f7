"""What can be said of a schedule before any trial, from its loops and what is known of the machine."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunewright.core.loop_nest import LoopNest
from tunewright.core.tile_model import relative_speed
from tunewright.core.types import FloatArray

# Registers of what the accumulators are multiplied with.
_OTHER_REGISTERS = 4
# Fewer do not hide the latency of a multiply-add.
_MIN_ACCUMULATORS = 8
# TVM's code for "inlined into its consumer": each element is computed again for each use.
INLINED = -2

_Logs = npt.NDArray[np.float64]

# log2 of how much slower a program gets by each unit of log2 of waste: least squares over the logged trials
# of 58 tasks (convolutions, products), rounded. On a task left out, the sum ranks with a Spearman of 0.49.
_WASTED_LANES = 0.6
_IDLE_THREADS = 0.25
_SPILLED = 0.4
_TOO_FEW_ACCUMULATORS = 0.2
_NOT_UNROLLED = 0.13
_RECOMPUTED = 1.3


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a look at a schedule without running it needs of the machine."""

    num_threads: int = 1
    vector_lanes: int = 16  # of 32 bits
    vector_registers: int = 32


def guess(nest: LoopNest, flat: FloatArray, hardware: Hardware) -> npt.NDArray[np.float64]:
    """What can be said of points without any trial: log2 of their speed up to a constant, higher is better.

    Footprints against the caches were tried too and rank nothing on logged trials.

    Args:
        flat: (n, n_flat), the flattened decisions: factors and numbers as they are.
    """
    if nest.is_unrolled:
        tiles = [flat[:, columns].astype(np.float64) for columns in nest.tiles]
        return relative_speed(
            tiles,
            num_threads=hardware.num_threads,
            num_registers=hardware.vector_registers,
            lanes=nest.lanes,
            num_results=nest.num_results,
        )
    loops = np.log2(flat[:, nest.columns], dtype=np.float64)
    registers = _vectors(loops[:, -1], hardware) + loops[:, len(nest.columns) - nest.num_inner : -1].sum(
        axis=1
    )
    inlined = (flat[:, nest.locations] == INLINED).any(axis=1)
    waste: _Logs = (
        _WASTED_LANES * _wasted_lanes(loops[:, -1], hardware)
        + _IDLE_THREADS * _idle_threads(nest, loops, hardware)
        + _SPILLED * np.maximum(0.0, registers - math.log2(hardware.vector_registers - _OTHER_REGISTERS))
        + _TOO_FEW_ACCUMULATORS * np.maximum(0.0, math.log2(_MIN_ACCUMULATORS) - registers)
        + _NOT_UNROLLED * _not_unrolled(nest, loops, flat)
        + _RECOMPUTED * inlined
    )
    return -waste


def _vectors(innermost: _Logs, hardware: Hardware) -> _Logs:
    """log2 of the number of vectors that the innermost loop fills."""
    return np.asarray(np.log2(np.ceil(np.exp2(innermost) / hardware.vector_lanes - 1e-6)), dtype=np.float64)


def _wasted_lanes(innermost: _Logs, hardware: Hardware) -> _Logs:
    filled = _vectors(innermost, hardware) + math.log2(hardware.vector_lanes)
    return np.asarray(filled - innermost, dtype=np.float64)


def _idle_threads(nest: LoopNest, loops: _Logs, hardware: Hardware) -> _Logs:
    """log2 of thread-seconds over those at work: TVM fuses outer loops until there are enough jobs."""
    if nest.num_parallel == 0:
        return np.full(len(loops), math.log2(hardware.num_threads))
    products = np.cumsum(loops[:, : nest.num_parallel], axis=1)
    is_enough = products > math.log2(nest.max_jobs) + 1e-6
    is_enough[:, -1] = True
    num_jobs = np.round(np.exp2(products[np.arange(len(loops)), is_enough.argmax(axis=1)]))
    rounds = np.ceil(num_jobs / hardware.num_threads)
    return np.asarray(np.log2(rounds * hardware.num_threads / num_jobs), dtype=np.float64)


def _not_unrolled(nest: LoopNest, loops: _Logs, flat: FloatArray) -> _Logs:
    """log2 of the part of the register tile that stays a loop, so that its accumulators go through memory."""
    tile: _Logs = loops[:, len(nest.columns) - nest.num_inner : -1].sum(axis=1)
    if nest.unroll is None:
        return tile
    steps = np.log2(np.maximum(nest.unroll_steps, 1))[flat[:, nest.unroll].astype(np.int64)]
    bodies = np.cumsum(loops[:, -2::-1], axis=1)
    unrolled = np.where(bodies <= steps[:, np.newaxis] + 1e-6, bodies, 0.0).max(axis=1, initial=0.0)
    return np.asarray(np.maximum(0.0, tile - unrolled), dtype=np.float64)
