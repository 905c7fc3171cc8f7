"""A task's design space: TVM's schedule rules, postprocessors and mutators, driven per candidate.

TVM's "llvm" rule set is used on every CPU: its x86 int8 rules do not build or compute wrong numbers.
"""

import json
from typing import Any

import numpy as np
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api as ms_ffi
from tvm.s_tir.schedule import Instruction, Schedule, Trace
from tvm_ffi import structural_hash

from tunewright.core.keys import digest
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.target import tvm_target
from tunewright.core.tvm_adapter.traces import ReplayError, new_schedule, replay_trace, trace_to_json
from tunewright.core.types import AppliedCandidate, Candidate, Origin, TargetSpec, TaskKey

_SEED_LIMIT = 2**31 - 1  # TVM takes a positive 32-bit seed


class TaskSpace:
    """Samples, mutates and replays candidates of one task.

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
            search_strategy="evolutionary",  # initialises the mutators; its search is not used
            num_threads=1,
            rand_state=1,
        )
        spaces = self._context.generate_design_space()
        self._sketches = [space.trace.simplified(True) for space in spaces]
        generator = self._context.space_generator
        self._postprocs = list(generator.postprocs)
        self._mutators = list(generator.mutator_probs.keys())
        weights = np.array([float(p) for p in generator.mutator_probs.values()])
        self._mutator_weights = weights / weights.sum()
        self._extractor = ms.feature_extractor.PerStoreFeature()

    def sample(self, seed: int) -> AppliedCandidate | None:
        """A random candidate, or None where the random decisions were illegal."""
        rng = np.random.default_rng(seed)
        sketch = self._sketches[int(rng.integers(len(self._sketches)))]
        return self._apply_sketch(Trace(sketch.insts, {}), _tvm_seed(rng), Origin.RANDOM, parent=None)

    def mutate(self, parent_trace_json: str, seed: int) -> AppliedCandidate | None:
        """A neighbour of a recorded candidate, or None where no mutator applies or the result is illegal."""
        rng = np.random.default_rng(seed)
        trace = self._sketch_with_decisions(parent_trace_json)
        if trace is None:
            return None
        order = rng.choice(len(self._mutators), len(self._mutators), replace=False, p=self._mutator_weights)
        for index in order:
            mutated = ms_ffi.MutatorApply(self._mutators[index], trace, _tvm_seed(rng))
            if mutated is not None:
                parent = Candidate(self._task_key, parent_trace_json, Origin.REPLAY)
                return self._apply_sketch(mutated, _tvm_seed(rng), Origin.MUTATION, parent=parent)
        return None

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
            if not all(postproc.apply(schedule) for postproc in self._postprocs):
                return None
            return self._applied(schedule, trace_to_json(schedule.trace), origin, parent=parent)
        except RuntimeError:  # TVM's ScheduleError and InternalError: this point of the space is illegal
            return None

    def _applied(
        self, schedule: Schedule, trace_json: str, origin: Origin, *, parent: Candidate | None
    ) -> AppliedCandidate:
        measure_candidate = ms.MeasureCandidate(schedule, [])
        (rows,) = self._extractor.extract_from(self._context, [measure_candidate])
        features = np.ascontiguousarray(rows.numpy(), dtype=np.float32)
        features.flags.writeable = False
        return AppliedCandidate(
            candidate=Candidate(self._task_key, trace_json, origin, parent.key if parent else None),
            features=features,
            program_key=digest(str(structural_hash(schedule.mod)))[:16],
        )

    def _sketch_with_decisions(self, trace_json: str) -> Trace | None:
        """The sketch that a recorded trace was grown from, with that trace's decisions.

        TVM can read a trace only by applying it (3-15 ms); its sketch has the same instructions in front,
        so its decisions can simply be put back. None where no sketch has these instructions.
        """
        instructions, decisions = json.loads(trace_json)
        kinds = [instruction[0] for instruction in instructions]
        if "EnterPostproc" in kinds:
            kinds = kinds[: kinds.index("EnterPostproc")]
        for sketch in self._sketches:
            if [str(inst.kind.name) for inst in sketch.insts] == kinds:
                rebuilt = [_with_annotation(*pair) for pair in zip(sketch.insts, instructions, strict=False)]
                return Trace(rebuilt, {rebuilt[index]: decision for index, decision in decisions})
        return None


def _with_annotation(instruction: Instruction, recorded: list[Any]) -> Instruction:
    """The sketch's instruction, with the literal that a mutator may have put into an annotation."""
    kind, inputs = recorded[0], recorded[1]
    if kind != "Annotate" or not isinstance(inputs[1], int) or instruction.inputs[1] == inputs[1]:
        return instruction
    return Instruction(
        instruction.kind, [instruction.inputs[0], inputs[1]], instruction.attrs, instruction.outputs
    )


def _tvm_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, _SEED_LIMIT))


__all__ = ["ReplayError", "TaskSpace"]
