"""Decisions without TVM against the design space that TVM makes of them."""

import random

import pytest

from tests.core import kernels
from tunewright.core.tvm_adapter.canonical import canonical_workload
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import num_vector_registers, vector_lanes
from tunewright.core.types import Draft, Origin, TargetSpec, TaskKey
from tunewright.search.decisions import DecisionSpace
from tunewright.search.prior import Hardware


@pytest.mark.tvm
@pytest.mark.parametrize("mcpu", ["skylake-avx512", "haswell"])
@pytest.mark.parametrize("kernel", [kernels.matmul_relu(48, 48, 48), kernels.conv2d_channels_last()])
def test_what_is_reasonable_is_what_the_space_has(kernel: kernels.Kernel, mcpu: str) -> None:
    target = TargetSpec(mcpu=mcpu, num_threads=2)
    workload = canonical_workload(kernel.func, name="kernel")
    space = TaskSpace(workload.mod_json, target, TaskKey("k" * 16))
    decisions = DecisionSpace(Hardware(2, vector_lanes(target), num_vector_registers(target)))
    (applied,) = [one for one in (space.sample(3),) if one is not None]
    point = decisions.learn(applied.candidate.trace_json)
    assert point is not None and decisions.is_reasonable(point)
    rng = random.Random(0)
    verdicts = []
    for _ in range(60):
        point = decisions.redraw(point, rng) if rng.random() < 0.5 else decisions.mutate(point, rng)
        draft = Draft(applied.candidate, point.decisions, Origin.MUTATION)
        verdicts.append(decisions.is_reasonable(point))
        assert (space.realise(draft) is not None) == verdicts[-1]
    assert 0.3 < sum(verdicts) / len(verdicts) < 1.0
