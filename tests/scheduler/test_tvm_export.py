"""What is exported is what TVM loads, and what comes back by an import."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import residual_net
from tests.scheduler.in_process import record, sampled_trace
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.types import TargetSpec, TaskKey, TuningTask
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.tvm_export import export_tvm_database
from tunewright.scheduler.tvm_files import RECORD_FILE, WORKLOAD_FILE
from tunewright.scheduler.tvm_import import import_tvm_database
from tunewright.tuning_logs import TuningLog
from tunewright.workers import Pool

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = TargetSpec("x86-64-v3", num_threads=2, mattr=("+fma",))
BROKEN = '[[["GetSBlock",[],["no_such_block","main"],["b0"]]],[]]'
TENSORISED = '[[["Tensorize",["b0"],["tunewright.x86.dot",true],[]]],[]]'


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(sorted(os.sched_getaffinity(0))) as pool:
        yield pool


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[TuningTask, ...]:
    """Of convolutions, reductions and a dense layer."""
    path = residual_net(tmp_path_factory.mktemp("model") / "m.onnx")
    return partition(import_model(path, target=TARGET)).tasks


@pytest.fixture
def log(tasks: tuple[TuningTask, ...]) -> Iterator[TuningLog]:
    """A record for each task, the weights of convolutions packed."""
    with TuningLog.open("sqlite://") as log:
        for index, task in enumerate(tasks):
            trace = sampled_trace(task, packs_weights=task.workload.name.startswith("conv2d"))
            record(log, task, trace, 1.23456789012345e-5 * (index + 1), trial_index=index)
        yield log


def contents(log: TuningLog) -> dict[str, tuple[str, tuple[float, ...], str]]:
    """Workload key -> (trace, samples, target) of its only trial."""
    found = {}
    for task in log.tasks():
        (trial,) = log.trials(task.task_key)
        run_secs = trial.record.result.run_secs
        found[task.workload_key] = (trial.record.candidate.trace_json, run_secs, str(task.target))
    return found


def test_tvm_loads_every_record_and_its_trace_gives_our_program(
    log: TuningLog, tasks: tuple[TuningTask, ...], pool: Pool, tmp_path: Path
) -> None:
    from tvm.s_tir import Schedule
    from tvm.s_tir import meta_schedule as ms
    from tvm_ffi import structural_equal

    from tunewright.core.tvm_adapter.canonical import load_module
    from tunewright.core.tvm_adapter.target import tvm_target
    from tunewright.core.tvm_adapter.traces import replay_trace

    report = export_tvm_database(log, tmp_path / "new" / "out", pool)
    assert (report.num_workloads, report.num_records, report.left_out) == (len(tasks), len(tasks), {})
    database = ms.database.JSONDatabase(
        path_workload=str(report.folder / WORKLOAD_FILE),
        path_tuning_record=str(report.folder / RECORD_FILE),
        allow_missing=False,
    )
    assert len(database) == len(tasks)
    num_packed = 0
    for task in tasks:
        mod = load_module(task.workload.mod_json)
        assert database.has_workload(mod)
        found = database.query_tuning_record(mod, tvm_target(TARGET), "main")
        schedule = Schedule(mod)
        found.trace.apply_to_schedule(schedule, remove_postproc=False)
        (best,) = log.best(task.key)
        trace_json = best.trial.record.candidate.trace_json
        # As TVM has it, with indices of 64 bits: `kernel.replay` narrows them where a schedule needs it.
        assert structural_equal(schedule.mod, replay_trace(mod, trace_json).mod)
        assert [float(secs) for secs in found.run_secs] == [best.secs]
        assert dict(found.target.export())["num-cores"] == 2
        ours = [int(n) for spec in task.workload.args for n in spec.shape]
        packed = [int(n) for info in found.args_info for n in info.shape]
        assert len(found.args_info) == len(task.workload.args)
        assert packed == ours or "TransformLayout" in trace_json
        num_packed += packed != ours
    assert num_packed > 0


def test_an_import_of_what_was_exported_gives_the_same(log: TuningLog, pool: Pool, tmp_path: Path) -> None:
    export_tvm_database(log, tmp_path, pool)
    with TuningLog.open("sqlite://") as fresh:
        report = import_tvm_database(tmp_path, fresh, pool)
        assert report.num_stored == len(log.tasks())
        assert contents(fresh) == contents(log)
    back = import_tvm_database(tmp_path, log, pool)  # and the log itself learns nothing
    assert (back.num_stored, back.num_known) == (0, report.num_stored)


def test_what_tvm_could_not_load_is_left_out(
    log: TuningLog, tasks: tuple[TuningTask, ...], pool: Pool, tmp_path: Path
) -> None:
    for index, trace in enumerate((BROKEN, TENSORISED)):
        record(log, tasks[0], trace, 1e-6 * (index + 1), trial_index=10 + index)
    report = export_tvm_database(log, tmp_path, pool, task_keys=[tasks[0].key], k=3)
    assert (report.num_workloads, report.num_records) == (1, 1)
    assert report.left_out == {
        "uses instructions that TVM does not know": 1,
        "does not replay on its workload": 1,
    }


def test_a_database_is_replaced_only_where_that_is_asked_for(
    log: TuningLog, tasks: tuple[TuningTask, ...], pool: Pool, tmp_path: Path
) -> None:
    export_tvm_database(log, tmp_path, pool)
    whole = (tmp_path / RECORD_FILE).read_text()
    with pytest.raises(ConfigError, match="exists: name another folder"):
        export_tvm_database(log, tmp_path, pool, task_keys=[tasks[1].key])
    assert (tmp_path / RECORD_FILE).read_text() == whole
    export_tvm_database(log, tmp_path, pool, task_keys=[tasks[1].key], is_replacing=True)
    assert len((tmp_path / RECORD_FILE).read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD_FILE, WORKLOAD_FILE]


def test_what_cannot_be_exported_is_told_before_anything_is_written(
    log: TuningLog, tasks: tuple[TuningTask, ...], pool: Pool, tmp_path: Path
) -> None:
    other = TuningTask(tasks[0].workload, TargetSpec("x86-64-v3", num_threads=1))
    log.add_tasks([other])
    with pytest.raises(ConfigError, match="no verified record"):
        export_tvm_database(log, tmp_path / "out", pool, task_keys=[other.key])
    record(log, other, sampled_trace(other), 1e-5, trial_index=20)
    with pytest.raises(ConfigError, match=r"2 targets .* export one of them"):
        export_tvm_database(log, tmp_path / "out", pool)
    with pytest.raises(RecordNotFoundError):
        export_tvm_database(log, tmp_path / "out", pool, task_keys=[TaskKey("none")])
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        export_tvm_database(log, tmp_path / "file" / "out", pool, task_keys=[other.key])
