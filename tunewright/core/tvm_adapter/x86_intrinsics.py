"""Tensor intrinsics for low precision on x86: int8 with VNNI, bfloat16 with and without its own instruction.

Each one updates a vector of 32-bit accumulators by a group of adjacent products: of four bytes for
`vpdpbusd`, of two bfloat16 for `vdpbf16ps`. The left operand is one group, the same for all lanes; the right
operand holds one group per lane, side by side. So a kernel needs its weights packed as
(columns / lanes, ..., depth / group, lanes, group).

`vpdpbusd` multiplies unsigned by signed bytes. A signed left operand becomes unsigned by adding 128, which
adds 128 times the sum of a column of weights to that column's results: a term of the weights alone.

`vdpbf16ps` may be slower than float32 multiply-adds: on an Emerald Rapids core it starts every 2.2 cycles
(87 GFLOP/s), they twice in one (177). So there is also a pair of those that widens bfloat16 weights in
registers, for left operands that are float32 already: because they are so in the model, or because the
schedule has widened a copy of them.

TVM's own VNNI intrinsic is not used: it passes operands of the types that LLVM expected before version 22,
and reads its right operand as contiguous wherever that lies.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from tvm.ir import Expr
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.target.codegen import llvm_get_cpu_features
from tvm.tirx import Buffer, PrimFunc

from tunewright.core.tvm_adapter.target import tvm_target
from tunewright.core.types import TargetSpec

# TVM widens every bfloat16 operand of a call to float32 before it generates code, and its code generator has
# no bfloat16 vectors. So pairs travel as 32-bit integers into a function of our own, which LLVM inlines.
_DPBF16 = "tunewright_dpbf16ps"
_DPBF16_INSTRUCTION = "llvm.x86.avx512bf16.dpbf16ps.512"
_DPBF16_IR = f"""
declare <16 x float> @{_DPBF16_INSTRUCTION}(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define <16 x float> @{_DPBF16}(<16 x float> %sums, <16 x i32> %left, <16 x i32> %right) {{
  %l = bitcast <16 x i32> %left to <32 x bfloat>
  %r = bitcast <16 x i32> %right to <32 x bfloat>
  %new = call <16 x float> @{_DPBF16_INSTRUCTION}(<16 x float> %sums, <32 x bfloat> %l, <32 x bfloat> %r)
  ret <16 x float> %new
}}
"""


@dataclass(frozen=True, slots=True)
class DotIntrinsic:
    """One instruction: `lanes` accumulators, each plus a dot product of `group` elements.

    `name` is what a schedule's `tensorize` takes. A CPU has the instruction if it has all features, as LLVM
    names them, of one of the sets in `features`. `left` and `right` are the operands' types in memory,
    `computed_left` the left one's in the computation: where these two differ, the schedule widens.
    """

    name: str
    lanes: int
    group: int
    left: str
    right: str
    accumulator: str
    features: tuple[frozenset[str], ...]
    widens: bool = False

    @property
    def computed_left(self) -> str:
        return self.right if self.widens else self.left


DOT_U8S8_16X4 = DotIntrinsic(
    name="tunewright.x86.dot_u8s8s32_16x4",
    lanes=16,
    group=4,
    left="uint8",
    right="int8",
    accumulator="int32",
    features=(frozenset({"avx512f", "avx512vnni"}),),
)
DOT_U8S8_8X4 = DotIntrinsic(
    name="tunewright.x86.dot_u8s8s32_8x4",
    lanes=8,
    group=4,
    left="uint8",
    right="int8",
    accumulator="int32",
    features=(frozenset({"avxvnni"}), frozenset({"avx512vl", "avx512vnni"})),
)
DOT_BF16_16X2 = DotIntrinsic(
    name="tunewright.x86.dot_bf16bf16f32_16x2",
    lanes=16,
    group=2,
    left="bfloat16",
    right="bfloat16",
    accumulator="float32",
    features=(frozenset({"avx512f", "avx512bf16"}),),
)
DOT_F32_BF16_16X2 = DotIntrinsic(
    name="tunewright.x86.dot_f32bf16f32_16x2",
    lanes=16,
    group=2,
    left="float32",
    right="bfloat16",
    accumulator="float32",
    features=(frozenset({"avx512f"}),),
)
DOT_F32_BF16_8X2 = DotIntrinsic(
    name="tunewright.x86.dot_f32bf16f32_8x2",
    lanes=8,
    group=2,
    left="float32",
    right="bfloat16",
    accumulator="float32",
    features=(frozenset({"avx2", "fma"}),),
)
DOT_WIDENED_BF16_16X2 = replace(
    DOT_F32_BF16_16X2, name="tunewright.x86.dot_widened_bf16bf16f32_16x2", widens=True
)
DOT_WIDENED_BF16_8X2 = replace(
    DOT_F32_BF16_8X2, name="tunewright.x86.dot_widened_bf16bf16f32_8x2", widens=True
)
DOT_INTRINSICS = (
    DOT_U8S8_16X4,
    DOT_U8S8_8X4,
    DOT_BF16_16X2,
    DOT_F32_BF16_16X2,
    DOT_F32_BF16_8X2,
    DOT_WIDENED_BF16_16X2,
    DOT_WIDENED_BF16_8X2,
)


def supported_intrinsics(target: TargetSpec) -> tuple[DotIntrinsic, ...]:
    """The intrinsics that code for this target may use, of each kind the one with the most lanes first."""
    available = {str(name) for name in llvm_get_cpu_features(tvm_target(target))}
    return tuple(
        intrinsic
        for intrinsic in DOT_INTRINSICS
        if any(features <= available for features in intrinsic.features)
    )


@cache
def register_intrinsics() -> None:
    """Make the intrinsics known to TVM, once: wherever a schedule that uses them is made or replayed."""
    for intrinsic in DOT_INTRINSICS:
        TensorIntrin.register(
            intrinsic.name, _dot_block(intrinsic), _implementation(intrinsic), override=True
        )


def _implementation(intrinsic: DotIntrinsic) -> PrimFunc:
    match intrinsic.left:
        case "uint8":
            return _dpbusd_block(intrinsic.lanes)
        case "bfloat16":
            return _dpbf16_block()
        case _:
            return _widening_block(intrinsic.lanes)


def _dot_block(intrinsic: DotIntrinsic) -> PrimFunc:
    """The computation that `tensorize` looks for: loops over lanes and group, innermost."""
    lanes, group, dtype = intrinsic.lanes, intrinsic.group, intrinsic.accumulator

    def update(left: Buffer, right: Buffer, sums: Buffer) -> None:
        with T.grid(lanes, group) as (i, k), T.sblock("update"):
            vi, vk = T.axis.remap("SR", [i, k])
            factor, weight = (
                left[vk].astype(intrinsic.computed_left).astype(dtype),
                right[vi, vk].astype(dtype),
            )
            T.buffer_store(sums, sums[vi] + factor * weight, [vi])

    return _function("dot", (intrinsic.left, intrinsic.right, dtype), lanes, group, update)


def _dpbusd_block(lanes: int) -> PrimFunc:
    sums_type, left_type, right_type = f"int32x{lanes}", f"uint8x{4 * lanes}", f"int8x{4 * lanes}"
    instruction = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"  # also what LLVM calls AVX-VNNI's

    def update(left: Buffer, right: Buffer, sums: Buffer) -> None:
        group = T.reinterpret("int32", left.vload([0], "uint8x4"))
        new_sums = T.call_llvm_pure_intrin(
            sums_type,
            T.llvm_lookup_intrinsic_id(instruction),
            sums.vload([0], sums_type),
            T.reinterpret(left_type, T.broadcast(group, lanes)),
            right.vload([0, 0], right_type),
        )
        T.buffer_store(sums, new_sums, [T.ramp(0, 1, lanes)])

    return _function("dpbusd", ("uint8", "int8", "int32"), lanes, 4, update)


def _dpbf16_block() -> PrimFunc:
    def update(left: Buffer, right: Buffer, sums: Buffer) -> None:
        with T.attr(0, "pragma_import_llvm", _DPBF16_IR):
            pair = T.reinterpret("int32", left.vload([0], "bfloat16x2"))
            new_sums = T.call_pure_extern(
                "float32x16",
                _DPBF16,
                sums.vload([0], "float32x16"),
                T.broadcast(pair, 16),
                T.reinterpret("int32x16", right.vload([0, 0], "bfloat16x32")),
            )
            T.buffer_store(sums, new_sums, [T.ramp(0, 1, 16)])

    return _function("dpbf16ps", ("bfloat16", "bfloat16", "float32"), 16, 2, update)


def _widening_block(lanes: int) -> PrimFunc:
    """bfloat16 is the upper half of float32: a shift widens the first of a pair, a mask the second."""
    sums_type, pairs_type, right_type = f"float32x{lanes}", f"int32x{lanes}", f"bfloat16x{2 * lanes}"

    def multiply_add(factor: Expr, weights: Expr, addend: Expr) -> Expr:
        fma = T.llvm_lookup_intrinsic_id("llvm.fma")
        return T.call_llvm_pure_intrin(sums_type, fma, T.broadcast(factor, lanes), weights, addend)

    def update(left: Buffer, right: Buffer, sums: Buffer) -> None:
        pairs = T.reinterpret(pairs_type, right.vload([0, 0], right_type))
        first = T.reinterpret(sums_type, T.shift_left(pairs, T.broadcast(T.int32(16), lanes)))
        second = T.reinterpret(sums_type, T.bitwise_and(pairs, T.broadcast(T.int32(-65536), lanes)))
        new_sums = multiply_add(left[1], second, multiply_add(left[0], first, sums.vload([0], sums_type)))
        T.buffer_store(sums, new_sums, [T.ramp(0, 1, lanes)])

    return _function("widening", ("float32", "bfloat16", "float32"), lanes, 2, update)


def _function(
    name: str,
    dtypes: tuple[str, str, str],
    lanes: int,
    group: int,
    update: Callable[[Buffer, Buffer, Buffer], None],
) -> PrimFunc:
    """A function of left and right operand and accumulators, one block of which is the body.

    Built, not written as TVMScript: parsing that took 0.3 s of every start of the workers. The strides of the
    right operand are given, so that TVM refuses a tile that is not contiguous.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        left = T.arg("left", T.Buffer((group,), dtypes[0], offset_factor=1))
        right = T.arg("right", T.Buffer((lanes, group), dtypes[1], offset_factor=1, strides=[group, 1]))
        sums = T.arg("sums", T.Buffer((lanes,), dtypes[2], offset_factor=1))
        with T.sblock("root"):
            T.reads(sums[0:lanes], left[0:group], right[0:lanes, 0:group])
            T.writes(sums[0:lanes])
            update(left, right, sums)
    return builder.get()


__all__ = [
    "DOT_BF16_16X2",
    "DOT_F32_BF16_8X2",
    "DOT_F32_BF16_16X2",
    "DOT_INTRINSICS",
    "DOT_U8S8_8X4",
    "DOT_U8S8_16X4",
    "DOT_WIDENED_BF16_8X2",
    "DOT_WIDENED_BF16_16X2",
    "DotIntrinsic",
    "register_intrinsics",
    "supported_intrinsics",
]
