"""Workloads with one reduction, brought into the form that register tiling needs.

What can be computed on the way is inlined. Axes that no tile fits are padded: 197 tokens become 198, of which
11 make a tile, and 1000 classes become 1008, which are whole vectors.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import SBlockRV, Schedule
from tvm.tirx import IndexMap, IterVar, Var

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.traces import block_named, block_names, inlined, is_branching, new_schedule

# TVM moves a block with this annotation out of the kernel, to where a model is loaded.
PACKS_WEIGHTS = "meta_schedule.layout_rewrite_preproc"
_COMPARISONS = (tvm.tirx.LE, tvm.tirx.LT, tvm.tirx.GE, tvm.tirx.GT)
_OPERANDS = ("a", "b", "condition", "true_value", "false_value")
# A row of which less fits in a vector is not summed in vectors.
LEAST_LANES = 4
# Rows of the other operand that share one load of a vector.
_GOOD_ROWS = range(4, 15)
_LEAST_ROWS = 17
# Vectors that are not full waste their lanes, padded ones those behind the end; copies take time, too.
_LEAST_GAIN = 0.9


@dataclass(frozen=True, slots=True)
class Contraction:
    """A schedule in which only these blocks are left, by name.

    `paddings`: copies of inputs with a border. `epilogue`: what follows the reduction, None for nothing.
    `pads_weights`: a further block pads weights; it belongs to their packing, when a model is loaded.
    `columns_per_group`: of a grouped convolution. `vector_extent`: of the last axis of the output, as it was
    before it was padded (`pads_vectors`).
    """

    schedule: Schedule
    anchor: str
    paddings: tuple[str, ...]
    epilogue: str | None
    pads_weights: bool = False
    columns_per_group: int | None = None
    pads_vectors: bool = False
    vector_extent: int = 1


def find_contraction(mod: tvm.IRModule, *, vector_lanes: int, group: int = 1) -> Contraction | None:
    """None unless inlining leaves one reduction, with paddings in front and one block behind it at most.

    Args:
        group: where it is not 1, one instruction takes that many steps of the last reduction for a whole
            vector, so both axes are padded if they must be.
    """
    schedule = inlined(new_schedule(mod, seed=1), _is_inlinable)
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, block_named(schedule, name))]
    if len(reductions) != 1:
        return None
    position = names.index(reductions[0])
    before, after = names[:position], names[position + 1 :]
    block = schedule.get(block_named(schedule, reductions[0]))
    spatial = spatial_axes(block)
    if len(after) > 1 or not spatial or len(block.writes) > 1:
        return None
    if _sums_rows(block, schedule.get(block_named(schedule, after[0])) if after else None, vector_lanes):
        return None
    if not _row_axes(block, spatial):
        # A pixel is a vector here, read a few times: a branch each costs less than a padded copy.
        for name in before:
            schedule.compute_inline(block_named(schedule, name))
        before = []
    contraction = Contraction(
        schedule,
        reductions[0],
        tuple(before),
        after[0] if after else None,
        vector_extent=axis_extent(spatial[-1]),
        columns_per_group=_columns_per_group(block, spatial[-1]),
    )
    return contraction if before else _padded(contraction, vector_lanes, group)


def is_reduction(schedule: Schedule, block: SBlockRV) -> bool:
    """Whether a block reduces along some axis."""
    return any(int(axis.iter_type) == IterVar.CommReduce for axis in schedule.get(block).iter_vars)


def reads_weights(schedule: Schedule, block: SBlockRV) -> bool:
    """Whether a block reads a parameter whose layout is free."""
    func = schedule.mod["main"]
    weights = [func.params[int(i)] for i in (func.attrs or {}).get("layout_free_buffers", [])]
    return any(weight.same_as(region.source) for region in schedule.get(block).reads for weight in weights)


def packs_weights(schedule: Schedule) -> bool:
    """Whether a schedule packs weights by itself, so that TVM's layout rewriting has nothing to do."""
    blocks = (schedule.get(block_named(schedule, name)) for name in block_names(schedule))
    return any(PACKS_WEIGHTS in (block.annotations or {}) for block in blocks)


def batch_axes(block: SBlock) -> list[IterVar]:
    """Axes of the output that are an index of every operand: nothing is shared between their steps."""
    operands = [[extent.min for extent in region.region] for region in block.reads]
    return [
        axis
        for axis in spatial_axes(block)[:-1]
        if all(any(axis.var.same_as(index) for index in operand) for operand in operands)
    ]


def spatial_axes(block: SBlock) -> list[IterVar]:
    """Axes of the output longer than 1."""
    return [
        axis for axis in block.iter_vars if int(axis.iter_type) == IterVar.DataPar and axis_extent(axis) > 1
    ]


def axis_extent(axis: IterVar) -> int:
    extent = axis.dom.extent
    return int(extent.value) if isinstance(extent, tvm.tirx.IntImm) else math.inf  # type: ignore[return-value]


def _sums_rows(block: SBlock, epilogue: SBlock | None, vector_lanes: int) -> bool:
    """Whether the elements of a row are summed, and nothing else: then they are neighbours, and rows are not.

    Rows without vectors are none here, unless each of their elements is changed by the sum.
    """
    reduced = [axis for axis in block.iter_vars if int(axis.iter_type) == IterVar.CommReduce]
    operands = [[part.min for part in read.region] for read in block.reads]
    summed = [operand for operand in operands if any(_is_index(axis, operand) for axis in reduced)]
    if not summed:
        return False
    for operand in summed:
        if not any(axis.var.same_as(operand[-1]) for axis in reduced):
            return False
        if not all(_is_index(axis, operand) for axis in spatial_axes(block)):
            return False  # it is shared by several rows
    if epilogue is not None and num_elements(epilogue) > num_elements(block):
        return True
    return fullest_vector(math.prod(map(axis_extent, reduced)), vector_lanes) >= LEAST_LANES


def reads_along(block: SBlock, axis: IterVar) -> bool:
    """Whether the last index of an operand moves with an axis: its steps read neighbours."""
    return any(
        var.same_as(axis.var)
        for read in block.reads
        if read.region
        for var in tvm.tirx.analysis.undefined_vars(read.region[-1].min)
    )


def part_starts(block: SBlock) -> list[int]:
    """What the index along a block's last axis is compared with: where parts begin that do not begin at 0."""
    last = block.iter_vars[-1].var
    comparisons = [one for one in _expressions(block.body.value) if isinstance(one, _COMPARISONS)]
    return [
        int(limit)
        for one in comparisons
        for index, limit in ((one.a, one.b), (one.b, one.a))
        if index.same_as(last) and isinstance(limit, tvm.tirx.IntImm)
    ]


def _expressions(expression: Any) -> Iterator[Any]:
    """An expression and all that it is made of, but for indices."""
    yield expression
    operands = [getattr(expression, name) for name in _OPERANDS if hasattr(expression, name)]
    for operand in itertools.chain(operands, getattr(expression, "args", ())):
        yield from _expressions(operand)


def _is_index(axis: IterVar, operand: Sequence[Any]) -> bool:
    return any(axis.var.same_as(index) for index in operand)


def num_elements(block: SBlock) -> int:
    """How many elements a block computes."""
    return math.prod(axis_extent(axis) for axis in spatial_axes(block))


def _is_inlinable(schedule: Schedule, block: SBlockRV) -> bool:
    """The branch of a border would be taken again for each use."""
    return not is_reduction(schedule, block) and not is_branching(schedule, block)


def _padded(contraction: Contraction, vector_lanes: int, group: int) -> Contraction:
    """The same with awkward axes padded; unchanged where none is, or where an index is not an axis alone."""
    schedule = contraction.schedule.copy()
    anchor = block_named(schedule, contraction.anchor)
    multiples = _multiples(schedule.get(anchor), vector_lanes, group)
    if set(multiples) == {1}:
        return contraction
    try:
        schedule.pad_einsum(anchor, multiples)
    except RuntimeError:  # ScheduleError: a convolution's window
        return contraction
    names = block_names(schedule)
    position = names.index(contraction.anchor)
    crop, *others = names[position + 1 :]
    if others:
        schedule.compute_inline(block_named(schedule, crop))
    pads_weights = [name for name in names[:position] if reads_weights(schedule, block_named(schedule, name))]
    if group == 1:
        for name in pads_weights:
            _pack_vectors(schedule, anchor, block_named(schedule, name), vector_lanes)
    return replace(
        contraction,
        schedule=schedule,
        paddings=tuple(name for name in names[:position] if name not in pads_weights),
        epilogue=others[0] if others else crop,
        pads_weights=bool(pads_weights),
        pads_vectors=axis_extent(spatial_axes(schedule.get(anchor))[-1]) != contraction.vector_extent,
    )


def _pack_vectors(schedule: Schedule, anchor: SBlockRV, padding: SBlockRV, vector_lanes: int) -> None:
    """Weights are padded and packed in one, when a model is loaded: columns / lanes, rows, lanes.

    TVM's own layout rewriting would pack them before they are padded, and leave the padding in the kernel.
    """
    written = schedule.get(padding).writes[0].source
    reads = schedule.get(anchor).reads
    number = next(i for i, region in enumerate(reads) if region.source.same_as(written))
    index_map = IndexMap.from_func(
        lambda *index: (index[-1] // vector_lanes, *index[:-1], index[-1] % vector_lanes),
        ndim=len(reads[number].region),
        index_dtype=str(schedule.get(anchor).iter_vars[0].var.ty.dtype),
    )
    schedule.transform_layout(anchor, ("read", number), index_map)
    schedule.annotate(padding, PACKS_WEIGHTS, True)


def _multiples(block: SBlock, vector_lanes: int, group: int) -> list[int]:
    """What each axis of a block should be padded to a multiple of."""
    spatial = spatial_axes(block)
    last, rows = spatial[-1], _row_axes(block, spatial)
    wanted = {}
    fullest = fullest_vector(axis_extent(last), vector_lanes)
    filled = axis_extent(last) / (math.ceil(axis_extent(last) / vector_lanes) * vector_lanes)
    least = _LEAST_GAIN * filled if group == 1 else 1.0
    if fullest / vector_lanes < least:
        wanted[last.var] = vector_lanes
    if group > 1 and axis_extent(block.iter_vars[-1]) % group:
        wanted[block.iter_vars[-1].var] = group
    if (
        rows
        and not any(is_tileable(axis_extent(axis)) for axis in rows)
        and axis_extent(rows[-1]) >= _LEAST_ROWS
    ):
        wanted[rows[-1].var] = min(_GOOD_ROWS, key=lambda n: (-axis_extent(rows[-1]) % n, -n))
    return [wanted.get(axis.var, 1) for axis in block.iter_vars]


def _row_axes(block: SBlock, spatial: list[IterVar]) -> list[IterVar]:
    """Axes of the output that the operand with the vector axis lacks: one load serves all of their rows."""
    last = spatial[-1].var
    vector_operands = [
        region for region in block.reads if any(_is_direct(extent.min, last) for extent in region.region)
    ]
    shared = [var for region in vector_operands for var in _variables(region)]
    return [axis for axis in spatial[:-1] if not any(var.same_as(axis.var) for var in shared)]


def _is_direct(expression: Any, var: Var) -> bool:
    """Whether an index moves with every step of an axis; that of a group moves with some only."""
    if isinstance(expression, tvm.tirx.FloorDiv):
        return False
    operands = [getattr(expression, name) for name in ("a", "b") if hasattr(expression, name)]
    return any(_is_direct(operand, var) for operand in operands) or var.same_as(expression)


def _columns_per_group(block: SBlock, last: IterVar) -> int | None:
    """What a block divides its last axis by to find the group of a column."""
    indices = [extent.min for region in block.reads for extent in region.region]
    divisors = {size for index in indices for size in _divisors(index, last.var)}
    return min(divisors) if divisors else None


def _divisors(expression: Any, var: Var) -> Iterator[int]:
    if isinstance(expression, tvm.tirx.FloorDiv) and expression.a.same_as(var):
        yield int(expression.b)
    for name in ("a", "b"):
        if hasattr(expression, name):
            yield from _divisors(getattr(expression, name), var)


def _variables(region: object) -> list[Var]:
    return [
        var
        for extent in region.region  # type: ignore[attr-defined]
        for var in tvm.tirx.analysis.undefined_vars(extent.min)
    ]


def is_tileable(extent: int) -> bool:
    """Whether an axis of rows has a good tile, so that it needs no padding."""
    return any(extent % n == 0 for n in _GOOD_ROWS)
