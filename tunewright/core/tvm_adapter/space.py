"""A task's design space: TVM's schedule rules and postprocessors, driven per candidate.

Contractions have sketches of our own (`register_tiling`, `dot_tiling`), and so have computations by rows
(`row_tiling`) and copies (`copy_tiling`: one program, nothing to search). For the rest, and beside
contractions whose vector axis fills less than a vector, TVM's "llvm" rule set is used on every CPU: its x86
int8 rules do not build or compute wrong numbers.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Instruction, Schedule, Trace
from tvm_ffi import structural_hash

from tunewright.core.keys import digest
from tunewright.core.tile_rules import are_reasonable
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.contraction import PACKS_WEIGHTS, packs_weights
from tunewright.core.tvm_adapter.copy_tiling import copy_tiling_sketches
from tunewright.core.tvm_adapter.dot_tiling import own_sketches
from tunewright.core.tvm_adapter.gated_tiling import results_per_element
from tunewright.core.tvm_adapter.register_tiling import Tiles, draw_tiles, fills_vectors, own_tiles
from tunewright.core.tvm_adapter.row_tiling import row_tiling_sketches
from tunewright.core.tvm_adapter.target import num_vector_registers, tvm_target, vector_lanes
from tunewright.core.tvm_adapter.traces import (
    ReplayError,
    block_names,
    new_schedule,
    replay_trace,
    trace_to_json,
    trace_to_plain,
)
from tunewright.core.types import (
    ORPHANS,
    AppliedCandidate,
    Candidate,
    DecisionValue,
    Draft,
    Origin,
    TargetSpec,
    TaskKey,
)

_SEED_LIMIT = 2**31 - 1  # TVM takes a positive 32-bit seed
_REALISING_SEED = 1  # of no effect: every decision is given


class TaskSpace:
    """Samples, realises and replays candidates of one task.

    Deterministic: equal arguments and seeds give equal candidates. Native code: use it only in a process
    that may die.
    """

    def __init__(self, mod_json: str, target: TargetSpec, task_key: TaskKey) -> None:
        self._mod = load_module(mod_json)
        self._task_key = task_key
        self._context = ms.TuneContext(
            self._mod,
            target=tvm_target(target),
            space_generator="llvm",
            num_threads=1,
            rand_state=1,
        )
        self._vector_lanes, self._num_registers = vector_lanes(target), num_vector_registers(target)
        own = own_sketches(self._mod, target)
        self._num_own = len(own)
        simple = [] if own else self._simple_sketches()
        if simple or (own and fills_vectors(own[0], vector_lanes=self._vector_lanes)):
            self._sketches = own or simple
        else:
            others = self._context.generate_design_space()
            self._sketches = [*own, *(other.trace.simplified(True) for other in others)]
        self._structures = [_structure(trace_to_plain(sketch)[0]) for sketch in self._sketches]
        self._postprocs = list(self._context.space_generator.postprocs)
        self._extractor = ms.feature_extractor.PerStoreFeature()

    def _simple_sketches(self) -> list[Trace]:
        """Of what is no contraction."""
        lanes = self._vector_lanes
        rows = row_tiling_sketches(self._mod, vector_lanes=lanes)
        return rows or copy_tiling_sketches(self._mod, vector_lanes=lanes)

    def sample(self, seed: int) -> AppliedCandidate | None:
        """A random candidate, or None where the random decisions were illegal."""
        rng = np.random.default_rng(seed)
        number = int(rng.integers(len(self._sketches)))
        sketch = self._sketches[number]
        is_own = number < self._num_own
        tiles = self._drawn(sketch, rng) if is_own else {}
        return self._apply_sketch(Trace(sketch.insts, tiles), _tvm_seed(rng), Origin.RANDOM, parent=None)

    def realise(self, draft: Draft) -> AppliedCandidate | None:
        """The parent's sketch with the draft's decisions, or None where that is illegal.

        TVM repairs what it can: the innermost factor of a tile with a wrong product, and a location that is
        too deep.
        """
        trace = self._sketch_with_decisions(draft.parent.trace_json, draft.decisions)
        if trace is None:
            return None
        parent = None if draft.origin in ORPHANS else draft.parent
        return self._apply_sketch(trace, _REALISING_SEED, draft.origin, parent=parent)

    def apply(self, trace_json: str, origin: Origin) -> AppliedCandidate:
        """Replay a recorded trace.

        Raises:
            ReplayError: it does not apply to this workload.
        """
        return self._applied(replay_trace(self._mod, trace_json), trace_json, origin, parent=None)

    def _apply_sketch(
        self, trace: Trace, seed: int, origin: Origin, *, parent: Candidate | None
    ) -> AppliedCandidate | None:
        schedule = new_schedule(self._mod, seed=seed)
        try:
            trace.apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            rewrites_layout = not packs_weights(schedule)
            if not all(
                postproc.apply(schedule)
                for postproc in self._postprocs
                if rewrites_layout or not isinstance(postproc, ms.postproc.RewriteLayout)
            ):
                return None
            return self._applied(schedule, trace_to_json(schedule.trace), origin, parent=parent)
        except RuntimeError:  # TVM's ScheduleError and InternalError: this point of the space is illegal
            return None

    def _applied(
        self, schedule: Schedule, trace_json: str, origin: Origin, *, parent: Candidate | None
    ) -> AppliedCandidate:
        measure_candidate = ms.MeasureCandidate(_without_padded_weights(schedule), [])
        (rows,) = self._extractor.extract_from(self._context, [measure_candidate])
        features = np.ascontiguousarray(rows.numpy(), dtype=np.float32)
        features.flags.writeable = False
        return AppliedCandidate(
            candidate=Candidate(self._task_key, trace_json, origin, parent.key if parent else None),
            features=features,
            program_key=digest(str(structural_hash(schedule.mod)))[:16],
        )

    def _drawn(self, sketch: Trace, rng: np.random.Generator) -> Tiles:
        num_results = results_per_element(sketch)
        return draw_tiles(
            own_tiles(sketch),
            rng,
            vector_lanes=self._vector_lanes,
            num_registers=self._num_registers,
            num_results=num_results,
        )

    def _is_reasonable(self, sketch: Trace, decisions: Sequence[DecisionValue]) -> bool:
        tiles = [factors for factors in decisions if isinstance(factors, tuple)]
        num_results = results_per_element(sketch)
        return are_reasonable(
            tiles,
            vector_lanes=self._vector_lanes,
            num_registers=self._num_registers,
            num_results=num_results,
        )

    def _sketch_with_decisions(self, trace_json: str, decisions: Sequence[DecisionValue]) -> Trace | None:
        """The sketch that a recorded trace was grown from, with other decisions.

        TVM can read a trace only by applying it (3-15 ms); its sketch has the same instructions in front,
        so decisions can simply be put there. None where no sketch has these instructions, or where a sketch
        of our own makes nothing reasonable of the decisions.
        """
        instructions, recorded = json.loads(trace_json)
        kinds = [instruction[0] for instruction in instructions]
        end = kinds.index("EnterPostproc") if "EnterPostproc" in kinds else len(kinds)
        taken = [index for index, _ in recorded if index < end]
        structure = _structure(instructions[:end])
        if structure not in self._structures or len(taken) != len(decisions):
            return None
        number = self._structures.index(structure)
        sketch = self._sketches[number]
        if number < self._num_own and not self._is_reasonable(sketch, decisions):
            return None
        rebuilt = [_with_annotation(*pair) for pair in zip(sketch.insts, instructions, strict=False)]
        values = [list(value) if isinstance(value, tuple) else value for value in decisions]
        return Trace(rebuilt, {rebuilt[index]: value for index, value in zip(taken, values, strict=True)})


def _without_padded_weights(schedule: Schedule) -> Schedule:
    """The same to the feature extractor, which removes blocks that pack weights, but knows only copies."""
    for name in block_names(schedule):
        block = schedule.get_sblock(name, func_name="main")
        found = schedule.get(block)
        if PACKS_WEIGHTS in (found.annotations or {}) and "if_then_else" in str(found.body):
            schedule = new_schedule(schedule.mod, seed=_REALISING_SEED)
            schedule.unannotate(schedule.get_sblock(name, func_name="main"), PACKS_WEIGHTS)
    return schedule


def _structure(instructions: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """What tells a sketch from another: all but the numbers in annotations, which may have been edited."""
    return [
        [kind, [value if isinstance(value, str) else None for value in inputs], *rest]
        if kind == "Annotate"
        else [kind, inputs, *rest]
        for kind, inputs, *rest in instructions
    ]


def _with_annotation(instruction: Instruction, recorded: list[Any]) -> Instruction:
    """The sketch's instruction, with the number that TVM's MutateParallel may have put into an annotation."""
    kind, inputs = recorded[0], recorded[1]
    if kind != "Annotate" or not isinstance(inputs[1], int) or instruction.inputs[1] == inputs[1]:
        return instruction
    return Instruction(
        instruction.kind, [instruction.inputs[0], inputs[1]], instruction.attrs, instruction.outputs
    )


def _tvm_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, _SEED_LIMIT))


__all__ = ["ReplayError", "TaskSpace"]
