"""Traces as lines."""

from pathlib import Path

import pytest

from tunewright.core.trace_text import trace_lines

REAL_TRACE = Path(__file__).parents[1] / "tuning_logs" / "data" / "matmul_relu_trace.json"


def test_a_real_trace() -> None:
    lines = trace_lines(REAL_TRACE.read_text())
    assert lines[0] == 'b0 = GetSBlock("b0", "main")'
    assert lines[2] == 'Annotate(b0, "SSRSRS", "meta_schedule.tiling_structure")'
    assert lines[4] == "v5, v6, v7, v8 = SamplePerfectTile(l2, 4, 64)  # [16,4,1,2]"
    assert lines[17] == "EnterPostproc()"
    assert len(lines) == 34


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "[1,2]", '[[["Kind"]],[]]', '{"a":1,"b":2}', "[[],[[]]]"]
)
def test_what_is_no_trace_is_shown_as_it_is(text: str) -> None:
    assert trace_lines(text) == [text]
