"""RayMeasurer on a real cluster of this machine."""

import dataclasses
from collections.abc import Iterator

import psutil
import pytest

from tests.workers.measurer_contract import RealMeasurerContract
from tests.workers.processes import marked_processes
from tests.workers.workloads import default_trace_json, matmul_task, measure_input
from tunewright.core.errors import EnvironmentProblem
from tunewright.core.types import FailureKind, MachineInfo, MeasureFailure, MeasureSuccess
from tunewright.workers import RayMeasurer
from tunewright.workers.ray_cluster import one_kind

pytestmark = [pytest.mark.ray, pytest.mark.tvm, pytest.mark.slow]


def test_no_cluster_is_one_clear_sentence() -> None:
    """Stands first: afterwards this process has joined a cluster."""
    with pytest.raises(EnvironmentProblem, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        RayMeasurer("127.0.0.1:1", num_threads=1)


def test_different_machines_are_refused() -> None:
    one = MachineInfo("Xeon", 8, True, "none", "6.1", "0.27", "0.1", "22")
    assert one_kind([one, dataclasses.replace(one, os_kernel="6.2")]) == one
    with pytest.raises(
        EnvironmentProblem, match=r"different machines \(Xeon with 8 CPUs; Xeon with 4 CPUs\)"
    ):
        one_kind([one, dataclasses.replace(one, num_cpus=4)])


@pytest.fixture(scope="module")
def measurer(mark: str) -> Iterator[RayMeasurer]:
    with RayMeasurer("local", num_threads=1, jobs_module="fault_jobs:handlers") as measurer:
        yield measurer
    zygotes = [process for process in marked_processes(mark) if _is_zygote(process)]
    assert psutil.wait_procs(zygotes, timeout=10)[1] == []


class TestContract(RealMeasurerContract):
    """The same promises as every measurer."""


def test_death_of_the_supervisor_is_survived(measurer: RayMeasurer, mark: str) -> None:
    task = matmul_task()
    good = measure_input(task, default_trace_json(task))
    first, killer, last = measurer.measure([good, measure_input(task, "run:kill-supervisor"), good])
    assert isinstance(first, MeasureSuccess) and isinstance(last, MeasureSuccess)
    assert isinstance(killer, MeasureFailure) and killer.kind is FailureKind.WORKER_LOST
    assert len([process for process in marked_processes(mark) if _is_zygote(process)]) == 1


def _is_zygote(process: psutil.Process) -> bool:
    """Its children have its command line, too."""
    parent = process.parent()
    return _has_zygotes_name(process) and (parent is None or not _has_zygotes_name(parent))


def _has_zygotes_name(process: psutil.Process) -> bool:
    return "tunewright.workers.zygote" in " ".join(process.cmdline())
