"""What a notebook shows of a log, read as an HTML parser reads it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.explore.html_page import EVIL, Page
from tests.explore.sample_log import Sample
from tests.tuning_logs.log_samples import MACHINE, make_record, make_session, make_task, success
from tunewright.core.errors import StoreBusyError
from tunewright.core.types import TuningTask
from tunewright.explore import OpenLog
from tunewright.tuning_logs import TaskSummary, TuningLog
from tunewright.tuning_logs.schema import HEAD_REVISION


@pytest.fixture
def memory() -> Iterator[TuningLog]:
    with TuningLog.open("sqlite://") as log:
        yield log


def fill(log: TuningLog, *tasks: TuningTask, num_trials: int = 1, session_id: str = "session-1") -> None:
    log.add_tasks(tasks)
    log.start_session(make_session(*tasks, session_id=session_id))
    log.append([
        (make_record(task, number, success(0.002), session_id=session_id), None)
        for task in tasks
        for number in range(num_trials)
    ])  # fmt: skip


def page_of(log: TuningLog, place: str = "in memory") -> Page:
    return Page(OpenLog(log, place=place)._repr_html_())


def test_counts_tasks_and_sessions(log: OpenLog, sample: Sample) -> None:
    page = Page(log._repr_html_())
    assert str(sample.path) in page.text
    counts = f"schema {HEAD_REVISION} · 3 tasks · 6 trials (1 failure, 1 pruned) · 2 sessions · 2 machines"
    assert counts in page.text
    heads = ["task", "workload", "CPU/threads", "trials", "failed", "best", "GFLOP/s"]
    gflops = 2 * 64**3 / 0.0016 / 1e9
    assert page.rows[:2] == [
        heads,
        [sample.tasks[0].key[:8], "matmul_64", "skylake-avx512/2", "3", "0", "1.60 ms", f"{gflops:.1f}"],
    ]
    assert page.rows[3][3:] == ["0", "0", "-", "-"]
    assert page.rows[5] == [
        *("session-10", "model.onnx", "evolutionary", "2026-01-02 03:04", "2", "2", "0:00")
    ]
    assert [row[0] for row in page.rows[5:]] == ["session-10", "session-1"]
    assert page.rows[6][-1] == "1:30"


def test_an_empty_log(memory: TuningLog) -> None:
    page = page_of(memory)
    assert "0 tasks · 0 trials (0 failures, 0 pruned) · 0 sessions · 0 machines" in page.text
    assert page.rows == []


def test_a_large_log_is_cut(memory: TuningLog) -> None:
    for number in range(12):
        fill(memory, make_task(number + 1), num_trials=number % 7 + 1, session_id=f"session-{number:02}")
    page = page_of(memory)
    assert "The 10 tasks with the most trials" in page.text
    assert [row[3] for row in page.rows[1:11]] == ["7", "6", "5", "5", "4", "4", "3", "3", "2", "2"]
    assert [row[0] for row in page.rows[12:]] == [f"session-{number:02}" for number in (11, 10, 9, 8, 7)]


def test_texts_from_outside_are_escaped(memory: TuningLog) -> None:
    task = make_task()
    task = replace(
        task,
        workload=replace(task.workload, name=EVIL),
        target=replace(task.target, mcpu="<b>cpu"),
    )
    memory.add_tasks([task])
    info = make_session(task, session_id="<i>session", machine=MACHINE)
    memory.start_session(replace(info, model_name=EVIL, strategy="<u>s"))
    page = page_of(memory, place=f"/home/{EVIL}/tuning.db")
    assert set(page.tags) == {"div", "b", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert {name for name, _ in page.attributes} == {"style"}
    assert page.rows[1][1:3] == [EVIL, "<b>cpu/2"]
    assert page.rows[3][:3] == ["<i>session", EVIL, "<u>s"]
    assert f"/home/{EVIL}/tuning.db" in page.text


def test_nothing_is_fetched_and_no_color_is_set(log: OpenLog) -> None:
    html = log._repr_html_()
    for word in ("http", "src=", "href=", "url(", "<script", "background", "color:"):
        assert word not in html


def test_a_very_long_name_is_cut(memory: TuningLog) -> None:
    task = make_task()
    fill(memory, replace(task, workload=replace(task.workload, name="conv2d_" * 40)))
    name = page_of(memory).rows[1][1]
    assert len(name) == 60
    assert name.endswith("…")


def test_a_log_that_cannot_be_read_says_why(memory: TuningLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_: TuningLog) -> list[TaskSummary]:
        raise StoreBusyError("the tuning log <x> is locked")

    monkeypatch.setattr(TuningLog, "tasks", locked)
    page = page_of(memory)
    assert "the tuning log <x> is locked" in page.text
    assert page.rows == []
