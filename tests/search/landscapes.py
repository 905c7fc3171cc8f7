"""Analytic design spaces: traces with TVM's instructions and decisions, seconds from a formula, no TVM.

They stand in for a task and its measurer. The formulas have what makes real spaces hard: a few decisions
that only pay together, cache and register cliffs, illegal regions, and traces that mean the same program.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import (
    ORPHANS,
    AppliedCandidate,
    Candidate,
    Draft,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TaskKey,
    TuningRecord,
)

N_CORES = 4
LANES = 16
MAX_INNERMOST = 64
UNROLLS = (0, 16, 64, 512)
MACHINE = MachineInfo("analytic", N_CORES, False, "performance", "none", "0", "0", "0")


@dataclass(frozen=True)
class Decisions:
    """`tiles[axis]` holds the factors of the axis from the outermost level to the innermost."""

    tiles: tuple[tuple[int, ...], ...]
    unroll: int

    def to_json(self) -> str:
        """A trace as TVM writes it: one SamplePerfectTile per axis, a SampleCategorical for the unrolling."""
        instructions: list[object] = [["GetSBlock", [], ["main", "main"], ["b0"]]]
        decisions: list[object] = []
        for axis, tile in enumerate(self.tiles):
            decisions.append([len(instructions), list(tile)])
            factors = [f"v{axis}_{level}" for level in range(len(tile))]
            instructions.append(["SamplePerfectTile", [f"l{axis}"], [len(tile), MAX_INNERMOST], factors])
        decisions.append([len(instructions), UNROLLS.index(self.unroll)])
        instructions.append(["SampleCategorical", [], [list(UNROLLS), [0.25] * 4], ["v"]])
        instructions.append(["EnterPostproc", [], [], []])
        return canonical_json([instructions, decisions])

    @classmethod
    def from_json(cls, text: str) -> "Decisions":
        return cls.from_values([value for _, value in json.loads(text)[1]])

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> "Decisions":
        *tiles, unroll = values
        return cls(tuple(tuple(tile) for tile in tiles), UNROLLS[unroll])


class TileLandscape:
    """Loops of `extents`, each split into `n_levels`; the last `n_reduce` of them are reductions.

    The second-to-last spatial axis's innermost factor fills the registers, the last one's the vectors.
    Best programs keep all cores busy, vectors full, about `best_registers` accumulators, and the working
    set below `cache_bytes`.
    """

    def __init__(
        self,
        name: str,
        extents: Sequence[int],
        *,
        n_reduce: int,
        n_levels: int = 4,
        best_registers: float = 16.0,
        cache_bytes: float = 32768.0,
        max_body: int = 4096,
    ) -> None:
        self.task_key = TaskKey(digest("landscape", name))
        self._extents = tuple(extents)
        self._n_spatial = len(extents) - n_reduce
        self._n_levels = n_levels
        self._best_registers = best_registers
        self._cache_bytes = cache_bytes
        self._max_body = max_body
        self.applied: list[AppliedCandidate] = []

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        rng = np.random.default_rng([seed, 1])
        return [self._apply(self._random(rng), Origin.RANDOM, None) for _ in range(n)]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        return [
            self._apply(
                Decisions.from_values(draft.decisions),
                draft.origin,
                draft.parent if draft.origin not in ORPHANS else None,
            )
            for draft in drafts
        ]

    def measure(self, candidate: Candidate) -> MeasureResult:
        decisions = Decisions.from_json(candidate.trace_json)
        if _body(decisions) * max(1, decisions.unroll // 64) > self._max_body:
            return MeasureFailure(FailureKind.BUILD_TIMEOUT, "the unrolled body is too large", 0.1)
        return MeasureSuccess((self.secs(decisions),), build_secs=0.1, wall_secs=0.1, is_verified=True)

    def secs(self, decisions: Decisions) -> float:
        """Seconds per call: the work at full speed, divided by the used share of each resource."""
        spatial, reduce = decisions.tiles[: self._n_spatial], decisions.tiles[self._n_spatial :]
        chunks = math.prod(tile[0] for tile in spatial)
        balance = chunks / (math.ceil(chunks / N_CORES) * N_CORES) / (1.0 + chunks / 512.0)
        lanes = spatial[-1][-1]
        vectors = lanes / (math.ceil(lanes / LANES) * LANES)
        registers = math.prod(tile[-1] for tile in spatial[:-1]) * math.ceil(lanes / LANES)
        in_registers = 1.0 / (1.0 + 0.35 * abs(math.log2(registers / self._best_registers)) ** 1.5)
        depth = math.prod(tile[-1] for tile in reduce)
        block = [math.prod(tile[-2:]) for tile in spatial]
        working_set = 4.0 * (depth * sum(block) + math.prod(block))
        cached = 1.0 / (1.0 + max(0.0, math.log2(working_set / self._cache_bytes)))
        loop_overhead = 1.0 / (1.0 + 4.0 / min(_body(decisions), max(1, decisions.unroll)))
        efficiency = balance * vectors * in_registers * cached * loop_overhead
        return math.prod(self._extents) / 1e11 / efficiency

    def _apply(self, decisions: Decisions, origin: Origin, parent: Candidate | None) -> AppliedCandidate:
        key = parent.key if parent else None
        # Unrolling a body of one statement changes nothing: two traces, one program.
        effective_unroll = decisions.unroll if _body(decisions) > 1 else 0
        applied = AppliedCandidate(
            candidate=Candidate(self.task_key, decisions.to_json(), origin, key),
            features=self._features(decisions),
            program_key=digest(repr(decisions.tiles), str(effective_unroll))[:16],
        )
        self.applied.append(applied)
        return applied

    @property
    def num_applied(self) -> int:
        return len(self.applied)

    def _features(self, decisions: Decisions) -> np.ndarray:
        """What per-store features tell too: factors, extents of the inner loops, unrolling."""
        row = np.zeros((1, 164), dtype=np.float32)
        logs = [math.log2(factor) for tile in decisions.tiles for factor in tile]
        row[0, 20 : 20 + len(logs)] = logs
        spatial = decisions.tiles[: self._n_spatial]
        row[0, 60] = math.log2(1 + decisions.unroll)
        row[0, 61] = math.log2(_body(decisions))
        row[0, 62] = math.log2(math.prod(tile[0] for tile in spatial))
        row[0, 63] = sum(math.log2(tile[-1]) + math.log2(tile[-2]) for tile in spatial)
        return row

    def _random(self, rng: np.random.Generator) -> Decisions:
        tiles = []
        for extent in self._extents:
            tile = [1] * self._n_levels
            for prime in _primes(extent):
                level = int(rng.integers(self._n_levels))
                tile[level if tile[level] * prime <= MAX_INNERMOST else 0] *= prime
            tiles.append(tuple(tile))
        return Decisions(tuple(tiles), UNROLLS[int(rng.integers(len(UNROLLS)))])


def gemm_landscape() -> TileLandscape:
    return TileLandscape("gemm", (512, 512, 512), n_reduce=1)


def conv_landscape() -> TileLandscape:
    return TileLandscape(
        "conv", (56, 56, 64, 64), n_reduce=1, n_levels=3, best_registers=28.0, cache_bytes=49152.0
    )


def tiny_landscape() -> TileLandscape:
    """12 x 4 = 48 traces of fewer programs: a space that ends."""
    return TileLandscape("tiny", (2, 2, 3), n_reduce=1, n_levels=2)


def measure_all(
    landscape: TileLandscape,
    applied: Sequence[AppliedCandidate],
    *,
    first_index: int,
    seed: int = 0,
    measure: Callable[[Candidate], MeasureResult] | None = None,
) -> list[RecordedTrial]:
    """What a measurer and a log would make of a batch; `measure` instead of the landscape's own."""
    return [
        RecordedTrial(
            record_id=first_index + index,
            record=TuningRecord(
                session_id="landscape",
                trial_index=first_index + index,
                candidate=one.candidate,
                result=(measure or landscape.measure)(one.candidate),
                evaluator=EvaluatorConfig(),
                machine=MACHINE,
                strategy="test",
                seed=seed,
                finished_at=datetime(2026, 1, 1, tzinfo=UTC),
                code_version="test",
            ),
            features=one.features,
        )
        for index, one in enumerate(applied)
    ]


def _body(decisions: Decisions) -> int:
    """Statements of the innermost loops."""
    return math.prod(tile[-1] for tile in decisions.tiles)


def _primes(value: int) -> list[int]:
    primes, divisor = [], 2
    while value > 1:
        while value % divisor == 0:
            primes.append(divisor)
            value //= divisor
        divisor += 1
    return primes
