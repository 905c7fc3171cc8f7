"""Traces as text: the same as TVM's own database writes."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

from tests.core import kernels  # noqa: E402
from tunewright.core.keys import canonical_json  # noqa: E402
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module  # noqa: E402
from tunewright.core.tvm_adapter.space import TaskSpace  # noqa: E402
from tunewright.core.tvm_adapter.target import host_target  # noqa: E402
from tunewright.core.tvm_adapter.traces import replay_trace, trace_to_json  # noqa: E402
from tunewright.core.types import TaskKey  # noqa: E402


def by_tvm(value: Any) -> Any:
    """Plain data from what `Trace.as_json` returns, which has TVM's strings and numbers inside."""
    if isinstance(value, list):
        return [by_tvm(item) for item in value]
    if isinstance(value, dict):
        return {str(key): by_tvm(item) for key, item in value.items()}
    return value.value if hasattr(value, "value") else str(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["matmul_relu", "conv2d_bias", "softmax"])
def test_text_is_byte_for_byte_that_of_tvm_and_replays_to_itself(name: str) -> None:
    workload = canonical_workload(kernels.ALL[name]().func, name=name)
    space = TaskSpace(workload.mod_json, host_target(2), TaskKey("t"))
    texts = [a.candidate.trace_json for seed in range(8) if (a := space.sample(seed)) is not None]
    assert texts
    for text in texts:
        trace = replay_trace(load_module(workload.mod_json), text).trace
        assert trace_to_json(trace) == canonical_json(by_tvm(trace.as_json())) == text
        assert canonical_json(json.loads(text)) == text
    if name == "matmul_relu":  # packed weights: an index map is text inside the text
        assert any("TransformLayout" in text for text in texts)
