"""A module or trace that takes its process down is refused; nobody else notices."""

import os

import pytest

from tests.workers.processes import left_processes, marked_environment
from tests.workers.workloads import matmul_task
from tunewright.workers import Pool
from tunewright.workers.exchange import (
    AdoptedWorkload,
    Exchange,
    ForeignTrace,
    Refusal,
    ScheduledKernel,
)

CPUS = sorted(os.sched_getaffinity(0))


def test_a_crash_costs_only_what_crashed() -> None:
    texts = ["a", "segfault", "b", "abort", "c", "d"]
    with marked_environment() as mark:
        with (
            Pool((CPUS * 2)[:2], jobs_module="exchange_fault_jobs:handlers") as pool,
            Exchange(pool) as exchange,
        ):
            traces = [ForeignTrace(index % 2, text) for index, text in enumerate(texts)]
            answers = exchange.adopt_traces(traces, [("", "first"), ("", "second")])
        assert left_processes(mark) == []
    assert [answer if isinstance(answer, str) else "" for answer in answers] == [
        *("a on first", "", "b on first", "", "c on first", "d on second")
    ]
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert {refusal.reason for refusal in refusals} == {"ended its process (run)"}
    assert "SIGSEGV" in refusals[0].detail and "SIGABRT" in refusals[1].detail


@pytest.mark.tvm
@pytest.mark.slow
def test_modules_and_traces_of_our_own_are_taken_as_they_are() -> None:
    from tunewright.core.tvm_adapter.default_schedule import default_trace

    task = matmul_task(32)
    module, trace = task.workload.mod_json, default_trace(task.workload.mod_json, task.target)
    with Pool(CPUS[:1]) as pool, Exchange(pool) as exchange:
        adopted, refused = exchange.adopt_workloads([module, module.replace('"tirx.PrimFunc"', '"no.Func"')])
        assert isinstance(adopted, AdoptedWorkload) and isinstance(refused, Refusal)
        assert adopted.workload.key == task.workload.key
        assert adopted.workload.mod_json == module
        assert (adopted.workload.args, adopted.workload.flop) == (task.workload.args, task.workload.flop)
        assert exchange.adopt_traces([ForeignTrace(0, trace)], [(module, module)]) == [trace]
        described, broken = exchange.describe([(module, trace), (module, "[[], [[99, 1]]]")])
        assert isinstance(described, ScheduledKernel) and isinstance(broken, Refusal)
        assert described.structural_hash == adopted.structural_hash
        assert described.args_json == "[" + ",".join(['["TENSOR","float32",[32,32]]'] * 3) + "]"
        assert exchange.adopt_workloads([]) == []
