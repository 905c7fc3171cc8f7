"""A session as an object, against what was put into the log."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.explore.sample_log import RACED_SECS, Sample
from tests.tuning_logs.log_samples import MACHINE, make_session, make_task
from tunewright.core.errors import ConfigError
from tunewright.core.types import FailureKind
from tunewright.explore import OpenLog
from tunewright.tuning_logs import TuningLog


def test_what_a_session_found(log: OpenLog, sample: Sample) -> None:
    session = log.session("session-1")
    # matmul_64 was called once per run and begins with its first success, which was raced later.
    raced = sorted(RACED_SECS)[1]
    assert [task.task.task_key for task in session.tasks[:1]] == [sample.tasks[0].key]
    assert (session.before_secs, session.best_secs) == (raced, raced)
    assert session.failures == {FailureKind.PRUNED: 1, FailureKind.RUN: 1}
    assert repr(session) == (
        "<Session session-1 of model.onnx: evolutionary, seed 1, 3 tasks, 4 trials (1 failed, 1 pruned), "
        "1.60 ms -> 1.60 ms, 1x as fast (of 1 tasks with a time)>"
    )
    assert log.session("session-10").tasks[0].calls == 2


def test_its_tasks_as_a_frame(log: OpenLog) -> None:
    frame = log.session("session-1").to_frame()
    assert frame["workload"].tolist() == ["matmul_64", "matmul_128", "matmul_256"]
    assert frame[["calls", "num_trials", "num_failed", "num_pruned"]].values.tolist() == [
        [1, 2, 0, 0],
        [2, 2, 1, 1],
        [3, 0, 0, 0],
    ]
    assert frame["before_secs"][0] == frame["best_secs"][0] == 0.0016
    assert frame["speedup_ratio"][0] == 1.0
    assert frame["best_gflops"][0] == pytest.approx(2 * 64**3 / 0.0016 / 1e9)
    assert frame["best_secs"].isna().tolist() == [False, True, True]
    assert isinstance(frame, pd.DataFrame)


def test_a_page_for_a_notebook(log: OpenLog) -> None:
    page = assert_harmless(log.session("session-1")._repr_html_())
    assert "model.onnx · evolutionary, seed 1 · skylake-avx512, 2 threads" in page.text
    assert page.rows[1][1:] == ["matmul_64", "1", "2", "0", "1.60 ms", "1.60 ms", "1.00x"]
    assert page.rows[3][-2:] == ["-", "-"]
    assert ["pruned", "1", "25.0 %"] in page.rows


def test_a_session_without_trials_and_one_with_a_hostile_name() -> None:
    task = make_task()
    task = replace(task, workload=replace(task.workload, name=EVIL))
    with TuningLog.open("sqlite://") as log:
        log.add_tasks([task])
        info = make_session(task, session_id="<i>\x1b]0;session", machine=MACHINE)
        log.start_session(replace(info, model_name=EVIL, strategy="<u>s"))
        session = OpenLog(log, place="in memory").session("<i>\x1b]0;session")
        assert math.isnan(session.best_secs)
        assert "no verified time yet" in repr(session)
        assert "\x1b" not in repr(session)
        page = assert_harmless(session._repr_html_())
        assert page.text.count(EVIL) == 2
        assert session.to_frame()["workload"].tolist() == [EVIL]


def test_no_such_session(log: OpenLog) -> None:
    with pytest.raises(ConfigError, match="no session's id begins with"):
        log.session("no such session")
