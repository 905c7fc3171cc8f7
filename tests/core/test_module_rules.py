"""Modules from elsewhere: arithmetic passes, what reaches outside does not."""

import json
from typing import Any

import pytest

from tests.scheduler.tvm_work_dir import unpack
from tunewright.core.module_rules import UntrustedModuleError, check_module
from tunewright.scheduler.tvm_files import WORKLOAD_FILE, read_workloads


def module(*nodes: dict[str, Any]) -> str:
    return json.dumps({"root_index": 0, "nodes": [{"type": "None"}, *nodes]})


def test_modules_of_a_real_tuning_pass(tmp_path: Any) -> None:
    workloads = read_workloads(unpack(tmp_path) / WORKLOAD_FILE).workloads
    assert len(workloads) == 3
    for line in workloads.values():
        check_module(line.mod_json)


@pytest.mark.parametrize("op", ["tirx.exp", "tirx.sqrt", "prim.if_then_else"])
def test_arithmetic_passes(op: str) -> None:
    check_module(module({"type": "ir.Op", "data": op}))


@pytest.mark.parametrize(
    "op", ["tirx.call_extern", "tirx.call_llvm_intrin", "tirx.tvm_call_packed", "tirx.address_of", 7, None]
)
def test_calls_that_reach_outside_are_refused(op: Any) -> None:
    with pytest.raises(UntrustedModuleError, match="is not pure arithmetic"):
        check_module(module({"type": "ir.Op", "data": op}))


def test_pragmas_are_refused() -> None:
    with pytest.raises(UntrustedModuleError, match="pragma_import_llvm"):
        check_module(module({"type": "ffi.String", "data": "pragma_import_llvm"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"nodes": 3}',
        '{"nodes": [3]}',
        '{"nodes": [{}]}',
        pytest.param("[" * 10**5, id="deep"),
    ],
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(UntrustedModuleError, match="no graph"):
        check_module(text)
