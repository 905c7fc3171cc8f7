"""`tunewright db` on the golden log."""

import csv
import gzip
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import typer.testing

from tunewright.cli import db
from tunewright.cli.settings import file_url
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.tuning_logs import TuningLog

GOLDEN_LOG = Path(__file__).parents[1] / "tuning_logs" / "data" / "schema_0001.db.gz"
TASK = "6c76b405"


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.db"
    path.write_bytes(gzip.decompress(GOLDEN_LOG.read_bytes()))
    TuningLog.open(file_url(path)).close()  # upgrades it where the schema has moved on
    return path


def run(log: Path, *args: str) -> typer.testing.Result:
    result = typer.testing.CliRunner().invoke(db.app, [*args, "--log", str(log)])
    if result.exception is not None:
        raise result.exception
    return result


def as_json(log: Path, *args: str) -> object:
    return json.loads(run(log, *args, "-f", "json").stdout)


def test_best_of_each_task(log: Path) -> None:
    result = run(log, "best")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["record", "task", "workload", "CPU/threads", "ms", "GFLOP/s", "raced"]
    assert lines[2].split() == ["2", TASK, "matmul_128", "skylake-avx512/2", "0.1960", "21.4", "yes"]
    assert len(lines) == 4
    assert "1 of 3 tasks have no verified record yet" in result.stderr


def test_best_for_programs(log: Path) -> None:
    rows = as_json(log, "best", "--task", TASK, "-k", "9")
    assert isinstance(rows, list)
    assert [(row["record_id"], row["rank"], row["best_secs"]) for row in rows] == [
        (2, 1, 0.000196),
        (1, 2, 0.00021),
    ]
    assert json.loads(rows[0]["target"]) == {"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 2}
    assert rows[0]["best_gflops"] == pytest.approx(2 * 128**3 / 0.000196 / 1e9)

    read = list(csv.DictReader(io.StringIO(run(log, "best", "-f", "csv").stdout)))
    assert [(row["record_id"], row["is_raced"]) for row in read] == [("2", "true"), ("7", "false")]
    assert list(read[0]) == list(rows[0])


def test_list_tasks_sessions_and_trials(log: Path) -> None:
    tasks = run(log, "list").stdout.splitlines()
    assert tasks[2].split() == [TASK, "matmul_128", "skylake-avx512/2", "6", "1", "0.1960", "21.4"]
    assert tasks[4].split()[-4:] == ["0", "0", "-", "-"]
    sessions = run(log, "list", "--sessions").stdout.splitlines()
    assert sessions[2].split() == [
        "session-1",
        "model.onnx",
        "evolutionary",
        "2026-01-02",
        "03:04",
        "2",
        "6",
        "12",
    ]
    trials = run(log, "list", "--trials", TASK.upper()).stdout.splitlines()
    assert [line.split()[2] for line in trials[2:]] == ["ok", "ok", "ok", "run", "pruned", "ok"]
    rows = as_json(log, "list", "--trials", TASK)
    assert isinstance(rows, list)
    assert rows[4]["median_secs"] is None
    assert "\x1b" in rows[3]["message"]


@pytest.mark.parametrize(
    "args", [["best"], ["best", "-k", "9"], ["list"], ["list", "--sessions"], ["list", "--trials", TASK]]
)
def test_tables_fit_80_columns(log: Path, args: list[str]) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("UPDATE tw_workloads SET name = name || '_fused_conv2d_add_relu_multiply_add'")
        connection.execute("UPDATE tw_sessions SET model_name = 'a/very/long/path/to/' || model_name")
    lines = run(log, *args).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.count("…") <= 1 for line in lines)


def test_show_everything_of_a_record(log: Path) -> None:
    text = run(log, "show", "2").stdout
    for line in (
        "samples         0.1800, 0.2000, 0.1900 ms",
        "races (UTC)     2026-01-02 03:09:05: 0.1950, 0.1970, 0.1960 ms",
        "arguments       float32[128,128] float32[128,128] float32[128,128]",
        "  v5, v6, v7, v8 = SamplePerfectTile(l2, 4, 64)  # [16,4,1,2]",
    ):
        assert line in text.splitlines()
    item = as_json(log, "show", "2")
    assert isinstance(item, dict)
    assert item["run_secs"] == [0.00018, 0.0002, 0.00019]
    assert item["races"][0]["run_secs"] == [0.000195, 0.000197, 0.000196]
    assert item["machine"]["cpu_model"] == "Test CPU"
    assert json.loads(item["trace_json"])[0][0][0] == "GetSBlock"


def test_show_a_failure_and_a_record_in_quarantine(log: Path) -> None:
    failure = run(log, "show", "4").stdout
    assert "status          run\n" in failure
    assert r"SIGSEGV (segmentation fault) in the kernel: é \x1b[31m" in failure
    assert "quarantine      does not replay" in run(log, "show", "6").stdout
    [row] = csv.DictReader(io.StringIO(run(log, "show", "4", "-f", "csv").stdout))
    assert (row["status"], row["median_secs"], row["run_secs"]) == ("run", "", "[]")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["best", "--task", "6c76b40"], "too short for a task key: give 8 or more"),
        (["best", "--task", "00000000"], "no task's key begins with '00000000'"),
        (["list", "--trials", "________"], "no task's key begins with '________'"),
        (["list", "--trials", TASK, "--sessions"], "exclude each other"),
    ],
)
def test_wrong_usage(log: Path, args: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(log, *args)


def test_an_ambiguous_prefix(log: Path) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("UPDATE tw_tasks SET task_key = 'aaaaaaaa' || task_key")
    with pytest.raises(ConfigError, match="'aaaaaaaa' begins the keys of 3 tasks"):
        run(log, "list", "--trials", "aaaaaaaa")
    assert run(log, "list", "--trials", f"aaaaaaaa{TASK}").exit_code == 0


def test_an_unknown_record(log: Path) -> None:
    with pytest.raises(RecordNotFoundError, match="no record 99"):
        run(log, "show", "99")


@pytest.mark.parametrize("args", [["best"], ["list"], ["list", "--sessions"], ["show", "1"]])
def test_no_log_where_it_was_looked_for(tmp_path: Path, args: list[str]) -> None:
    path = tmp_path / "sub" / "tuning.db"
    with pytest.raises(ConfigError, match=rf"there is no tuning log at {path}"):
        run(path, *args)
    assert not path.parent.exists()


def test_an_empty_log(tmp_path: Path, log: Path) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        for table in ("races", "features", "trials", "session_tasks", "sessions", "tasks"):
            connection.execute(f"DELETE FROM tw_{table}")
    for args, words in (
        (["best"], "no verified record yet among 0 tasks"),
        (["list"], "the tuning log has no tasks yet"),
        (["list", "--sessions"], "the tuning log has no sessions yet"),
    ):
        result = run(log, *args)
        assert (result.stdout, result.exit_code) == ("", 0)
        assert words in result.stderr
        assert as_json(log, *args) == []


def test_reading_changes_nothing(log: Path) -> None:
    copy = shutil.copy(log, log.with_suffix(".copy"))
    for args in (["best"], ["list"], ["show", "1"]):
        run(log, *args)
    assert log.read_bytes() == Path(copy).read_bytes()


@pytest.mark.slow
def test_the_command_module_imports_nothing_heavy() -> None:
    heavy = ["tvm", "ray", "xgboost", "matplotlib", "sqlalchemy", "alembic"]
    code = f"import sys, tunewright.cli.db; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_best_by_policy(log: Path) -> None:
    """The golden log was written on another machine, with the TVM that is pinned."""
    for policy, expected in (("compatible", [2]), ("any", [2]), ("exact", [])):
        rows = as_json(log, "best", "--task", TASK, "--match", policy)
        assert isinstance(rows, list)
        assert [row["record_id"] for row in rows] == expected
    assert (
        "2 of 3 tasks have records that --match exact leaves out"
        in run(log, "best", "--match", "exact").stderr
    )
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("UPDATE tw_machines SET tvm_version = '0.26.0'")
    result = run(log, "best")
    assert "no verified record" in result.stderr and "--match compatible leaves out" in result.stderr
