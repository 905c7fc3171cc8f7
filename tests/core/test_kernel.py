"""Scheduled kernels compute what NumPy computes, whatever their schedule."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

from tests.core import kernels  # noqa: E402
from tunewright.core.tvm_adapter.canonical import canonical_workload  # noqa: E402
from tunewright.core.tvm_adapter.default_schedule import default_trace, simple_trace  # noqa: E402
from tunewright.core.tvm_adapter.kernel import (  # noqa: E402
    BoundKernel,
    build_kernel,
    output_indices,
    reference_program,
    replay,
    unscheduled,
)
from tunewright.core.tvm_adapter.space import TaskSpace  # noqa: E402
from tunewright.core.tvm_adapter.target import host_target  # noqa: E402
from tunewright.core.tvm_adapter.traces import (  # noqa: E402
    ReplayError,
    block_named,
    block_names,
    extent_of,
)
from tunewright.core.types import (  # noqa: E402
    Candidate,
    DecisionValue,
    Draft,
    Origin,
    TaskKey,
    TuningTask,
    Workload,
)

TARGET = host_target(1)


def make_inputs(workload: Workload, seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal(arg.shape).astype(arg.dtype)
        if arg.dtype.startswith("float")
        else rng.integers(-50, 50, arg.shape).astype(arg.dtype)
        for arg in workload.args
    ]


def run(scheduled: Any, inputs: list[np.ndarray[Any, Any]]) -> tuple[list[np.ndarray[Any, Any]], BoundKernel]:
    bound = build_kernel(scheduled, TARGET).bind(inputs)
    bound.poison()
    bound.run()
    return bound.outputs(), bound


@pytest.mark.parametrize("name", kernels.ALL)
@pytest.mark.parametrize("schedule", ["unscheduled", "default"])
def test_fixed_schedules_are_right(name: str, schedule: str) -> None:
    kernel = kernels.ALL[name]()
    workload = canonical_workload(kernel.func, name=name)
    inputs = make_inputs(workload, seed=1)
    if schedule == "default":
        scheduled = replay(workload.mod_json, default_trace(workload.mod_json, TARGET))
        assert "T.vectorized" in scheduled.script() or "T.parallel" in scheduled.script()
    else:
        scheduled = unscheduled(workload.mod_json)
    outputs, _ = run(scheduled, inputs)
    for output, truth in zip(outputs, kernel.truth(inputs), strict=True):
        np.testing.assert_allclose(output, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", kernels.ALL)
def test_the_reference_adds_what_the_unscheduled_program_adds_in_its_order(name: str) -> None:
    workload = canonical_workload(kernels.ALL[name]().func, name=name)
    inputs = make_inputs(workload, seed=2)
    outputs, _ = run(reference_program(workload.mod_json), inputs)
    expected, _ = run(unscheduled(workload.mod_json), inputs)
    for output, other in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output, other)


def test_the_reference_sums_neighbours_side_by_side() -> None:
    """And rows, whose elements are neighbours, one after the other."""

    product = canonical_workload(kernels.matmul_relu(m=48, n=40, k=32).func, name="any")
    schedule = tvm.s_tir.Schedule(reference_program(product.mod_json))
    (update,) = [name for name in block_names(schedule) if name.endswith("_update")]
    loops = schedule.get_loops(block_named(schedule, update))
    assert [extent_of(schedule, loop) for loop in loops] == [48, 32, 40]
    softmax = canonical_workload(kernels.softmax(6, 101).func, name="any")
    tvm.ir.assert_structural_equal(reference_program(softmax.mod_json), unscheduled(softmax.mod_json))


def test_a_small_kernel_starts_no_threads() -> None:
    for size, is_parallel in ((4096, False), (8192, True)):
        workload = canonical_workload(kernels.integer_scale(size).func, name="scale")
        trace = simple_trace(workload.mod_json, TARGET)
        assert ('"Parallel"' in trace) == is_parallel
        assert '"Vectorize"' in trace


@pytest.mark.parametrize("name", ["matmul_relu", "conv2d_bias"])
def test_sampled_and_drafted_candidates_are_right(name: str) -> None:
    kernel = kernels.ALL[name]()
    workload = canonical_workload(kernel.func, name=name)
    inputs, key = make_inputs(workload, seed=2), TuningTask(workload, TARGET).key
    space = TaskSpace(workload.mod_json, TARGET, key)
    sampled = [applied for seed in range(3) if (applied := space.sample(seed)) is not None]
    drafts = [draft_of(applied.candidate, swap_outermost) for applied in sampled]
    drafted = [applied for draft in drafts if (applied := space.realise(draft)) is not None]
    assert sampled and drafted
    for applied in sampled + drafted:
        outputs, _ = run(replay(workload.mod_json, applied.candidate.trace_json), inputs)
        np.testing.assert_allclose(outputs[0], kernel.truth(inputs)[0], rtol=1e-4, atol=1e-4)


def test_packed_weights_are_split_off_and_right() -> None:
    """With B's layout free, candidates pack B once at `bind`; it must not happen inside the timed kernel."""
    kernel = kernels.matmul_relu()
    workload = canonical_workload(kernel.func, name="mm")
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    traces = [a.candidate.trace_json for seed in range(8) if (a := space.sample(seed)) is not None]
    packed = [trace for trace in traces if "TransformLayout" in trace]
    assert packed
    inputs = make_inputs(workload, seed=3)
    outputs, bound = run(replay(workload.mod_json, packed[0]), inputs)
    np.testing.assert_allclose(outputs[0], kernel.truth(inputs)[0], rtol=1e-4, atol=1e-4)
    assert len(bound._tensors[1].shape) > 2


def test_a_kernel_is_timed_without_its_packing() -> None:
    """With weights that are packed already, the result is right, and what packs is never built."""
    kernel = kernels.matmul_relu()
    workload = canonical_workload(kernel.func, name="mm")
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    traces = [a.candidate.trace_json for seed in range(8) if (a := space.sample(seed)) is not None]
    packed_trace = next(trace for trace in traces if "TransformLayout" in trace)
    inputs = make_inputs(workload, seed=3)
    whole = build_kernel(replay(workload.mod_json, packed_trace), TARGET).bind(inputs)
    built = build_kernel(replay(workload.mod_json, packed_trace), TARGET)
    assert built.compute_args[1].shape != workload.args[1].shape
    bound = built.bind_compute([tensor.numpy() for tensor in whole._tensors])
    bound.poison()
    bound.run()
    np.testing.assert_allclose(bound.outputs()[0], kernel.truth(inputs)[0], rtol=1e-4, atol=1e-4)
    assert "_prepack" not in vars(built)


def test_weights_are_read_from_several_places_in_turn() -> None:
    kernel = kernels.matmul_relu()
    workload = canonical_workload(kernel.func, name="mm")
    inputs = make_inputs(workload, seed=3)
    built = build_kernel(replay(workload.mod_json, default_trace(workload.mod_json, TARGET)), TARGET)
    packed = built.bind(inputs)._tensors
    bound = built.bind_compute([tensor.numpy() for tensor in packed], weight_copies=3)
    assert built.weight_bytes == packed[1].numpy().nbytes
    turns = [next(bound._turns) for _ in range(4)]
    assert len({np.from_dlpack(turn[1]).ctypes.data for turn in turns}) == 3
    assert turns[3] is turns[0] and all(turn[0] is turns[0][0] for turn in turns)
    for turn in turns:
        turn[1].copyfrom(np.zeros_like(turn[1].numpy()))
    turns[1][1].copyfrom(packed[1].numpy())  # the next turn is the second place's
    truth = kernel.truth(inputs)[0]
    for share in (1, 0, 0, 1):
        bound.poison()
        bound.run()
        np.testing.assert_allclose(bound.outputs()[0], share * truth, rtol=1e-4, atol=1e-4)
    assert bound.time(5) > 0  # places 2, 0, 1, 2 and 0
    bound.run()
    np.testing.assert_allclose(bound.outputs()[0], truth, rtol=1e-4, atol=1e-4)


def test_arguments_begin_where_they_are_told_and_compute_the_same() -> None:
    kernel = kernels.matmul_relu()
    workload = canonical_workload(kernel.func, name="mm")
    inputs = make_inputs(workload, seed=3)
    built = build_kernel(unscheduled(workload.mod_json), TARGET)
    starts = set()
    for seed in range(4):
        bound = built.bind(inputs, places=np.random.default_rng(seed))
        bound.poison()
        bound.run()
        np.testing.assert_allclose(bound.outputs()[0], kernel.truth(inputs)[0], rtol=1e-4, atol=1e-4)
        starts |= {np.from_dlpack(tensor).ctypes.data % 4096 for tensor in bound._tensors}
    assert len(starts) > 4 and all(start % 64 == 0 for start in starts)


def test_poison_reaches_every_output_and_no_input() -> None:
    workload = canonical_workload(kernels.two_outputs().func, name="two")
    bound = build_kernel(unscheduled(workload.mod_json), TARGET).bind(make_inputs(workload, seed=4))
    bound.poison()
    assert all(np.isnan(output).all() for output in bound.outputs())
    bound.run()
    assert all(np.isfinite(output).all() for output in bound.outputs())


def test_outputs_are_found_by_what_is_written() -> None:
    assert output_indices(kernels.two_outputs().func) == (1, 2)
    assert output_indices(kernels.conv2d_bias().func) == (3,)


def test_time_is_of_one_call() -> None:
    workload = canonical_workload(kernels.matmul_relu(m=256, n=256, k=256).func, name="mm")
    bound = build_kernel(unscheduled(workload.mod_json), TARGET).bind(make_inputs(workload, seed=5))
    bound.run()
    once, many = bound.time(1), bound.time(20)
    assert 0.05 < once / many < 20  # far apart only if one of them forgot to divide


def test_equal_programs_have_equal_object_keys() -> None:
    one, other = (canonical_workload(kernels.matmul_relu(m=m).func, name="mm") for m in (48, 56))
    keys = [build_kernel(unscheduled(w.mod_json), TARGET).object_key for w in (one, one, other)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("trace", ["", "[]", "[[], []", '[[["GetSBlock",[],["nowhere","main"],["b0"]]],[]]'])
def test_trace_that_does_not_apply_is_refused(trace: str) -> None:
    workload = canonical_workload(kernels.matmul_relu().func, name="mm")
    with pytest.raises(ReplayError, match="does not apply"):
        replay(workload.mod_json, trace)


def test_space_is_deterministic_and_replays_to_itself() -> None:
    workload = canonical_workload(kernels.conv2d_bias().func, name="conv")
    key = TuningTask(workload, TARGET).key
    one, other = (TaskSpace(workload.mod_json, TARGET, key) for _ in range(2))
    first, second = one.sample(7), other.sample(7)
    assert first is not None and second is not None
    assert first.candidate == second.candidate
    again = one.apply(first.candidate.trace_json, Origin.REPLAY)
    assert again.program_key == first.program_key
    np.testing.assert_array_equal(again.features, first.features)
    assert first.features.shape[1] == 164 and np.isfinite(first.features).all()


def decisions_of(trace_json: str) -> tuple[DecisionValue, ...]:
    """What was decided before the postprocessing."""
    instructions, decisions = json.loads(trace_json)
    end = [instruction[0] for instruction in instructions].index("EnterPostproc")
    return tuple(tuple(v) if isinstance(v, list) else v for index, v in decisions if index < end)


def draft_of(parent: Candidate, change: Callable[[DecisionValue], DecisionValue]) -> Draft:
    values = tuple(change(value) for value in decisions_of(parent.trace_json))
    return Draft(parent, values, Origin.MUTATION)


def swap_outermost(value: DecisionValue) -> DecisionValue:
    """A tile of three or more levels with its two outermost factors exchanged."""
    return (value[1], value[0], *value[2:]) if isinstance(value, tuple) and len(value) > 2 else value


def widen_innermost(value: DecisionValue) -> DecisionValue:
    """A tile with the outermost factor moved to the innermost level."""
    return (1, *value[1:-1], value[-1] * value[0]) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", ["matmul_relu", "conv2d_bias", "softmax"])
def test_a_drafts_decisions_are_taken_in_its_parents_sketch(name: str) -> None:
    """Also where two sketches differ in one loop only: realised unchanged, every sample gives itself."""
    workload = canonical_workload(kernels.ALL[name]().func, name=name)
    space = TaskSpace(workload.mod_json, host_target(4), TaskKey("t"))
    sampled = [applied for seed in range(12) if (applied := space.sample(seed)) is not None]
    for applied in sampled:
        same = space.realise(draft_of(applied.candidate, lambda value: value))
        assert same is not None
        assert same.candidate == applied.candidate and same.program_key == applied.program_key
        assert same.candidate.parent_key == applied.candidate.key
        wide = draft_of(applied.candidate, widen_innermost)
        changed = space.realise(wide)
        if changed is not None:
            tiles, wanted = (
                [value for value in values if isinstance(value, tuple)]
                for values in (decisions_of(changed.candidate.trace_json), wide.decisions)
            )
            assert tiles == wanted


def test_a_random_draft_has_no_parent() -> None:
    workload = canonical_workload(kernels.matmul_relu().func, name="mm")
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    parent = space.sample(1)
    assert parent is not None
    draft = Draft(parent.candidate, decisions_of(parent.candidate.trace_json), Origin.RANDOM)
    realised = space.realise(draft)
    assert realised is not None
    assert realised.candidate.parent_key is None and realised.candidate.origin is Origin.RANDOM


def test_a_draft_of_another_sketch_is_refused() -> None:
    workload = canonical_workload(kernels.matmul_relu().func, name="mm")
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    parent = space.sample(1)
    assert parent is not None
    decisions = decisions_of(parent.candidate.trace_json)
    foreign = Candidate(TaskKey("t"), simple_trace(workload.mod_json, TARGET), Origin.SEED)
    assert space.realise(Draft(foreign, decisions, Origin.MUTATION)) is None
    assert space.realise(Draft(parent.candidate, decisions[1:], Origin.MUTATION)) is None


def test_an_edited_annotation_survives_in_the_children() -> None:
    """TVM's MutateParallel edits an instruction, not a decision: a trace from elsewhere may be edited."""
    workload = canonical_workload(kernels.softmax(rows=512).func, name="softmax")
    space = TaskSpace(workload.mod_json, host_target(4), TaskKey("t"))
    sampled = space.sample(1)
    assert sampled is not None
    before, after = (f',{n}],["meta_schedule.parallel"],[]]' for n in (64, 8))
    edited = sampled.candidate.trace_json.replace(before, after)
    assert edited != sampled.candidate.trace_json
    parent = Candidate(TaskKey("t"), edited, Origin.REPLAY)
    child = space.realise(Draft(parent, decisions_of(edited), Origin.MUTATION))
    assert child is not None and after in child.candidate.trace_json
