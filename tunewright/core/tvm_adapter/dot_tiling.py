"""Design space of contractions in low precision: register tiling around dot-product instructions.

An instruction adds to each lane of a vector the products of a group of adjacent steps of the last reduction.
Its weights are packed as (columns / lanes, ..., depth / group, lanes, group) when a model is loaded; a right
operand that is computed is packed inside the kernel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import SBlockRV, Schedule, Trace
from tvm.tirx import IndexMap, IterVar

from tunewright.core.tvm_adapter.contraction import (
    PACKS_WEIGHTS,
    Contraction,
    find_contraction,
    reads_weights,
)
from tunewright.core.tvm_adapter.gated_tiling import gated_tiling_sketches
from tunewright.core.tvm_adapter.register_tiling import register_tiling_sketches, tile, when_to_pad
from tunewright.core.tvm_adapter.target import vector_lanes
from tunewright.core.tvm_adapter.traces import block_named
from tunewright.core.tvm_adapter.winograd_tiling import winograd_tiling_sketches
from tunewright.core.tvm_adapter.x86_intrinsics import (
    DOT_INTRINSICS,
    DotIntrinsic,
    register_intrinsics,
    supported_intrinsics,
)
from tunewright.core.types import TargetSpec


def own_sketches(mod: tvm.IRModule, target: TargetSpec) -> list[Trace]:
    """The sketches of our own rules: around an instruction where one fits, else of plain register tiling."""
    lanes = vector_lanes(target)
    return (
        dot_tiling_sketches(mod, target)
        or winograd_tiling_sketches(mod, vector_lanes=lanes, num_threads=target.num_threads)
        or gated_tiling_sketches(mod, vector_lanes=lanes)
        or register_tiling_sketches(mod, vector_lanes=lanes)
    )


def dot_tiling_sketches(mod: tvm.IRModule, target: TargetSpec) -> list[Trace]:
    """Sketches for a workload with one reduction that some instruction of the target computes; else none.

    Of instructions that differ in their lanes alone, the first whose vectors are full is taken.
    """
    sketches: dict[tuple[str, str], list[Trace]] = {}
    for intrinsic in _fullest_first(mod, target):
        kind = (intrinsic.left, intrinsic.computed_left)
        if not sketches.get(kind):
            sketches[kind] = _sketches(mod, intrinsic)
    return [sketch for found in sketches.values() for sketch in found]


def fixed_lanes(sketch: Trace) -> int | None:
    """The lanes of the instruction that a sketch uses; None for one that uses none."""
    names = [
        str(instruction.attrs[0]) for instruction in sketch.insts if instruction.kind.name == "Tensorize"
    ]
    return next((dot.lanes for dot in DOT_INTRINSICS if dot.name in names), None)


def _fullest_first(mod: tvm.IRModule, target: TargetSpec) -> list[DotIntrinsic]:
    """Instructions of the operands' types, first those whose lanes divide the last axis of the output."""
    intrinsics = supported_intrinsics(target)
    rights = {intrinsic.right for intrinsic in intrinsics}
    if not any(str(param.ty.dtype) in rights for param in mod["main"].params):
        return []
    contraction = find_contraction(mod, vector_lanes=1)
    if contraction is None:
        return []
    block = contraction.schedule.get(block_named(contraction.schedule, contraction.anchor))
    types = {str(region.source.ty.dtype) for region in block.reads}
    fitting = [intrinsic for intrinsic in intrinsics if types == {intrinsic.computed_left, intrinsic.right}]
    return sorted(fitting, key=lambda intrinsic: contraction.vector_extent % intrinsic.lanes != 0)


def _sketches(mod: tvm.IRModule, intrinsic: DotIntrinsic) -> list[Trace]:
    register_intrinsics()
    contraction = find_contraction(mod, vector_lanes=intrinsic.lanes, group=intrinsic.group)
    try:
        contraction = contraction and _prepared(contraction, intrinsic)
    except RuntimeError:  # ScheduleError: a block of another form
        return []
    if contraction is None:
        return []
    sketches = []
    for pads_early in when_to_pad(contraction):
        schedule = contraction.schedule.copy()
        try:
            if tile(schedule, contraction, intrinsic.lanes, pads_early=pads_early, dot=intrinsic):
                sketches.append(schedule.trace.simplified(True))
        except RuntimeError:  # ScheduleError: the body, the epilogue or the padding is of another form
            continue
    return sketches


@dataclass(frozen=True, slots=True)
class _Operands:
    """Where the reads of a block stand: the left one, the same for all lanes, and the right one.

    `lane_axis`, `depth_axis`: of the right operand, the axes that the lanes and the last reduction index.
    """

    left: int
    right: int
    lane_axis: int
    depth_axis: int


def _prepared(contraction: Contraction, intrinsic: DotIntrinsic) -> Contraction | None:
    """The operands as the instruction takes them; None where they cannot be."""
    schedule = contraction.schedule.copy()
    anchor = block_named(schedule, contraction.anchor)
    operands = _operands(schedule.get(anchor), intrinsic)
    if operands is None:
        return None
    copies = list(contraction.paddings)
    packed = _producer(schedule, anchor, operands.right)
    if packed is None:
        packed = schedule.cache_read(anchor, operands.right, "global")
    _pack(schedule, anchor, operands, intrinsic)
    name = _name(schedule, packed)
    is_weight = reads_weights(schedule, packed)
    if is_weight:
        schedule.annotate(packed, PACKS_WEIGHTS, True)
    elif name in copies:
        return None  # an operand that is padded and packed is copied twice: rare, and not worth a rule
    if intrinsic.widens:
        copy = _producer(schedule, anchor, operands.left)
        if copy is None:
            copy = schedule.cache_read(anchor, operands.left, "global")
            copies.append(_name(schedule, copy))
        schedule.unsafe_set_dtype(copy, 0, intrinsic.left)
    # TVM computes in float32 what a kernel keeps in bfloat16 between its stages.
    if (intrinsic.right == "bfloat16" and not is_weight) or (intrinsic.left == "bfloat16" and copies):
        return None
    if not is_weight:
        schedule.parallel(schedule.get_loops(packed)[0])
    epilogue = contraction.epilogue
    if epilogue is None:
        epilogue = _name(schedule, schedule.cache_write(anchor, 0, "global"))
    return replace(contraction, schedule=schedule, paddings=tuple(copies), epilogue=epilogue)


def _pack(schedule: Schedule, anchor: SBlockRV, operands: _Operands, intrinsic: DotIntrinsic) -> None:
    lanes, group = intrinsic.lanes, intrinsic.group
    block = schedule.get(anchor)
    num_axes = len(block.reads[operands.right].region)

    def packing(*index: tvm.tirx.Var) -> tuple[tvm.tirx.Expr, ...]:
        lane, depth = index[operands.lane_axis], index[operands.depth_axis]
        others = [i for axis, i in enumerate(index) if axis not in (operands.lane_axis, operands.depth_axis)]
        return lane // lanes, *others, depth // group, lane % lanes, depth % group

    index_map = IndexMap.from_func(packing, ndim=num_axes, index_dtype=str(block.iter_vars[0].var.ty.dtype))
    schedule.transform_layout(anchor, ("read", operands.right), index_map)


def _operands(block: SBlock, intrinsic: DotIntrinsic) -> _Operands | None:
    """None where types, or what the axes index, or their extents do not fit the instruction."""
    spatial = [a for a in block.iter_vars if int(a.iter_type) == IterVar.DataPar and int(a.dom.extent) > 1]
    depth = block.iter_vars[-1]
    if not spatial or int(depth.iter_type) != IterVar.CommReduce or len(block.reads) != 2:
        return None
    lane = spatial[-1]
    if int(lane.dom.extent) % intrinsic.lanes or int(depth.dom.extent) % intrinsic.group:
        return None
    uses = [list(_axes(region, lane)) for region in block.reads]
    right = next((number for number, axes in enumerate(uses) if axes), None)
    if right is None or len(uses[right]) != 1 or uses[1 - right]:
        return None
    left = 1 - right
    last = len(block.reads[left].region) - 1
    depth_axes = list(_axes(block.reads[right], depth))
    types = [str(block.reads[number].source.ty.dtype) for number in (left, right)]
    is_lane = block.reads[right].region[uses[right][0]].min.same_as(lane.var)
    if (
        types != [intrinsic.computed_left, intrinsic.right]
        or str(block.writes[0].source.ty.dtype) != intrinsic.accumulator
        or list(_axes(block.reads[left], depth)) != [last]
        or not block.reads[left].region[last].min.same_as(depth.var)
        or len(depth_axes) != 1
        or not block.reads[right].region[depth_axes[0]].min.same_as(depth.var)
        or not is_lane
    ):
        return None
    return _Operands(left, right, uses[right][0], depth_axes[0])


def _axes(region: tvm.tirx.BufferRegion, axis: IterVar) -> Iterator[int]:
    """The axes of a buffer whose index depends on an axis of the block."""
    for number, extent in enumerate(region.region):
        if any(var.same_as(axis.var) for var in tvm.tirx.analysis.undefined_vars(extent.min)):
            yield number


def _producer(schedule: Schedule, anchor: SBlockRV, read: int) -> SBlockRV | None:
    """The block that writes what a block reads; None for a parameter."""
    source = schedule.get(anchor).reads[read].source
    for producer in schedule.get_producers(anchor):
        if schedule.get(producer).writes[0].source.same_as(source):
            return producer
    return None


def _name(schedule: Schedule, block: SBlockRV) -> str:
    return str(schedule.get(block).name_hint)
