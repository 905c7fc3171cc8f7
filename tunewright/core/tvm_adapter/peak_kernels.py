"""Kernels that do nothing but reach a machine's limits: multiply-adds in registers, and moving data."""

from dataclasses import dataclass

import tvm
from tvm import te
from tvm.s_tir import Schedule

_DEPTH = 128  # of the products: their operands stay in the level-one cache
_NUM_LEFT = 4  # different left operands, so that no block can be computed once for all
_BLOCKS_PER_THREAD = 1024
_BYTES_PER_UPDATE = 12  # one element read twice, written once
_MIN_UPDATES = 1 << 24  # per call and thread, in small working sets


@dataclass(frozen=True, slots=True)
class PeakKernel:
    """A scheduled module; `amount`: FLOP or bytes of one call."""

    module: tvm.IRModule
    amount: float


def multiply_adds(num_threads: int, lanes: int, *, rows: int, vectors: int) -> PeakKernel:
    """Many small products, each with `rows` x `vectors` accumulators of `lanes` float32 in registers."""
    blocks, columns = num_threads * _BLOCKS_PER_THREAD, vectors * lanes
    left = te.placeholder((_NUM_LEFT, rows, _DEPTH), "float32", "left")
    right = te.placeholder((_DEPTH, columns), "float32", "right")
    k = te.reduce_axis((0, _DEPTH), "k")
    product = te.compute(
        (blocks, rows, columns),
        lambda b, i, j: te.sum(left[b % _NUM_LEFT, i, k] * right[k, j], axis=k),
        "product",
    )
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([left, right, product])}))
    block = schedule.get_sblock("product")
    b, i, j, depth = schedule.get_loops(block)
    registers = schedule.cache_write(block, 0, "global")
    vector, lane = schedule.split(j, [vectors, lanes])
    schedule.reorder(b, depth, i, vector, lane)
    schedule.reverse_compute_at(registers, b)
    schedule.parallel(b)
    schedule.vectorize(lane)
    schedule.unroll(i)
    schedule.unroll(vector)
    schedule.decompose_reduction(block, depth)
    schedule.vectorize(schedule.get_loops(registers)[-1])
    return PeakKernel(schedule.mod, 2.0 * blocks * rows * columns * _DEPTH)


def updates(num_threads: int, lanes: int, working_set_bytes: int) -> PeakKernel:
    """y += s * x, again and again; x and y together are the working set, shared out among the threads."""
    per_thread = max(lanes, working_set_bytes // (8 * num_threads) // lanes * lanes)
    rounds = max(2, _MIN_UPDATES // per_thread)
    x = te.placeholder((num_threads, per_thread), "float32", "x")
    scale = te.placeholder((rounds,), "float32", "scale")
    r = te.reduce_axis((0, rounds), "r")
    y = te.compute((num_threads, per_thread), lambda t, i: te.sum(x[t, i] * scale[r], axis=r), "y")
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([x, scale, y])}))
    block = schedule.get_sblock("y")
    t, i, r_loop = schedule.get_loops(block)
    chunk, lane = schedule.split(i, [None, lanes])
    schedule.reorder(t, r_loop, chunk, lane)
    schedule.parallel(t)
    schedule.vectorize(lane)
    schedule.decompose_reduction(block, r_loop)
    return PeakKernel(schedule.mod, float(_BYTES_PER_UPDATE) * num_threads * per_thread * rounds)
