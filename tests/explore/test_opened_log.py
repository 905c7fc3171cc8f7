"""The log as data frames, against what was put into it."""

import math
import statistics
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tunewright
from tests.explore.sample_log import RACED_SECS, Sample
from tests.tuning_logs.log_samples import START, make_record, make_session, make_task
from tunewright.cli import db_columns
from tunewright.core.errors import ConfigError, RecordNotFoundError, StoreError
from tunewright.core.log_url import file_url
from tunewright.core.types import FailureKind, MeasureFailure
from tunewright.explore import OpenLog, frames, open_log
from tunewright.tuning_logs import TuningLog

TRACE = Path(__file__).parents[1] / "tuning_logs" / "data" / "matmul_relu_trace.json"


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    return list(frame[list(columns)].itertuples(index=False, name=None))


def test_a_path_a_url_and_the_environment_name_the_same_log(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LOG", str(sample.path))
    monkeypatch.chdir(sample.path.parent)
    for url in (None, sample.path, str(sample.path), "tuning.db", Path("tuning.db"), file_url(sample.path)):
        with tunewright.open_log(url) as log:
            assert repr(log) == f"OpenLog('{sample.path}')"
            assert len(log.tasks()) == 3


def test_a_log_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"there is no tuning log at {tmp_path / 'sub' / 'tuning.db'}"):
        open_log(tmp_path / "sub" / "tuning.db")
    assert not (tmp_path / "sub").exists()
    with pytest.raises(ConfigError, match="is a folder"):
        open_log(tmp_path)
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to be looked at" * 20)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        open_log(tmp_path / "text.db")


def test_reading_changes_nothing_and_writing_makes_a_log(sample: Sample, tmp_path: Path) -> None:
    before = sample.path.read_bytes()
    with open_log(sample.path) as log:
        log.trials()
        log._repr_html_()
    assert sample.path.read_bytes() == before
    with open_log(tmp_path / "sub" / "new.db", read_only=False) as log:
        assert log.tasks().empty
    assert (tmp_path / "sub" / "new.db").exists()


def test_a_closed_log_says_so(sample: Sample) -> None:
    log = open_log(sample.path)
    log.close()
    log.close()
    assert repr(log) == f"OpenLog('{sample.path}', closed)"
    assert "closed" in log._repr_html_()
    with pytest.raises(ConfigError, match="is closed: open it again"):
        log.tasks()


def test_tasks(log: OpenLog, sample: Sample) -> None:
    tasks = log.tasks()
    assert rows(tasks, "task_key", "workload", "num_trials", "num_failed", "num_pruned", "num_usable") == [
        (sample.tasks[0].key, "matmul_64", 3, 0, 0, 2),
        (sample.tasks[1].key, "matmul_128", 3, 1, 1, 1),
        (sample.tasks[2].key, "matmul_256", 0, 0, 0, 0),
    ]
    assert tasks["best_secs"].tolist()[:2] == [statistics.median(RACED_SECS), 0.005]
    assert math.isnan(tasks["best_secs"][2])
    assert math.isnan(tasks["best_gflops"][2])
    assert tasks["best_gflops"][1] == pytest.approx(2 * 128**3 / 0.005 / 1e9)
    assert tasks["args"][0] == "float32[64,64] float32[64,64] float32[64,64]"
    assert rows(tasks, "mcpu", "num_threads")[0] == ("skylake-avx512", 2)


def test_best(log: OpenLog, sample: Sample) -> None:
    ids = [trial.record_id for trial in sample.trials]
    best = log.best()
    assert rows(best, "record_id", "workload", "rank", "best_secs", "is_raced", "origin") == [
        (ids[0], "matmul_64", 1, statistics.median(RACED_SECS), True, "random"),
        (ids[5], "matmul_128", 1, 0.005, False, "random"),
    ]
    assert best["finished_at"][0] == START
    ranked = log.best(sample.tasks[0].key[:8], k=9)
    assert rows(ranked, "record_id", "rank", "best_secs") == [
        (ids[0], 1, statistics.median(RACED_SECS)),
        (ids[1], 2, pytest.approx(0.0017)),
    ]
    assert log.best(sample.tasks[2]).empty
    with pytest.raises(ConfigError, match="k is 0"):
        log.best(k=0)


def test_every_fact_of_the_trials(log: OpenLog, sample: Sample) -> None:
    trials = log.trials()
    assert trials["record_id"].tolist() == [trial.record_id for trial in sample.trials]
    assert trials["workload"].tolist() == [
        *("matmul_64", "matmul_64", "matmul_128", "matmul_128"),
        *("matmul_64", "matmul_128"),
    ]
    for index, trial in enumerate(sample.trials):
        record, row = trial.record, trials.loc[index]
        for name in ("session_id", "task_key", "trial_index", "strategy", "seed", "code_version"):
            assert row[name] == getattr(record, name)
        assert row["candidate_key"] == record.candidate.key
        assert row["machine_fingerprint"] == record.machine.fingerprint
        assert (row["tvm_version"], row["llvm_version"]) == (
            record.machine.tvm_version,
            record.machine.llvm_version,
        )
        assert row["run_secs"] == record.result.run_secs
        assert row["num_samples"] == len(record.result.run_secs)
        assert row["build_secs"] == record.result.build_secs
        assert row["wall_secs"] == record.result.wall_secs
        assert row["finished_at"].to_pydatetime() == record.finished_at
    assert trials["status"].tolist() == ["ok", "ok", "run", "pruned", "ok", "ok"]
    assert trials["is_verified"].tolist() == [True, True, False, False, False, True]
    assert trials["is_noisy"].tolist() == [False, True, False, False, False, False]
    assert trials["is_duplicate"].tolist() == [False, False, False, False, True, False]
    assert trials["device_secs"].tolist() == pytest.approx([0.2, 0.5, 1.0, 0.1, 0.0, 0.2])
    for name, expected in {
        "median_secs": [0.002, 0.0017, math.nan, math.nan, 0.001, 0.005],
        "min_secs": [0.001, 0.001, math.nan, math.nan, 0.001, 0.005],
        "steal_ratio": [0.0, 0.125, math.nan, math.nan, 0.0, 0.0],
        "yardstick_secs": [math.nan, 0.5, math.nan, 0.6, math.nan, math.nan],
        "predicted_score": [math.nan, 0.75, *[math.nan] * 4],
    }.items():
        assert trials[name].tolist() == pytest.approx(expected, nan_ok=True), name
    assert trials["origin"].tolist() == ["random", "mutation", *["random"] * 4]
    assert trials["model_id"].dropna().tolist() == ["m" * 64]
    assert trials["parent_key"].dropna().tolist() == ["b" * 64]
    assert trials["message"].dropna().tolist() == ["SIGSEGV é", "5 x slower"]


def test_types_with_units_and_zones(log: OpenLog) -> None:
    trials = log.trials()
    assert {name: str(dtype) for name, dtype in trials.dtypes.items()} == {
        **dict.fromkeys(("record_id", "trial_index", "num_samples", "seed"), "int64"),
        **dict.fromkeys(("is_verified", "is_noisy", "is_duplicate"), "bool"),
        **dict.fromkeys(("median_secs", "min_secs", "build_secs", "wall_secs", "device_secs"), "float64"),
        **dict.fromkeys(("predicted_score", "steal_ratio", "yardstick_secs"), "float64"),
        **dict.fromkeys(("session_id", "task_key", "workload", "status", "origin", "strategy"), "category"),
        **dict.fromkeys(("model_id", "machine_fingerprint", "tvm_version", "llvm_version"), "category"),
        **dict.fromkeys(("message", "candidate_key", "parent_key"), "string"),
        "code_version": "category",
        "run_secs": "object",
        "finished_at": "datetime64[us, UTC]",
    }
    assert str(log.sessions()["created_at"].dt.tz) == "UTC"
    assert log.tasks()["best_secs"].dtype == np.float64


def test_trials_of_a_task_of_a_session_and_of_both(log: OpenLog, sample: Sample) -> None:
    every = log.trials()
    of_task = every[every["task_key"] == sample.tasks[0].key]
    of_session = every[every["session_id"] == "session-1"]
    key = sample.tasks[0].key
    for task in (key, key.upper(), key[:8], sample.tasks[0]):
        assert log.trials(task)["record_id"].tolist() == of_task["record_id"].tolist()
    found = log.trials(session="session-1")
    assert rows(found, "record_id", "workload") == rows(of_session, "record_id", "workload")
    both = log.trials(key, session="session-10")
    assert both["record_id"].tolist() == [sample.trials[4].record_id]
    assert log.trials(sample.tasks[2]).empty


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": "6c76b40"}, "'6c76b40' is too short for a task key"),
        ({"task": ""}, "'' is too short for a task key"),
        ({"task": "________"}, "no task's key begins with '________'"),
        ({"task": make_task(7)}, "no task's key begins with"),
        ({"session": "sess"}, "'sess' is too short for a session's id"),
        ({"session": "session-2"}, "no session's id begins with 'session-2'"),
        ({"session": "session-"}, r"'session-' begins the ids of 2 sessions \(session-1, session-10\)"),
    ],
)
def test_a_name_that_names_nothing_or_too_much(log: OpenLog, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        log.trials(**arguments)
    with pytest.raises(ConfigError, match=words):
        log.failures(**arguments)


def test_a_prefix_of_several_tasks() -> None:
    # The smallest two sizes of this task whose keys begin with the same eight digits.
    tasks = [make_task(45_567), make_task(70_701)]
    prefix = tasks[0].key[:8]
    assert tasks[1].key.startswith(prefix)
    with TuningLog.open("sqlite://") as log:
        log.add_tasks(tasks)
        opened = OpenLog(log, place="in memory")
        with pytest.raises(ConfigError, match=f"'{prefix}' begins the keys of 2 tasks"):
            opened.trials(prefix)
        assert opened.trials(tasks[1]).empty


def test_sessions(log: OpenLog) -> None:
    sessions = log.sessions()
    assert rows(sessions, "session_id", "model", "num_tasks", "num_trials", "elapsed_secs") == [
        ("session-1", "model.onnx", 3, 4, 90.5),
        ("session-10", "model.onnx", 2, 2, 0.0),
    ]
    assert sessions["created_at"][0].to_pydatetime() == START
    assert sessions["created_at"][0].utcoffset() == timedelta(0)
    assert sessions["machine_fingerprint"].nunique() == 2


def test_failures_and_their_share(log: OpenLog, sample: Sample) -> None:
    columns = ("kind", "num_trials", "trial_ratio")
    assert rows(log.failures(), *columns) == [("pruned", 1, 1 / 6), ("run", 1, 1 / 6)]
    assert rows(log.failures(sample.tasks[1]), *columns) == [("pruned", 1, 1 / 3), ("run", 1, 1 / 3)]
    assert rows(log.failures(session="session-1"), *columns) == [("pruned", 1, 1 / 4), ("run", 1, 1 / 4)]
    in_both = log.failures(sample.tasks[1], session="session-1")
    assert rows(in_both, *columns) == [("pruned", 1, 1 / 2), ("run", 1, 1 / 2)]
    assert log.failures(sample.tasks[0]).empty


def test_the_schedule_of_a_record() -> None:
    with TuningLog.open("sqlite://") as log:
        task = make_task()
        log.add_tasks([task])
        log.start_session(make_session(task))
        record = make_record(task, 0)
        object.__setattr__(record.candidate, "trace_json", TRACE.read_text())
        log.append([(record, None)])
        opened = OpenLog(log, place="in memory")
        record_id = opened.trials()["record_id"][0]
        lines = opened.schedule(record_id)
        assert lines[0] == 'b0 = GetSBlock("b0", "main")'
        assert lines[4] == "v5, v6, v7, v8 = SamplePerfectTile(l2, 4, 64)  # [16,4,1,2]"
        assert opened.words(record_id)[0] == "tile i 16x4x1x2"
        other = make_record(task, 1)
        other_trace = TRACE.read_text().replace("[16,4,1,2]", "[32,2,1,2]")
        object.__setattr__(other.candidate, "trace_json", other_trace)
        [stored] = log.append([(other, None)])
        assert opened.diff(record_id, stored.record_id) == ["tile i 16x4x1x2 -> 32x2x1x2"]
        for ask in (opened.schedule, opened.words, lambda number: opened.diff(record_id, number)):
            with pytest.raises(RecordNotFoundError, match="no record 99"):
                ask(99)


def test_an_empty_log_gives_empty_frames_of_the_same_types(log: OpenLog, tmp_path: Path) -> None:
    with open_log(tmp_path / "empty.db", read_only=False) as empty:
        for method in ("tasks", "best", "trials", "sessions", "failures"):
            frame, full = getattr(empty, method)(), getattr(log, method)()
            assert len(frame) == 0
            assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
                name: str(dtype) for name, dtype in full.dtypes.items()
            }


def test_frames_have_what_the_command_line_prints_for_programs() -> None:
    for of_cli, of_frames in (
        (db_columns.TASK_COLUMNS, frames.TASK_COLUMNS),
        (db_columns.BEST_COLUMNS, frames.BEST_COLUMNS),
        (db_columns.SESSION_COLUMNS, frames.SESSION_COLUMNS),
        (db_columns.TRIAL_COLUMNS, frames.TRIAL_COLUMNS),
    ):
        assert {column.key for column in of_cli} <= {column.name for column in of_frames}


def test_every_kind_of_failure_is_a_status() -> None:
    with TuningLog.open("sqlite://") as log:
        task = make_task()
        log.add_tasks([task])
        log.start_session(make_session(task))
        failures = [MeasureFailure(kind, "", wall_secs=1.0) for kind in FailureKind]
        log.append([(make_record(task, n, failure), None) for n, failure in enumerate(failures)])
        opened = OpenLog(log, place="in memory")
        assert opened.trials()["status"].tolist() == [kind.value for kind in FailureKind]
        assert opened.failures()["trial_ratio"].sum() == pytest.approx(1)


def test_without_pandas_the_error_says_what_to_install(log: OpenLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for method in ("tasks", "best", "trials", "sessions", "failures"):
        with pytest.raises(ConfigError, match=r"pip install 'tunewright\[notebooks\]'"):
            getattr(log, method)()
    assert "matmul_64" in log._repr_html_()
    assert log.schedule(1)


@pytest.mark.slow
def test_the_package_is_imported_without_pandas_and_the_database() -> None:
    code = (
        "import sys, tunewright; tunewright.open_log;"
        "print([m for m in ('pandas', 'sqlalchemy', 'typer', 'tvm', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
