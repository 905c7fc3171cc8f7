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

# The annotations in functions under T.prim_func are TVMScript, which is no Python typing.
# mypy: disable-error-code="valid-type, untyped-decorator"

from dataclasses import dataclass, replace
from functools import cache

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T
from tvm.target.codegen import llvm_get_cpu_features
from tvm.tirx import PrimFunc

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


# In all blocks the strides of the right operand are given, so that TVM refuses a tile that is not contiguous.


def _dot_block(intrinsic: DotIntrinsic) -> PrimFunc:
    """The computation that `tensorize` looks for: loops over lanes and group, innermost."""
    lanes, group, dtype = intrinsic.lanes, intrinsic.group, intrinsic.accumulator
    computed_left = intrinsic.computed_left

    @T.prim_func(s_tir=True)
    def dot(
        left: T.Buffer((group,), intrinsic.left, offset_factor=1),
        right: T.Buffer((lanes, group), intrinsic.right, offset_factor=1, strides=[group, 1]),
        sums: T.Buffer((lanes,), dtype, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(sums[0:lanes], left[0:group], right[0:lanes, 0:group])
            T.writes(sums[0:lanes])
            for i in range(lanes):
                for k in range(group):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        sums[vi] = sums[vi] + (
                            left[vk].astype(computed_left).astype(dtype) * right[vi, vk].astype(dtype)
                        )

    return dot


def _dpbusd_block(lanes: int) -> PrimFunc:
    sums_type, left_type, right_type = f"int32x{lanes}", f"uint8x{4 * lanes}", f"int8x{4 * lanes}"
    instruction = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"  # also what LLVM calls AVX-VNNI's

    @T.prim_func(s_tir=True)
    def dpbusd(
        left: T.Buffer((4,), "uint8", offset_factor=1),
        right: T.Buffer((lanes, 4), "int8", offset_factor=1, strides=[4, 1]),
        sums: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(sums[0:lanes], left[0:4], right[0:lanes, 0:4])
            T.writes(sums[0:lanes])
            sums[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                sums_type,
                T.llvm_lookup_intrinsic_id(instruction),
                sums.vload([0], sums_type),
                T.reinterpret(
                    left_type, T.broadcast(T.reinterpret("int32", left.vload([0], "uint8x4")), lanes)
                ),
                right.vload([0, 0], right_type),
            )

    return dpbusd


def _dpbf16_block() -> PrimFunc:
    @T.prim_func(s_tir=True)
    def dpbf16ps(
        left: T.Buffer((2,), "bfloat16", offset_factor=1),
        right: T.Buffer((16, 2), "bfloat16", offset_factor=1, strides=[2, 1]),
        sums: T.Buffer((16,), "float32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(sums[0:16], left[0:2], right[0:16, 0:2])
            T.writes(sums[0:16])
            with T.attr(0, "pragma_import_llvm", _DPBF16_IR):
                sums[T.ramp(0, 1, 16)] = T.call_pure_extern(
                    "float32x16",
                    _DPBF16,
                    sums.vload([0], "float32x16"),
                    T.broadcast(T.reinterpret("int32", left.vload([0], "bfloat16x2")), 16),
                    T.reinterpret("int32x16", right.vload([0, 0], "bfloat16x32")),
                )

    return dpbf16ps


def _widening_block(lanes: int) -> PrimFunc:
    """bfloat16 is the upper half of float32: a shift widens the first of a pair, a mask the second."""
    sums_type, pairs_type, right_type = f"float32x{lanes}", f"int32x{lanes}", f"bfloat16x{2 * lanes}"

    @T.prim_func(s_tir=True)
    def widening(
        left: T.Buffer((2,), "float32", offset_factor=1),
        right: T.Buffer((lanes, 2), "bfloat16", offset_factor=1, strides=[2, 1]),
        sums: T.Buffer((lanes,), "float32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(sums[0:lanes], left[0:2], right[0:lanes, 0:2])
            T.writes(sums[0:lanes])
            sums[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                sums_type,
                T.llvm_lookup_intrinsic_id("llvm.fma"),
                T.broadcast(left[1], lanes),
                T.reinterpret(
                    sums_type,
                    T.bitwise_and(
                        T.reinterpret(pairs_type, right.vload([0, 0], right_type)),
                        T.broadcast(T.int32(-65536), lanes),
                    ),
                ),
                T.call_llvm_pure_intrin(
                    sums_type,
                    T.llvm_lookup_intrinsic_id("llvm.fma"),
                    T.broadcast(left[0], lanes),
                    T.reinterpret(
                        sums_type,
                        T.shift_left(
                            T.reinterpret(pairs_type, right.vload([0, 0], right_type)),
                            T.broadcast(T.int32(16), lanes),
                        ),
                    ),
                    sums.vload([0], sums_type),
                ),
            )

    return widening


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
