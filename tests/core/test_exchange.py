"""A trace of a foreign workload becomes one of the canonical workload that gives the same program."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

import tvm  # noqa: E402
from tvm.s_tir import Schedule  # noqa: E402

from tests.core import kernels  # noqa: E402
from tunewright.core.tvm_adapter.canonical import canonical_workload  # noqa: E402
from tunewright.core.tvm_adapter.exchange import (  # noqa: E402
    AdoptionError,
    TraceAdopter,
    adopt_workload,
    args_json,
)
from tunewright.core.tvm_adapter.traces import replay_trace, trace_to_json  # noqa: E402


def foreign(func: Any) -> str:
    """A module as a database of TVM holds it: with names and attributes of its own."""
    attrs = {"global_symbol": "main", "op_pattern": 4}
    return str(tvm.ir.save_json(tvm.IRModule({"main": func.with_attr(attrs)})))


def schedule_of(mod_json: str) -> Schedule:
    return Schedule(tvm.ir.load_json(mod_json))


def matmul_trace(schedule: Schedule, prefix: str) -> str:
    """Asks for blocks by the names that TVM makes from those of buffers and blocks."""
    product = schedule.get_sblock(f"{prefix}C", func_name="main")
    schedule.cache_read(product, 0, "global")
    rows, columns, depth = schedule.get_loops(product)
    copy = schedule.get_sblock(f"{prefix}A_global", func_name="main")
    schedule.compute_at(copy, rows)
    outer, _ = schedule.split(columns, [None, 8])
    schedule.reorder(outer, depth)
    init = schedule.decompose_reduction(product, outer)
    schedule.annotate(init, "pragma_auto_unroll_max_step", 16)
    update = schedule.get_sblock(f"{prefix}C_update", func_name="main")
    schedule.unroll(schedule.get_loops(update)[-2])
    return trace_to_json(schedule.trace)


def test_names_that_tvm_makes_while_it_schedules_are_found() -> None:
    mod_json = foreign(kernels.matmul_relu(prefix="theirs_").func)
    workload = adopt_workload(mod_json)
    assert workload.key == canonical_workload(kernels.matmul_relu(prefix="ours").func, name="").key
    trace = matmul_trace(schedule_of(mod_json), "theirs_")
    adopted = TraceAdopter(mod_json, workload.mod_json).adopt(trace)
    names = [attrs[0] for kind, _, attrs, _ in json.loads(adopted)[0] if kind == "GetSBlock"]
    assert names == ["b0", "v0_global", "b0_update"]
    ours = replay_trace(tvm.ir.load_json(workload.mod_json), adopted).mod["main"]
    theirs = replay_trace(tvm.ir.load_json(mod_json), trace).mod["main"]
    assert len(ours.script().splitlines()) == len(theirs.script().splitlines())
    assert ours.script().count("T.unroll") == theirs.script().count("T.unroll") == 1


def test_a_name_may_mean_another_block_in_the_next_trace() -> None:
    mod_json = foreign(kernels.matmul_relu(prefix="x").func)
    adopter = TraceAdopter(mod_json, adopt_workload(mod_json).mod_json)
    adopted = []
    for read_index in (0, 1):
        schedule = schedule_of(mod_json)
        product = schedule.get_sblock("xC", func_name="main")
        copy = schedule.cache_read(product, read_index, "global")
        # TVM names both copies after what they copy; here both names are given to the other one.
        name = schedule.get(copy).name_hint
        schedule.annotate(schedule.get_sblock(name, func_name="main"), "note", read_index)
        adopted.append(adopter.adopt(trace_to_json(schedule.trace)))
    names = [[attrs[0] for kind, _, attrs, _ in json.loads(t)[0] if kind == "GetSBlock"][-1] for t in adopted]
    assert names == ["v0_global", "v1_global"]


def test_an_adopted_trace_is_adopted_unchanged() -> None:
    mod_json = foreign(kernels.matmul_relu(prefix="y").func)
    workload = adopt_workload(mod_json)
    adopted = TraceAdopter(mod_json, workload.mod_json).adopt(matmul_trace(schedule_of(mod_json), "y"))
    assert TraceAdopter(workload.mod_json, workload.mod_json).adopt(adopted) == adopted


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        ('[[["GetSBlock",[],["none","main"],["b0"]]],[]]', "does not replay on its workload"),
        ('[[["NoSuchInstruction",[],[],[]]],[]]', "does not replay on its workload"),
        ("[[],{]", "does not replay on its workload"),
    ],
)
def test_what_does_not_replay_is_refused(trace: str, reason: str) -> None:
    mod_json = foreign(kernels.matmul_relu().func)
    with pytest.raises(AdoptionError, match=reason):
        TraceAdopter(mod_json, adopt_workload(mod_json).mod_json).adopt(trace)


def test_another_canonical_module_is_found_out() -> None:
    mod_json = foreign(kernels.matmul_relu(prefix="z", m=48).func)
    other = adopt_workload(foreign(kernels.matmul_relu(m=16).func))
    trace = matmul_trace(schedule_of(mod_json), "z")
    with pytest.raises(AdoptionError, match="another program"):
        TraceAdopter(mod_json, other.mod_json).adopt(trace)


def test_arguments_that_do_not_fit_are_found_out() -> None:
    mod_json = foreign(kernels.matmul_relu(prefix="w").func)
    adopter = TraceAdopter(mod_json, adopt_workload(mod_json).mod_json)
    trace = matmul_trace(schedule_of(mod_json), "w")
    stated = args_json(tvm.ir.load_json(mod_json))
    assert json.loads(stated) == [["TENSOR", "float32", shape] for shape in ([48, 32], [32, 40], [48, 40])]
    assert adopter.adopt(trace, stated) == adopter.adopt(trace)
    with pytest.raises(AdoptionError, match="other arguments"):
        adopter.adopt(trace, stated.replace("48", "47"))


def test_what_is_not_one_tunable_function_is_refused() -> None:
    func = kernels.matmul_relu().func
    two = tvm.IRModule({"main": func, "more": func})
    elsewhere = tvm.IRModule({"fused_dense": func.with_attr("global_symbol", "fused_dense")})
    for mod in (two, elsewhere):
        with pytest.raises(AdoptionError, match="is not one TIR function"):
            adopt_workload(tvm.ir.save_json(mod))


def test_the_name_of_a_workload_lists_its_blocks() -> None:
    assert adopt_workload(foreign(kernels.matmul_relu(prefix="T_").func)).name == "C_D"
    assert adopt_workload(foreign(kernels.conv2d_bias().func)).name == "conv2d_nchw_out"
