"""Records, sessions and compiled models against each other, beside what was put into them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.explore.sample_log import Sample
from tests.explore.test_schedule_words import ruled
from tests.gate.fakes import HERE
from tests.plots.tuned_log import (
    CONV,
    MACHINE,
    MATMUL,
    OTHER_MACHINE,
    START,
    add_session,
    failure,
    make_task,
    success,
)
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.types import MachineInfo, MeasureSuccess, TargetSpec, TuningTask
from tunewright.explore import OpenLog
from tunewright.scheduler.manifest import KernelEntry, KernelSource, Manifest
from tunewright.tuning_logs import TuningLog


@pytest.fixture
def memory() -> OpenLog:
    return OpenLog(TuningLog.open("sqlite://"), place="in memory")


def add(
    log: OpenLog, task: TuningTask, trace_json: str, *run_secs: float, machine: MachineInfo = MACHINE
) -> int:
    """The number of a new record."""
    result = MeasureSuccess(run_secs, 0.1, 0.5, is_verified=True) if run_secs else failure()
    session = add_session(
        log._log,
        f"s{trace_json}{run_secs}",
        [(task, result)],
        tasks=[task],
        weights={task.key: 1},
        machine=machine,
    )
    record = session[0].record
    candidate = replace(record.candidate, trace_json=trace_json)
    [trial] = log._log.append([(replace(record, candidate=candidate), None)])
    return trial.record_id


def test_two_records_in_words_beside_their_times(memory: OpenLog) -> None:
    a = add(memory, CONV, ruled([128, 8], 2), 0.004, 0.005, 0.004)
    b = add(memory, CONV, ruled([64, 16], 0), 0.002, 0.001, 0.0015)
    found = memory.compare(a, b)
    assert found.ratio == 0.0015 / 0.004
    assert found.notes == [] and found.tir is None
    assert repr(found) == (
        f"<RecordComparison of {a} and {b}: 3 changes, 4.00 ms -> 1.50 ms, 0.375x the time (quartiles apart)>"
    )
    assert found.to_frame().values.tolist() == [
        ["", "tile i", "128x8", "64x16"],
        ["", "unroll", "up to 64 steps", "off"],
        ["", "vectorize", "8", "16"],
    ]
    page = assert_harmless(found._repr_html_())
    assert page.rows[1][3:7] == ["4.00 ms", "4.00 ms", "4.50 ms", "3"]
    assert ["-", "tile i", "128x8", "64x16"] in page.rows
    assert memory.diff(a, b) == [str(change) for change in found.changes]


def test_a_race_counts_and_so_does_what_overlaps(memory: OpenLog) -> None:
    a = add(memory, CONV, ruled([128, 8], 2), 0.004, 0.001)
    b = add(memory, CONV, ruled([64, 16], 0), 9.0)
    memory._log.add_race(b, (0.002, 0.003, 0.004), START)
    found = memory.compare(a, b)
    assert found.ratio == 0.003 / 0.0025
    assert "quartiles overlap" in repr(found)


def test_what_does_not_compare_is_said(memory: OpenLog) -> None:
    a = add(memory, CONV, ruled([128, 8], 2), 0.004)
    other_task = add(memory, MATMUL, ruled([128, 8], 2), 0.004)
    abroad = add(memory, CONV, ruled([64, 16], 0), 0.002, machine=OTHER_MACHINE)
    failed = add(memory, CONV, ruled([32, 32], 0))
    assert memory.compare(a, other_task).notes[0].startswith("they are of different tasks")
    assert memory.compare(a, a).notes == ["the same schedule"]
    found = memory.compare(a, abroad)
    assert found.ratio is None and "different machines" in found.notes[0]
    assert "times that do not compare" in repr(found)
    assert memory.compare(a, failed).ratio is None
    assert "not both have a time" in assert_harmless(memory.compare(a, failed)._repr_html_()).text
    with pytest.raises(RecordNotFoundError):
        memory.compare(a, 99)


def test_two_sessions_task_by_task(memory: OpenLog) -> None:
    add_session(
        memory._log, "session-a", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, success(0.1))]
    )
    add_session(memory._log, "session-b", [(CONV, success(0.125)), (MATMUL, success(0.2))])
    found = memory.compare("session-a", "session-b")
    assert [(pair.name, pair.ratio) for pair in found.pairs] == [
        (CONV.workload.name, 0.5),
        (MATMUL.workload.name, 2.0),
    ]
    assert (found.a_secs, found.b_secs) == (3 * 0.25 + 0.1, 3 * 0.125 + 0.2)
    assert found.to_frame()["calls"].tolist() == [3, 1]
    page = assert_harmless(found._repr_html_())
    assert page.rows[1][1:5] == ["3", "250 ms", "125 ms", "0.5"]
    assert "not interleaved" in page.text
    assert "2 tasks, 850 ms -> 575 ms, 0.676x the time" in repr(found)


def test_sessions_without_a_common_task_or_of_other_machines(memory: OpenLog) -> None:
    add_session(memory._log, "session-a", [(CONV, success(0.5))])
    add_session(memory._log, "session-b", [(MATMUL, success(0.5))])
    add_session(memory._log, "session-c", [(CONV, success(0.5))], machine=OTHER_MACHINE)
    found = memory.compare("session-a", "session-b")
    assert math.isnan(found.ratio) and "no task has a verified time in both" in repr(found)
    assert found.to_frame().empty
    assert_harmless(found._repr_html_())
    with pytest.raises(ConfigError, match="different machines"):
        memory.compare("session-a", "session-c")


def test_hostile_names_of_tasks_and_sessions(memory: OpenLog) -> None:
    task = make_task(EVIL)
    for session_id in ("<b>\x1b[2J-a", "<b>\x1b[2J-b"):
        add_session(
            memory._log,
            session_id,
            [(task, success(0.5))],
            tasks=[task],
            weights={task.key: 1},
            model_name=EVIL,
            strategy="<i>",
        )
    found = memory.compare("<b>\x1b[2J-a", "<b>\x1b[2J-b")
    page = assert_harmless(found._repr_html_())
    assert page.text.count(EVIL) == 3
    assert "\x1b" not in page.text + repr(found)
    records = memory.trials()["record_id"]
    assert EVIL in assert_harmless(memory.compare(records[0], records[1])._repr_html_()).text


def entry(
    name: str, key: str | None, record_id: int | None, calls: int = 1, candidate: str = ""
) -> KernelEntry:
    source = KernelSource.DEFAULT if record_id is None else KernelSource.RECORD
    secs = None if record_id is None else record_id * 1e-3
    return KernelEntry(f"f_{name}", name, key, calls, source, record_id, candidate or None, secs, 2**-10)


def manifest(folder: Path, *kernels: KernelEntry, name: str = "net") -> Path:
    folder.mkdir()
    Manifest(name, (), (), 0, TargetSpec("znver5", 4), (), HERE, "0.1.0", kernels).write(folder)
    return folder


def test_two_compiled_models(memory: OpenLog, tmp_path: Path) -> None:
    a = manifest(
        tmp_path / "a",
        entry("conv", "c", 1, 2, "k1"),
        entry("conv again", "c", 1, 3, "k1"),
        entry("matmul", "m", None),
        entry("gone", None, None),
    )
    b = manifest(tmp_path / "b", entry("conv", "c", 7, 5, "k1"), entry("matmul", "m", 2, 1, "k2"), name=EVIL)
    found = memory.compare(a, b)
    assert [(one.name, one.calls, one.a_from, one.b_from) for one in found.changed] == [
        ("matmul", 1, "default", "record 2"),
        ("gone", 1, "default", ""),
    ]
    # The numbers of records differ from log to log; the schedule is the same.
    assert [(one.calls, one.is_same) for one in found.kernels if one.name.startswith("conv")] == [(5, True)]
    frame = found.to_frame()
    assert frame["is_same"].tolist() == [False, False, True]
    assert frame["b_secs"][0] == 2e-3
    page = assert_harmless(found._repr_html_())
    assert EVIL in page.text and page.rows[1][3:5] == ["default", "record 2"]
    assert "3 kernels, 2 scheduled otherwise" in repr(found)


def test_what_is_of_different_kinds(memory: OpenLog, sample: Sample, tmp_path: Path) -> None:
    for sides in ((1, "session-1"), (tmp_path, "session-1"), (tmp_path, 1)):
        with pytest.raises(ConfigError, match="do not compare: give two records"):
            memory.compare(*sides)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="is no compiled model"):
        memory.compare(tmp_path, tmp_path)
