"""Dot tiling: every drawn schedule gives what NumPy gives, through the instruction, with weights packed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("tvm")

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported

import tvm  # isort: skip
from ml_dtypes import bfloat16
from tvm import te, tirx

from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.default_schedule import default_trace
from tunewright.core.tvm_adapter.dot_tiling import dot_tiling_sketches, fixed_lanes
from tunewright.core.tvm_adapter.kernel import build_kernel, replay, split_prepack
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TargetSpec, TaskKey, TensorSpec
from tunewright.search.decisions import parse_trace

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

Array = npt.NDArray[Any]
TARGET = host_target(2)
SERVER = TargetSpec("cooperlake", num_threads=2)  # has all of the instructions


@dataclass(frozen=True)
class Product:
    """`truth`: of the two operands, in int64 or float64, before what follows."""

    func: tvm.tirx.PrimFunc
    truth: Callable[[Array, Array], Array]
    requantizes: bool


def matmul(
    m: int, n: int, k: int, types: tuple[str, str, str], *, requantizes: bool = False, free: bool = True
) -> Product:
    left, right, sums = types
    a, b = te.placeholder((m, k), left, "a"), te.placeholder((k, n), right, "b")
    axis = te.reduce_axis((0, k), "k")
    c = te.compute(
        (m, n), lambda i, j: te.sum(a[i, axis].astype(sums) * b[axis, j].astype(sums), axis=axis), "c"
    )
    return _finished(a, b, c, lambda x, w: x @ w, requantizes, free)


def convolution(
    size: int,
    channels: int,
    filters: int,
    types: tuple[str, str, str],
    *,
    stride: int = 1,
    requantizes: bool = False,
) -> Product:
    """3 x 3 in NHWC with a border of zeros."""
    left, right, sums = types
    a = te.placeholder((1, size, size, channels), left, "a")
    b = te.placeholder((3, 3, channels, filters), right, "b")
    padded = te.compute(
        (1, size + 2, size + 2, channels),
        lambda n, y, x, c: tirx.if_then_else(
            tirx.all(y >= 1, y <= size, x >= 1, x <= size), a[n, y - 1, x - 1, c], tirx.const(0, left)
        ),
        "padded",
    )
    extent = (size - 1) // stride + 1
    axes = [te.reduce_axis((0, n), name) for n, name in ((3, "ry"), (3, "rx"), (channels, "rc"))]
    ry, rx, rc = axes
    c = te.compute(
        (1, extent, extent, filters),
        lambda n, y, x, f: te.sum(
            padded[n, y * stride + ry, x * stride + rx, rc].astype(sums) * b[ry, rx, rc, f].astype(sums),
            axis=axes,
        ),
        "c",
    )

    def truth(x: Array, w: Array) -> Array:
        image = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
        return np.einsum("nyxcij,ijcf->nyxf", windows[:, ::stride, ::stride], w)

    return _finished(a, b, c, truth, requantizes, free=True)


def _finished(
    a: te.Tensor,
    b: te.Tensor,
    c: te.Tensor,
    truth: Callable[[Array, Array], Array],
    requantizes: bool,
    free: bool,
) -> Product:
    args = [a, b, c]
    if requantizes:
        scale = te.placeholder((c.shape[-1],), "float32", "scale")

        def quantized(*index: tirx.Var) -> tirx.Expr:
            steps = te.round(c(*index).astype("float32") * scale[index[-1]]) + tirx.const(3.0, "float32")
            low, high = tirx.const(0.0, "float32"), tirx.const(255.0, "float32")
            return te.min(te.max(steps, low), high).astype("int32").astype("uint8")

        args = [a, b, scale, te.compute(c.shape, quantized, "quantized")]
    func = te.create_prim_func(args)
    return Product(func.with_attr("layout_free_buffers", [1]) if free else func, truth, requantizes)


BYTES = ("uint8", "int8", "int32")
BFLOAT16 = ("bfloat16", "bfloat16", "float32")
WIDE = ("float32", "bfloat16", "float32")
CASES: dict[str, Callable[[], Product]] = {
    "bytes": partial(matmul, 28, 64, 64, BYTES),
    "requantized": partial(matmul, 28, 64, 64, BYTES, requantizes=True),
    "half vectors": partial(matmul, 16, 24, 32, BYTES, requantizes=True),
    "all axes padded": partial(matmul, 19, 70, 37, BYTES, requantizes=True),
    "one row": partial(matmul, 1, 36, 62, BYTES),
    "no weights": partial(matmul, 12, 32, 16, BYTES, free=False),
    "convolution": partial(convolution, 7, 8, 32, BYTES, requantizes=True),
    "strided": partial(convolution, 9, 4, 16, BYTES, stride=2),
    "bfloat16": partial(matmul, 28, 64, 64, BFLOAT16),
    "padded bfloat16": partial(matmul, 19, 70, 37, BFLOAT16),
    "bfloat16 convolution": partial(convolution, 7, 8, 32, BFLOAT16),
    "weights of bfloat16": partial(convolution, 7, 8, 32, WIDE),
}


@pytest.mark.parametrize("name", CASES)
def test_drawn_and_default_schedules_are_right(name: str) -> None:
    product = CASES[name]()
    workload = canonical_workload(product.func, name=name)
    if not dot_tiling_sketches(load_module(workload.mod_json), TARGET):
        pytest.skip(f"{TARGET.mcpu} has no instruction for it")
    inputs = _inputs(workload.args)
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    sampled = [space.sample(seed) for seed in range(3)]
    assert all(sampled)
    traces = [one.candidate.trace_json for one in sampled if one]
    for trace in [*traces, default_trace(workload.mod_json, TARGET)]:
        assert "Tensorize" in trace
        scheduled = replay(workload.mod_json, trace)
        assert (split_prepack(scheduled).prepack is not None) == (name != "no weights")
        bound = build_kernel(scheduled, TARGET).bind(inputs)
        bound.poison()
        bound.run()
        _check(product, inputs, bound.outputs()[0])


def test_both_instructions_for_bfloat16_are_candidates() -> None:
    """Which one is faster depends on the CPU; what it loads, on who has widened it."""
    found = {name: _instructions(matmul(28, 64, 64, BFLOAT16), SERVER) for name in ("matmul",)}
    found["convolution"] = _instructions(convolution(7, 8, 32, BFLOAT16), SERVER)
    wide = "tunewright.x86.dot_widened_bf16bf16f32_16x2"
    assert found["matmul"] == ["tunewright.x86.dot_bf16bf16f32_16x2", wide, wide]
    assert found["convolution"] == [wide, wide]  # its border is made in float32


def test_the_widest_full_vectors_are_taken() -> None:
    lanes = {n: _lanes(matmul(16, n, 32, BYTES)) for n in (16, 24, 32, 40, 20)}
    assert lanes == {16: 16, 24: 8, 32: 16, 40: 8, 20: 16}


def test_what_the_instruction_does_not_compute_has_no_sketch() -> None:
    signed = matmul(16, 32, 32, ("int8", "int8", "int32"))
    narrow_sums = matmul(16, 32, 32, ("bfloat16", "bfloat16", "bfloat16"))
    odd_channels = convolution(7, 3, 32, BYTES)
    computed = matmul(16, 32, 32, BFLOAT16, free=False)
    for product in (signed, narrow_sums, odd_channels, computed):
        assert _instructions(product, SERVER) == []
    assert _instructions(matmul(16, 32, 32, BYTES), TargetSpec("haswell", 1)) == []


def test_the_search_reads_the_lanes_of_the_instruction() -> None:
    workload = canonical_workload(matmul(28, 64, 64, BYTES).func, name="mm")
    if not dot_tiling_sketches(load_module(workload.mod_json), TARGET):
        pytest.skip(f"{TARGET.mcpu} has no instruction for it")
    applied = TaskSpace(workload.mod_json, TARGET, TaskKey("t")).sample(1)
    assert applied is not None
    nest = parse_trace(applied.candidate.trace_json).nest
    assert nest is not None and nest.lanes in (8, 16) and nest.is_unrolled
    # Chunks of rows and of columns in parallel; rows and vectors in registers.
    assert (nest.num_parallel, nest.num_inner) == (2, 2)


def _instructions(product: Product, target: TargetSpec) -> list[str]:
    return [
        str(inst.attrs[0])
        for sketch in dot_tiling_sketches(tvm.IRModule({"main": product.func}), target)
        for inst in sketch.insts
        if inst.kind.name == "Tensorize"
    ]


def _lanes(product: Product) -> int | None:
    (sketch, *_) = dot_tiling_sketches(tvm.IRModule({"main": product.func}), SERVER)
    return fixed_lanes(sketch)


def _inputs(args: tuple[TensorSpec, ...]) -> list[Array]:
    rng = np.random.default_rng(5)
    made: list[Array] = []
    for number, spec in enumerate(args):
        match spec.dtype:
            case "uint8":
                made.append(rng.integers(0, 256, spec.shape, dtype=np.uint8))
            case "int8":
                made.append(rng.integers(-128, 128, spec.shape, dtype=np.int8))
            case "bfloat16":
                made.append(rng.standard_normal(spec.shape).astype(bfloat16))
            case "float32" if number == 2 and len(args) == 4:
                made.append(rng.uniform(1e-4, 2e-3, spec.shape).astype(np.float32))
            case other:
                made.append(rng.standard_normal(spec.shape).astype(other))
    return made


def _check(product: Product, inputs: list[Array], actual: Array) -> None:
    exact = inputs[1].dtype == np.int8
    wide = np.int64 if exact else np.float64
    truth = product.truth(inputs[0].astype(wide), inputs[1].astype(wide))
    if product.requantizes:
        steps = np.rint(truth.astype(np.float32) * inputs[2])
        truth = np.clip(steps + 3, 0, 255)
        assert 0 < np.count_nonzero(truth % 255) < truth.size  # some within limits, some clipped
    if exact:
        np.testing.assert_array_equal(actual, truth)
    else:
        magnitude = product.truth(np.abs(inputs[0].astype(wide)), np.abs(inputs[1].astype(wide)))
        assert np.max(np.abs(actual - truth) / magnitude) < 1e-6  # sums of bfloat16 would err by 4e-3
