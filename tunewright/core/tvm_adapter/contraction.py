"""Workloads with one reduction, brought into the form that register tiling needs.

What can be computed on the way is inlined. Axes that no tile fits are padded: 197 tokens become 198, of which
11 make a tile, and 1000 classes become 1008, which are whole vectors.
"""

import math
from dataclasses import dataclass

import tvm
from tvm.s_tir import SBlock
from tvm.s_tir.schedule import SBlockRV, Schedule
from tvm.tirx import IterVar, Var

from tunewright.core.tvm_adapter.traces import block_names, new_schedule

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
    `vector_extent`: of the last axis of the output, as it was before it was padded (`pads_vectors`).
    """

    schedule: Schedule
    anchor: str
    paddings: tuple[str, ...]
    epilogue: str | None
    pads_weights: bool = False
    pads_vectors: bool = False
    vector_extent: int = 1


def find_contraction(mod: tvm.IRModule, *, vector_lanes: int) -> Contraction | None:
    """None unless inlining leaves one reduction, with paddings in front and one block behind it at most."""
    schedule = _inlined(new_schedule(mod, seed=1))
    names = block_names(schedule)
    reductions = [name for name in names if is_reduction(schedule, _block(schedule, name))]
    if len(reductions) != 1:
        return None
    position = names.index(reductions[0])
    before, after = names[:position], names[position + 1 :]
    spatial = _spatial(schedule.get(_block(schedule, reductions[0])))
    if len(after) > 1 or not spatial:
        return None
    contraction = Contraction(
        schedule,
        reductions[0],
        tuple(before),
        after[0] if after else None,
        vector_extent=_extent(spatial[-1]),
    )
    return contraction if before else _padded(contraction, vector_lanes)


def is_reduction(schedule: Schedule, block: SBlockRV) -> bool:
    """Whether a block reduces along some axis."""
    return any(int(axis.iter_type) == IterVar.CommReduce for axis in schedule.get(block).iter_vars)


def _inlined(schedule: Schedule) -> Schedule:
    for name in block_names(schedule):
        attempt = schedule.copy()
        block = _block(attempt, name)
        # A border's branch would be taken again for each use.
        if is_reduction(attempt, block) or "if_then_else" in str(attempt.get(block).body):
            continue
        try:
            attempt.compute_inline(block)
        except RuntimeError:  # ScheduleError: it writes an output, or is read in a way that forbids it
            continue
        schedule = attempt
    return schedule


def _padded(contraction: Contraction, vector_lanes: int) -> Contraction:
    """The same with awkward axes padded; unchanged where none is, or where an index is not an axis alone."""
    schedule = contraction.schedule.copy()
    anchor = _block(schedule, contraction.anchor)
    multiples = _multiples(schedule.get(anchor), vector_lanes)
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
        schedule.compute_inline(_block(schedule, crop))
    weights = _layout_free(schedule)
    pads_weights = [name for name in names[:position] if _reads(schedule, name, weights)]
    return Contraction(
        schedule,
        contraction.anchor,
        tuple(name for name in names[:position] if name not in pads_weights),
        others[0] if others else crop,
        pads_weights=bool(pads_weights),
        pads_vectors=_extent(_spatial(schedule.get(anchor))[-1]) != contraction.vector_extent,
        vector_extent=contraction.vector_extent,
    )


def _multiples(block: SBlock, vector_lanes: int) -> list[int]:
    """What each axis of a block should be padded to a multiple of."""
    spatial = _spatial(block)
    last, rows = spatial[-1], _row_axes(block, spatial)
    wanted = {}
    fullest = max(n for n in range(1, vector_lanes + 1) if _extent(last) % n == 0)
    filled = _extent(last) / (math.ceil(_extent(last) / vector_lanes) * vector_lanes)
    if fullest / vector_lanes < _LEAST_GAIN * filled:
        wanted[last.var] = vector_lanes
    if rows and not any(_is_tileable(_extent(axis)) for axis in rows) and _extent(rows[-1]) >= _LEAST_ROWS:
        wanted[rows[-1].var] = min(_GOOD_ROWS, key=lambda n: (-_extent(rows[-1]) % n, -n))
    return [wanted.get(axis.var, 1) for axis in block.iter_vars]


def _row_axes(block: SBlock, spatial: list[IterVar]) -> list[IterVar]:
    """Axes of the output that the operand with the vector axis lacks: one load serves all of their rows."""
    uses = [_variables(region) for region in block.reads]
    vector_operands = [used for used in uses if any(var.same_as(spatial[-1].var) for var in used)]
    shared = [var for used in vector_operands for var in used]
    return [axis for axis in spatial[:-1] if not any(var.same_as(axis.var) for var in shared)]


def _variables(region: object) -> list[Var]:
    return [
        var
        for extent in region.region  # type: ignore[attr-defined]
        for var in tvm.tirx.analysis.undefined_vars(extent.min)
    ]


def _is_tileable(extent: int) -> bool:
    return any(extent % n == 0 for n in _GOOD_ROWS)


def _spatial(block: SBlock) -> list[IterVar]:
    """Axes of the output longer than 1."""
    return [axis for axis in block.iter_vars if int(axis.iter_type) == IterVar.DataPar and _extent(axis) > 1]


def _extent(axis: IterVar) -> int:
    extent = axis.dom.extent
    return int(extent.value) if isinstance(extent, tvm.tirx.IntImm) else math.inf  # type: ignore[return-value]


def _layout_free(schedule: Schedule) -> list[object]:
    func = schedule.mod["main"]
    return [func.params[int(i)] for i in (func.attrs or {}).get("layout_free_buffers", [])]


def _reads(schedule: Schedule, name: str, params: list[object]) -> bool:
    reads = schedule.get(_block(schedule, name)).reads
    return any(param.same_as(region.source) for region in reads for param in params)  # type: ignore[attr-defined]


def _block(schedule: Schedule, name: str) -> SBlockRV:
    return schedule.get_sblock(name, func_name="main")
