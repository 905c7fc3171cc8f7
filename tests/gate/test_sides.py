"""From suites to pairs: real logs, lock files and compiled models' folders."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.scheduler.in_process import record, sampled_trace
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.core.keys import short_key
from tunewright.core.log_url import file_url
from tunewright.core.types import Candidate, CandidateKey, Origin, TargetSpec, TuningTask
from tunewright.gate.baselines import Base
from tunewright.gate.measure import KernelPair, ModelPair
from tunewright.gate.sides import GateItem, model_item, suite_items
from tunewright.gate.statistics import Verdict
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.schedule_lock import LockedTask, ScheduleLock, write_lock
from tunewright.tuning_logs import TuningLog

pytestmark = pytest.mark.tvm

SMALL, LARGE, TWO = matmul_task(16), matmul_task(24), matmul_task(16, 2)


@pytest.fixture(scope="module")
def traces() -> dict[int, str]:
    return {16: sampled_trace(SMALL), 24: sampled_trace(LARGE)}


def make_log(path: Path, *records: tuple[TuningTask, str, float]) -> str:
    with TuningLog.open(file_url(path)) as log:
        for number, (task, trace, secs) in enumerate(records):
            record(log, task, trace, secs, trial_index=number)
    return str(path)


def entry(base: str | None, head: str, log: str | None = None, *tasks: str) -> Suite:
    return Suite(kernels=(KernelsEntry("k", base, head, log, tasks, 0.02),))


def key(task: TuningTask, trace: str) -> CandidateKey:
    return Candidate(task.key, trace, Origin.REPLAY).key


def make_lock(path: Path, *entries: tuple[TuningTask, KernelSource, CandidateKey | None]) -> str:
    tasks = tuple(
        LockedTask(task.workload.name, task.key, source, candidate) for task, source, candidate in entries
    )
    write_lock(ScheduleLock("net", SMALL.target, tasks), path)
    return str(path)


def test_champions_of_two_logs_are_pairs_where_they_differ(tmp_path: Path, traces: dict[int, str]) -> None:
    default = {16: default_trace_json(SMALL), 24: default_trace_json(LARGE)}
    base = make_log(tmp_path / "base.db", (SMALL, default[16], 2e-6), (LARGE, default[24], 3e-6))
    head = make_log(
        tmp_path / "head.db",
        (SMALL, default[16], 2e-6),
        (SMALL, traces[16], 1e-6),
        (LARGE, default[24], 3e-6),
        (TWO, traces[16], 1e-6),
    )
    small, large, two = suite_items(entry(base, head))
    assert isinstance(small.pair, KernelPair)
    assert small.pair.base.trace_json == default[16] and small.pair.head.trace_json == traces[16]
    assert small.pair.task == SMALL
    # Tasks for several numbers of threads have one name.
    assert small.name == f"matmul16 ({short_key(SMALL.key)})" and large.name == "matmul24"
    assert (large.pair, large.verdict) == (None, Verdict.SAME) and "same schedule" in large.reason
    assert (two.pair, two.verdict, two.reason) == (None, Verdict.MISSING, "base has no such task")
    assert small.head is not None and small.head.origin == "trial 2"

    (only,) = suite_items(entry(base, head, None, "*24"))
    assert only.name == "matmul24"
    alike = suite_items(entry(None, head), only_head=True)
    assert all(item.pair is not None for item in alike) and len(alike) == 3
    with pytest.raises(ConfigError, match="'k' has no base"):
        suite_items(entry(None, head))


def test_locks_name_schedules_of_a_log(tmp_path: Path, traces: dict[int, str]) -> None:
    log = make_log(tmp_path / "log.db", (SMALL, traces[16], 1e-6), (LARGE, traces[24], 1e-6))
    default = key(SMALL, default_trace_json(SMALL))
    base = make_lock(
        tmp_path / "base.lock",
        (SMALL, KernelSource.DEFAULT, default),
        (LARGE, KernelSource.RECORD, CandidateKey("a" * 64)),
        (TWO, KernelSource.UNSCHEDULED, None),
    )
    head = make_lock(
        tmp_path / "head.lock",
        (SMALL, KernelSource.RECORD, key(SMALL, traces[16])),
        (LARGE, KernelSource.RECORD, key(LARGE, traces[24])),
        (TWO, KernelSource.UNSCHEDULED, None),
    )
    small, large, two = suite_items(entry(base, head, log))
    assert isinstance(small.pair, KernelPair) and small.pair.base.trace_json == default_trace_json(SMALL)
    assert small.base is not None and (small.base.source, small.base.origin) == (base, "default")
    assert large.verdict is Verdict.ERROR and "base: the log has no verified trial" in large.reason
    assert two.verdict is Verdict.MISSING and "unscheduled" in two.reason
    stale = make_lock(tmp_path / "stale.lock", (SMALL, KernelSource.DEFAULT, CandidateKey("b" * 64)))
    (item, *_) = suite_items(entry(stale, head, log))
    assert item.verdict is Verdict.ERROR and "another one in this version" in item.reason


def test_a_baseline_without_a_lock_has_none_of_its_kernels(tmp_path: Path, traces: dict[int, str]) -> None:
    log = make_log(tmp_path / "log.db", (SMALL, traces[16], 1e-6))
    lock = make_lock(tmp_path / "net.lock", (SMALL, KernelSource.RECORD, key(SMALL, traces[16])))
    (item,) = suite_items(entry(None, lock, log), lambda _: None)
    assert (item.verdict, item.reason) == (Verdict.MISSING, "base has no such task")
    (item,) = suite_items(entry(None, lock, log), lambda _: Base(lock, "net.lock of then"))
    assert item.verdict is Verdict.SAME
    assert item.base is not None and item.base.source == "net.lock of then"


def test_schedules_for_another_cpu_are_refused(tmp_path: Path, traces: dict[int, str]) -> None:
    other = TuningTask(SMALL.workload, TargetSpec("nocona", 1))
    log = make_log(tmp_path / "log.db", (other, traces[16], 1e-6), (other, traces[24], 1e-6))
    base, head = (
        make_lock(tmp_path / f"{size}.lock", (other, KernelSource.RECORD, key(other, traces[size])))
        for size in (16, 24)
    )
    with pytest.raises(EnvironmentProblem, match="scheduled for nocona"):
        suite_items(entry(base, head, log))
    assert suite_items(entry(log, log)) == []  # a log's champions are this machine's


def test_models_with_the_same_bytes_are_not_timed(tmp_path: Path) -> None:
    from tests.gate.manifests import make_folder

    one, same, other = (
        make_folder(tmp_path / name / "net", library=code)
        for name, code in (("1", b"a"), ("2", b"a"), ("3", b"b"))
    )

    def item(base: Path | None, head: Path, *, is_alike: bool = False) -> GateItem:
        found = None if base is None else Base(str(base), "then")
        return model_item(ModelEntry("net", None, head, 0.02), found, is_alike=is_alike)

    assert item(one, same).verdict is Verdict.SAME
    assert item(one, same, is_alike=True).pair == ModelPair("net", one, same)
    changed = item(one, other)
    assert changed.pair == ModelPair("net", one, other)
    assert changed.base is not None and changed.base.source == "then"
    new = item(None, other)
    assert (new.verdict, new.pair, new.base) == (Verdict.MISSING, None, None)

    suite = Suite(models=(ModelEntry("net", None, other, 0.02),))
    with pytest.raises(ConfigError, match="'net' has no base"):
        suite_items(suite)
    (found,) = suite_items(replace(suite, models=(replace(suite.models[0], base=one),)))
    assert found.pair == ModelPair("net", one, other)
