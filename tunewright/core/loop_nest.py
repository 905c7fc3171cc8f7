"""What a sketch's tiles become: one nest of loops, of which some run in parallel, as vectors, or unrolled.

Read from the trace alone, no TVM. TVM's rule splits every spatial loop (S) in four and every reduction (R) in
two, and orders the levels SSRSRS: all outermost spatial factors, all second ones, all outer reductions, and
so on. The innermost spatial levels are the tile that should stay in registers; in our own rules
(`register_tiling`, `dot_tiling`) they surely do, as they are unrolled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.core.tile_rules import REDUCTION_LEVELS

_UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class LoopNest:
    """The loops of a sketch's tiled block, outermost first.

    `columns`: where the factor of each loop stands in the flattened decisions. At most the first
    `num_parallel` of them run in parallel, fewer where a product exceeds `max_jobs`. The last `num_inner` are
    spatial. `unroll`: column of the choice among `unroll_steps`, None where there is none. `locations`:
    columns of the blocks that may be computed elsewhere. `is_unrolled`: the inner loops surely are.
    `lanes`: extent of the innermost loop of all, where that is an instruction's and no decision.
    `num_results`: accumulators for each element of the tile. `tiles`: columns of each tile.
    """

    columns: tuple[int, ...]
    num_parallel: int
    num_inner: int
    max_jobs: int
    unroll: int | None
    unroll_steps: tuple[int, ...]
    locations: tuple[int, ...]
    is_unrolled: bool = False
    lanes: int | None = None
    num_results: int = 1
    tiles: tuple[slice, ...] = ()

    def has_same_loops(self, other: "LoopNest") -> bool:
        """Whether a tiling of one means the same in the other; their other decisions may differ."""
        return (self.columns, self.num_parallel, self.num_inner, self.lanes) == (
            other.columns,
            other.num_parallel,
            other.num_inner,
            other.lanes,
        )


def read_nest(instructions: Sequence[Sequence[Any]], columns: Mapping[int, slice]) -> LoopNest | None:
    """The nest of a sketch; None where no block is tiled.

    Args:
        instructions: of the trace, without its postprocessing.
        columns: of each instruction that samples, the slice of its decision in the flattened decisions.
    """
    factors: dict[str, tuple[int, bool]] = {}  # variable -> column, is of a reduction
    loops: dict[str, tuple[int, bool]] = {}
    fixed: dict[str, int] = {}  # loop -> extent
    tiles: list[slice] = []
    order: list[str] = []
    lanes, num_results = None, 1
    num_parallel = math.inf
    fused: dict[str, int] = {}
    is_unrolled = False
    max_jobs, unroll, unroll_steps = 1, None, (0,)
    locations: list[int] = []
    for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
        if kind == "SamplePerfectTile":
            is_reduction = attributes[0] == REDUCTION_LEVELS
            start = columns[index].start
            tiles.append(columns[index])
            factors |= {name: (start + level, is_reduction) for level, name in enumerate(outputs)}
        elif kind == "Split" and all(name in factors for name in inputs[1:]):
            loops |= {loop: factors[name] for loop, name in zip(outputs, inputs[1:], strict=True)}
        elif kind == "Split" and inputs[1] == 1 and isinstance(inputs[-1], int):
            num_results = inputs[-1]  # of our own rule: an axis that stays in the tile as a whole
        elif kind == "Split" and isinstance(inputs[-1], int):
            fixed[outputs[-1]] = inputs[-1]
        elif kind == "Reorder" and not order and all(loop in loops or loop in fixed for loop in inputs):
            order = [loop for loop in inputs if loop in loops]
            lanes = next((fixed[loop] for loop in inputs if loop in fixed), None)
        elif kind == "Fuse":
            fused[outputs[0]] = sum(loop in loops for loop in inputs)
        elif kind == "Parallel" and not is_unrolled and order:
            # Our own rule says what runs in parallel; TVM's leaves it to postprocessing.
            num_parallel, max_jobs, is_unrolled = fused.get(inputs[0], 1), _UNLIMITED, True
        elif kind == "ReverseComputeAt" and inputs[1] in order and not is_unrolled:
            num_parallel = min(num_parallel, order.index(inputs[1]) + 1)
        elif kind == "Annotate" and attributes == ["meta_schedule.parallel"]:
            max_jobs = inputs[1]
        elif kind == "SampleCategorical":
            unroll, unroll_steps = columns[index].start, tuple(attributes[0])
        elif kind == "SampleComputeLocation":
            locations.append(columns[index].start)
    if not order:
        return None
    reductions = [position for position, loop in enumerate(order) if loops[loop][1]]
    first, last = (reductions[0], reductions[-1]) if reductions else (len(order), -1)
    return LoopNest(
        columns=tuple(loops[loop][0] for loop in order),
        num_parallel=int(min(num_parallel, first)),
        num_inner=len(order) - 1 - last,
        max_jobs=max_jobs,
        unroll=unroll,
        unroll_steps=unroll_steps,
        locations=tuple(locations),
        is_unrolled=is_unrolled,
        lanes=lanes,
        num_results=num_results,
        tiles=tuple(tiles),
    )
