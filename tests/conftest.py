"""What holds for all tests: the CPUs that they run on, and which of them run side by side."""

import os
import signal
from typing import Any

import pytest

# Else the first kernel that runs in this process leaves it on CPUs that TVM chose, whatever is allowed.
os.environ.setdefault("TVM_BIND_THREADS", "0")
# XGBoost's threads would wait for each other by spinning, which takes the CPU from the other worker.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that starts tests in the background has them, and all that they start, ignore interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# These time kernels: two at once would take the same CPU and leave another idle.
_MEASURING = (
    "tests/cli/test_compile.py",
    "tests/cli/test_db_verify.py",
    "tests/benchmarks/test_gate_suite.py",
    "tests/cli/test_gate",
    "tests/gate/",
    "tests/notebooks/",
    "tests/scheduler/test_model_bench.py",
    "tests/scheduler/test_verify_log.py",
    "tests/test_end_to_end.py",
    "tests/workers/test_batch.py",
    "tests/workers/test_local.py",
    "tests/workers/test_peak.py",
    "tests/workers/test_ray_cluster.py",
)


def _unit(nodeid: str) -> str:
    """What one worker of pytest-xdist runs in one go: a file, or all that measure."""
    return "measuring" if nodeid.startswith(_MEASURING) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _unit(nodeid)

    config.option.loadscopereorder = False  # by the number of tests, which says little
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the workers, the slowest units come first, so that all end at about the same time."""
    if not hasattr(config, "workerinput"):
        return
    slow = {_unit(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_unit(item.nodeid) != "measuring", _unit(item.nodeid) not in slow))
