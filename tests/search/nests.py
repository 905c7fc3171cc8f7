"""Traces as TVM's multi-level tiling writes them, and a space of them: SSRSRS, no TVM."""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunewright.core.keys import digest
from tunewright.core.types import AppliedCandidate, Candidate, Draft, Origin, TaskKey
from tunewright.search.decisions import DecisionPoint, DecisionSpace

UNROLL_STEPS = (0, 16, 64, 512)
Tiles = Sequence[Sequence[int]]


def ssrsrs(
    spatial: Tiles,
    reduction: Tiles,
    *,
    unroll: int = 0,
    max_jobs: int = 64,
    attach: int | None = None,
    location: int | None = None,
    block: str = "b0",
) -> str:
    """A trace of one tiled block.

    Args:
        unroll: index into UNROLL_STEPS. attach: position of the loop that a consumer is computed at.
        location: where a producer is computed, in a SampleComputeLocation.
    """
    instructions: list[Any] = [["GetSBlock", [], [block, "main"], [block]]]
    decisions: list[Any] = []
    loops: list[list[str]] = []

    def add(instruction: list[Any], value: Any = None) -> None:
        if value is not None:
            decisions.append([len(instructions), value])
        instructions.append(instruction)

    for axis, tile in enumerate([*spatial, *reduction]):
        factors = [f"v{axis}_{level}" for level in range(len(tile))]
        loops.append([f"l{axis}_{level}" for level in range(len(tile))])
        add(["SamplePerfectTile", [f"l{axis}"], [len(tile), 64], factors], list(tile))
        add(["Split", [f"l{axis}", *factors], [True, False], loops[-1]])
    s, r = loops[: len(spatial)], loops[len(spatial) :]
    order = [
        loop[level] for group, level in ((s, 0), (s, 1), (r, 0), (s, 2), (r, 1), (s, 3)) for loop in group
    ]
    add(["Reorder", order, [], []])
    if attach is not None:
        add(["ReverseComputeAt", ["b1", order[attach]], [1, -1], []])
    add(["Annotate", ["root", max_jobs], ["meta_schedule.parallel"], []])
    add(["SampleCategorical", [], [list(UNROLL_STEPS), [0.25] * 4], ["u"]], unroll)
    if location is not None:
        add(["SampleComputeLocation", ["b2"], [], ["at"]], location)
    add(["EnterPostproc", [], [], []])
    return json.dumps([instructions, decisions])


class NestSpace:
    """The points of some sketches, given by one trace of each; every point is legal."""

    def __init__(self, name: str, traces: Sequence[str]) -> None:
        self.task_key = TaskKey(digest("nests", name))
        self._decisions = DecisionSpace()
        self._traces = {self.point(trace).sketch: trace for trace in traces}
        self.num_applied = 0

    def point(self, trace_json: str) -> DecisionPoint:
        point = self._decisions.learn(trace_json)
        assert point is not None
        return point

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        rng = random.Random(seed)
        examples = [self.point(rng.choice(list(self._traces.values()))) for _ in range(n)]
        return [self._apply(self._decisions.redraw(one, rng), Origin.RANDOM) for one in examples]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        return [
            self._apply(
                DecisionPoint(self.point(draft.parent.trace_json).sketch, draft.decisions), draft.origin
            )
            for draft in drafts
        ]

    def _apply(self, point: DecisionPoint, origin: Origin) -> AppliedCandidate:
        self.num_applied += 1
        instructions, decisions = json.loads(self._traces[point.sketch])
        pairs = zip(decisions, point.decisions, strict=True)
        trace = json.dumps([instructions, [[index, value] for (index, _), value in pairs]])
        features = np.zeros((1, 164), dtype=np.float32)
        flat = [f for value in point.decisions for f in (value if isinstance(value, tuple) else (value,))]
        features[0, : len(flat)] = flat
        return AppliedCandidate(Candidate(self.task_key, trace, origin), features, digest(trace)[:16])
