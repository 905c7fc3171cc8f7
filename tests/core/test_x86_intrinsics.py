"""Dot-product instructions, through TVM, against NumPy in int64 and float64."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported

import tvm  # isort: skip
from ml_dtypes import bfloat16
from tvm import te
from tvm.s_tir import Schedule

from tunewright.core.tvm_adapter.kernel import build_kernel
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.tvm_adapter.x86_intrinsics import (
    DOT_BF16_16X2,
    DOT_F32_BF16_8X2,
    DOT_F32_BF16_16X2,
    DOT_INTRINSICS,
    DOT_U8S8_8X4,
    DOT_U8S8_16X4,
    DOT_WIDENED_BF16_8X2,
    DOT_WIDENED_BF16_16X2,
    DotIntrinsic,
    register_intrinsics,
    supported_intrinsics,
)
from tunewright.core.types import TargetSpec

pytestmark = pytest.mark.tvm

Array = npt.NDArray[Any]
ROWS, COLUMNS, DEPTH = 6, 32, 512
NARROW = (DOT_F32_BF16_8X2, DOT_WIDENED_BF16_8X2)
WIDE = (DOT_F32_BF16_16X2, DOT_F32_BF16_8X2, DOT_WIDENED_BF16_16X2, DOT_WIDENED_BF16_8X2)


@pytest.mark.parametrize("intrinsic", [DOT_U8S8_16X4, DOT_U8S8_8X4], ids=lambda intrinsic: intrinsic.name)
def test_unsigned_by_signed_bytes_are_exact(intrinsic: DotIntrinsic) -> None:
    rng = np.random.default_rng(1)
    left = rng.integers(0, 256, (ROWS, DEPTH), dtype=np.uint8)
    right = rng.integers(-128, 128, (DEPTH, COLUMNS), dtype=np.int8)
    assert np.array_equal(_product(intrinsic, left, right), left.astype(np.int64) @ right.astype(np.int64))


@pytest.mark.parametrize("intrinsic", [DOT_U8S8_16X4, DOT_U8S8_8X4], ids=lambda intrinsic: intrinsic.name)
@pytest.mark.parametrize("weight", [-128, 127])
def test_no_group_of_extreme_bytes_saturates(intrinsic: DotIntrinsic, weight: int) -> None:
    left = np.full((ROWS, DEPTH), 255, dtype=np.uint8)
    right = np.full((DEPTH, COLUMNS), weight, dtype=np.int8)
    assert np.array_equal(_product(intrinsic, left, right), np.full((ROWS, COLUMNS), 255 * weight * DEPTH))


def test_signed_bytes_need_only_a_term_of_the_weights() -> None:
    rng = np.random.default_rng(2)
    left = rng.integers(-128, 128, (ROWS, DEPTH), dtype=np.int8)
    right = rng.integers(-128, 128, (DEPTH, COLUMNS), dtype=np.int8)
    unsigned = (left.astype(np.int16) + 128).astype(np.uint8)
    result = _product(DOT_U8S8_16X4, unsigned, right) - 128 * right.sum(axis=0, dtype=np.int64)
    assert np.array_equal(result, left.astype(np.int64) @ right.astype(np.int64))


@pytest.mark.parametrize(
    "intrinsic", [DOT_BF16_16X2, DOT_F32_BF16_16X2, DOT_F32_BF16_8X2], ids=lambda intrinsic: intrinsic.name
)
def test_bfloat16_accumulates_in_float32(intrinsic: DotIntrinsic) -> None:
    rng = np.random.default_rng(3)
    left_dtype = np.float32 if intrinsic.left == "float32" else bfloat16
    left = rng.standard_normal((ROWS, DEPTH)).astype(left_dtype)
    right = rng.standard_normal((DEPTH, COLUMNS)).astype(bfloat16)
    result = _product(intrinsic, left, right)
    truth = left.astype(np.float64) @ right.astype(np.float64)
    magnitude = np.abs(left.astype(np.float64)) @ np.abs(right.astype(np.float64))
    assert np.max(np.abs(result - truth) / magnitude) < 1e-6  # bfloat16 sums would err by 4e-3


def test_lanes_that_do_not_lie_side_by_side_are_refused() -> None:
    register_intrinsics()
    left = te.placeholder((ROWS, DEPTH), "uint8", "left")
    right = te.placeholder((COLUMNS, DEPTH), "int8", "right")  # a group per lane, but DEPTH bytes apart
    k = te.reduce_axis((0, DEPTH), "k")
    product = te.compute(
        (ROWS, COLUMNS),
        lambda i, j: te.sum(left[i, k].astype("int32") * right[j, k].astype("int32"), axis=k),
        "product",
    )
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([left, right, product])}))
    _tensorize(schedule, DOT_U8S8_16X4, packs_weights=False)
    with pytest.raises(RuntimeError, match="512"):
        tvm.tirx.build(schedule.mod, target=tvm.target.Target({"kind": "llvm", "mcpu": "cascadelake"}))


@pytest.mark.parametrize(
    ("mcpu", "expected"),
    [
        ("nehalem", ()),
        ("haswell", NARROW),
        ("skylake-avx512", WIDE),
        ("alderlake", (DOT_U8S8_8X4, *NARROW)),
        ("cascadelake", (DOT_U8S8_16X4, DOT_U8S8_8X4, *WIDE)),
        ("cooperlake", DOT_INTRINSICS),
        ("znver4", DOT_INTRINSICS),
    ],
)
def test_which_targets_have_which_instruction(mcpu: str, expected: tuple[DotIntrinsic, ...]) -> None:
    assert supported_intrinsics(TargetSpec(mcpu, 1)) == expected


def _product(intrinsic: DotIntrinsic, left: Array, right: Array) -> Array:
    """`left` @ `right` through the instruction, or a skipped test where this CPU lacks it."""
    target = host_target(1)
    if intrinsic not in supported_intrinsics(target):
        pytest.skip(f"{target.mcpu} has no {intrinsic.name}")
    register_intrinsics()
    schedule = Schedule(_product_module(intrinsic))
    _tensorize(schedule, intrinsic, packs_weights=True)
    kernel = build_kernel(schedule.mod, target)
    bound = kernel.bind([left, right, np.empty((ROWS, COLUMNS), dtype=intrinsic.accumulator)])
    bound.poison()
    bound.run()
    return bound.outputs()[0]


def _product_module(intrinsic: DotIntrinsic) -> tvm.IRModule:
    left = te.placeholder((ROWS, DEPTH), intrinsic.left, "left")
    right = te.placeholder((DEPTH, COLUMNS), intrinsic.right, "right")
    k = te.reduce_axis((0, DEPTH), "k")
    dtype = intrinsic.accumulator
    product = te.compute(
        (ROWS, COLUMNS),
        lambda i, j: te.sum(left[i, k].astype(dtype) * right[k, j].astype(dtype), axis=k),
        "product",
    )
    func = te.create_prim_func([left, right, product]).with_attr("layout_free_buffers", [1])
    return tvm.IRModule({"main": func})


def _tensorize(schedule: Schedule, intrinsic: DotIntrinsic, *, packs_weights: bool) -> None:
    lanes, group = intrinsic.lanes, intrinsic.group
    block = schedule.get_sblock("product")
    if packs_weights:
        packed = schedule.cache_read(block, 1, "global")
        schedule.transform_layout(
            block, ("read", 1), lambda k, j: (j // lanes, k // group, j % lanes, k % group)
        )
        schedule.annotate(packed, "meta_schedule.layout_rewrite_preproc", True)
    i, j, k = schedule.get_loops(block)
    vector, lane = schedule.split(j, [None, lanes])
    outer, inner = schedule.split(k, [None, group])
    schedule.reorder(vector, outer, i, lane, inner)
    schedule.decompose_reduction(block, outer)
    schedule.tensorize(lane, intrinsic.name)
