"""A MetaSchedule work directory in the log: all that is sound, once, and nothing that is not."""

import base64
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scheduler import tvm_work_dir
from tests.workers.processes import marked_environment, marked_processes
from tunewright.core.errors import ConfigError, TunewrightError
from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TargetSpec,
    Workload,
)
from tunewright.scheduler.tvm_files import RECORD_FILE, WORKLOAD_FILE
from tunewright.scheduler.tvm_import import ImportReport, import_tvm_database
from tunewright.tuning_logs import TuningLog
from tunewright.workers import Pool

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

POOLING, CONVOLUTION, SOFTMAX = range(3)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with marked_environment() as mark:
        with Pool(sorted(os.sched_getaffinity(0))) as pool:
            yield pool
        assert marked_processes(mark) == []


@pytest.fixture
def log() -> Iterator[TuningLog]:
    with TuningLog.open("sqlite://") as log:
        yield log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tvm_work_dir.unpack(tmp_path / "work_dir")


def trials(log: TuningLog) -> list[RecordedTrial]:
    return [trial for task in log.tasks() for trial in log.trials(task.task_key)]


def with_module(line: str, old: str, new: str) -> str:
    """A workload line with another text in its module, its structural hash as it was."""
    structural_hash, text = json.loads(line)
    module = base64.b64decode(text)[8:].decode()
    assert old in module
    data = module.replace(old, new, 1).encode()
    return json.dumps([structural_hash, base64.b64encode(len(data).to_bytes(8, "little") + data).decode()])


def damage_workload(folder: Path, index: int, old: str, new: str) -> None:
    lines = tvm_work_dir.workloads(folder)
    lines[index] = with_module(lines[index], old, new)
    tvm_work_dir.write_workloads(folder, lines)


def num_records_of(folder: Path, workload: int) -> int:
    return sum(index == workload for index, _ in tvm_work_dir.records(folder))


def check_rest_is_stored(report: ImportReport, log: TuningLog, num_lost: int) -> None:
    assert report.num_stored == tvm_work_dir.NUM_RECORDS - num_lost == len(trials(log))
    assert report.num_records == report.num_stored + sum(report.refused.values())


def test_all_records_come_in_once_and_say_where_they_are_from(
    folder: Path, log: TuningLog, pool: Pool
) -> None:
    from tunewright.core.tvm_adapter.target import machine_info

    report = import_tvm_database(folder, log, pool)
    assert (report.num_workloads, report.num_stored, report.num_failures) == (3, 21, 2)
    assert (report.bad_lines, report.refused, report.refused_workloads) == ({}, {}, {})
    again = import_tvm_database(folder, log, pool)
    assert (again.num_stored, again.num_known, again.session_ids) == (0, 21, report.session_ids)
    stored = [trial.record for trial in trials(log)]
    assert len(stored) == 21
    assert {(record.strategy, record.candidate.origin) for record in stored} == {("import", Origin.IMPORT)}
    assert {record.machine.fingerprint for record in stored} != {machine_info().fingerprint}
    assert all("unknown (imported)" in record.machine.cpu_model for record in stored)
    assert not any(log.best(task.task_key) for task in log.tasks())  # nobody has compared outputs
    successes = [record.result for record in stored if isinstance(record.result, MeasureSuccess)]
    failures = [record.result for record in stored if isinstance(record.result, MeasureFailure)]
    assert {failure.kind for failure in failures} == {FailureKind.RUN}
    measured = [tuple(secs) for _, (_, secs, _, _) in tvm_work_dir.records(folder) if secs != [1e10]]
    assert sorted(success.run_secs for success in successes) == sorted(measured)
    (session,) = log.sessions()
    assert (session.num_trials, session.target) == (21, TargetSpec("sapphirerapids", 3))
    assert session.model_name == "work_dir"


def test_what_is_stored_computes_what_tvm_schedules(folder: Path, log: TuningLog, pool: Pool) -> None:
    from tvm.s_tir import Schedule
    from tvm.s_tir import meta_schedule as ms

    from tunewright.core.tvm_adapter.kernel import replay

    import_tvm_database(folder, log, pool)
    ours = {}
    for trial in trials(log):
        task = log.task(trial.record.task_key)
        ours[trial.record.result.run_secs] = task.workload, trial.record.candidate.trace_json
    database = ms.database.JSONDatabase(
        path_workload=str(folder / WORKLOAD_FILE), path_tuning_record=str(folder / RECORD_FILE)
    )
    theirs = [record for record in database.get_all_tuning_records() if float(record.run_secs[0]) < 1e9]
    assert len(theirs) == 19
    for record in theirs[::6]:
        workload, trace_json = ours[tuple(map(float, record.run_secs))]
        schedule = Schedule(record.workload.mod)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        expected = outputs(schedule.mod, workload)
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(outputs(replay(workload.mod_json, trace_json), workload), expected)


def outputs(scheduled: Any, workload: Workload) -> Any:
    """What a scheduled module computes of seeded inputs, built for this machine."""
    from tunewright.core.tvm_adapter.kernel import build_kernel
    from tunewright.core.tvm_adapter.target import host_target

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(arg.shape).astype(arg.dtype) for arg in workload.args]
    bound = build_kernel(scheduled, host_target(1)).bind(arrays)
    bound.poison()
    bound.run()
    (output,) = bound.outputs()
    return output


def test_a_torn_copy_and_then_the_whole_give_every_record_once(
    folder: Path, log: TuningLog, pool: Pool
) -> None:
    path = folder / RECORD_FILE
    whole = path.read_bytes()
    end = len(b"".join(whole.splitlines(keepends=True)[:10])) + 7
    path.write_bytes(whole[:end])
    torn = import_tvm_database(folder, log, pool)
    assert (torn.num_stored, torn.bad_lines) == (10, {"torn": 1})
    path.write_bytes(whole)
    rest = import_tvm_database(folder, log, pool)
    assert (rest.num_stored, rest.num_known) == (11, 10)
    stored = [trial.record for trial in trials(log)]
    assert len({record.candidate.key for record in stored}) == len(stored) == 21
    assert len({record.machine.fingerprint for record in stored}) == 1  # it is the same database


def test_a_candidate_that_was_measured_twice_is_one_trial_with_a_time(
    folder: Path, log: TuningLog, pool: Pool
) -> None:
    first, *rest = (record for record in tvm_work_dir.records(folder) if record[1][1] != [1e10])
    failed = [first[0], [first[1][0], [1e10], *first[1][2:]]]
    slower = [first[0], [first[1][0], [1.0], *first[1][2:]]]
    tvm_work_dir.write_records(folder, [failed, first, *rest[:2], slower])
    report = import_tvm_database(folder, log, pool)
    assert (report.num_stored, report.num_failures, report.num_repeated) == (3, 0, 2)
    assert tuple(first[1][1]) in {trial.record.result.run_secs for trial in trials(log)}
    again = import_tvm_database(folder, log, pool)
    assert (again.num_stored, len(trials(log))) == (0, 3)


def test_each_target_is_a_session_of_its_own(folder: Path, log: TuningLog, pool: Pool) -> None:
    records = tvm_work_dir.records(folder)
    for record in records[::2]:
        record[1][2]["num-cores"] = 8
    tvm_work_dir.write_records(folder, records)
    report = import_tvm_database(folder, log, pool)
    assert report.num_stored == 21 and len(set(report.session_ids)) == 2
    sessions = {session.target.num_threads: session.num_trials for session in log.sessions()}
    assert sessions == {8: 11, 3: 10}


def test_a_record_of_another_workload_is_refused(folder: Path, log: TuningLog, pool: Pool) -> None:
    records = tvm_work_dir.records(folder)
    wrong = [record for record in records if record[0] == SOFTMAX][:2]
    for record in wrong:
        record[0] = POOLING
    tvm_work_dir.write_records(folder, records)
    report = import_tvm_database(folder, log, pool)
    assert report.refused == {"does not replay on its workload": 2}
    assert sum(RECORD_FILE in example for example in report.examples) == 2
    check_rest_is_stored(report, log, 2)


def test_a_record_of_other_arguments_is_refused(folder: Path, log: TuningLog, pool: Pool) -> None:
    records = tvm_work_dir.records(folder)
    records[0][1][3][0][2][0] += 1
    tvm_work_dir.write_records(folder, records)
    report = import_tvm_database(folder, log, pool)
    assert report.refused == {"has other arguments than its workload": 1}
    check_rest_is_stored(report, log, 1)


def test_a_module_that_its_hash_does_not_fit_is_refused(folder: Path, log: TuningLog, pool: Pool) -> None:
    # The attribute that says what may be fused with it: as good a module as the one before.
    damage_workload(folder, POOLING, '"op_pattern"', '"op_puttern"')
    report = import_tvm_database(folder, log, pool)
    assert report.refused_workloads == {"module is not the one of its hash": 1}
    lost = num_records_of(folder, POOLING)
    assert report.refused == {"workload is damaged or refused": lost}
    check_rest_is_stored(report, log, lost)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"root_index": ', '"root_index": 99', None),
        ('"type": "tirx.PrimFunc"', '"type": "tirx.Func"', "cannot be read by TVM"),
        ('"data": "main"', '"data": "other"', None),
        ('"data": "root"', '"data": "pragma_import_llvm"', "untrusted module"),
    ],
)
def test_a_module_that_is_not_one_costs_its_records_only(
    old: str, new: str, reason: str | None, folder: Path, log: TuningLog, pool: Pool
) -> None:
    damage_workload(folder, CONVOLUTION, old, new)
    report = import_tvm_database(folder, log, pool)
    assert list(report.refused_workloads.values()) == [1]
    assert reason is None or set(report.refused_workloads) == {reason}
    check_rest_is_stored(report, log, num_records_of(folder, CONVOLUTION))


def test_a_trace_that_the_check_refuses_is_never_replayed(folder: Path, log: TuningLog, pool: Pool) -> None:
    class Untrusted(TunewrightError):
        pass

    def check(trace_json: str) -> None:
        if "RFactor" in trace_json:
            raise Untrusted("no factoring here")

    report = import_tvm_database(folder, log, pool, check=check)
    assert report.refused == {"untrusted trace": report.num_records - report.num_stored}
    assert 0 < report.num_stored < 21
    assert any("no factoring here" in example for example in report.examples)
    assert not any("RFactor" in trial.record.candidate.trace_json for trial in trials(log))


@pytest.mark.parametrize("seed", range(8))
def test_random_damages_cost_only_what_they_hit(seed: int, folder: Path, log: TuningLog, pool: Pool) -> None:
    sound = {tuple(record[1][1]) for record in tvm_work_dir.records(folder)} - {(1e10,)}
    rng = random.Random(seed)
    path = folder / (RECORD_FILE if seed % 4 else WORKLOAD_FILE)
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    untouched = [] if seed % 4 == 0 else _untouched(tvm_work_dir.unpack(folder / "whole"), bytes(data))
    report = import_tvm_database(folder, log, pool)
    stored = {trial.record.result.run_secs for trial in trials(log)} - {()}
    assert set(untouched) <= stored
    assert len(stored - sound) <= 3  # a digit of a time may have changed, and nobody can know
    assert report.num_stored + report.num_repeated + sum(report.refused.values()) == report.num_records


def _untouched(whole: Path, data: bytes) -> list[tuple[float, ...]]:
    """The times of the records whose lines are as they were."""
    lines = set(data.decode(errors="replace").split("\n"))
    texts = (whole / RECORD_FILE).read_text().splitlines()
    records = tvm_work_dir.records(whole)
    kept = [tuple(record[1][1]) for record, text in zip(records, texts, strict=True) if text in lines]
    return [run_secs for run_secs in kept if run_secs != (1e10,)]


def test_without_the_files_nothing_is_stored(folder: Path, log: TuningLog, pool: Pool) -> None:
    (folder / RECORD_FILE).unlink()
    with pytest.raises(ConfigError, match=r"database_tuning_record\.json cannot be read"):
        import_tvm_database(folder, log, pool)
    with pytest.raises(ConfigError, match=r"database_workload\.json cannot be read"):
        import_tvm_database(folder / "nowhere", log, pool)
    assert log.tasks() == [] and log.sessions() == []


def test_empty_files_are_an_empty_import(folder: Path, log: TuningLog, pool: Pool) -> None:
    tvm_work_dir.write_records(folder, [])
    report = import_tvm_database(folder, log, pool)
    assert (report.num_workloads, report.num_records, report.session_ids) == (3, 0, ())
