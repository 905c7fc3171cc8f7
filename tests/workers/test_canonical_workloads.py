"""Modules from elsewhere, loaded in children: what is none is an answer, and costs nobody else's."""

import json

import pytest

from tests.workers.workloads import matmul_task
from tunewright.core.tvm_adapter.target import available_cpus
from tunewright.core.types import Workload
from tunewright.workers import Pool, ReplayFailure
from tunewright.workers.process_space import canonical_workloads

pytestmark = [pytest.mark.tvm, pytest.mark.slow]


def test_modules_are_recognised_and_what_is_none_is_told() -> None:
    workload = matmul_task(32).workload
    graph = json.loads(workload.mod_json)
    renamed = workload.mod_json.replace('"v0"', '"another"')
    assert renamed != workload.mod_json
    cut = json.dumps({**graph, "nodes": graph["nodes"][:5]})
    no_module = json.dumps({"root_index": 0, "nodes": [{"type": "int", "data": 5}]})
    modules = [workload.mod_json, renamed, "{}", cut, no_module, "no JSON", workload.mod_json]
    with Pool(available_cpus()[:1]) as pool:
        found = canonical_workloads(pool, [(text, "mine") for text in modules])
        assert canonical_workloads(pool, []) == []
    for number in (0, 1, 6):
        known = found[number]
        assert isinstance(known, Workload)
        assert (known.key, known.args, known.flop) == (workload.key, workload.args, workload.flop)
        assert (known.mod_json, known.name) == (workload.mod_json, "mine")
    for number in (2, 3, 4, 5):
        refused = found[number]
        assert isinstance(refused, ReplayFailure) and refused.message
