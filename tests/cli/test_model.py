"""`tunewright model` on logs made here: features decide the times, so there is something to learn."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import typer.testing

from tests.cost_model.trials import failure, features, success, trial
from tunewright.cli import model
from tunewright.cli.settings import file_url
from tunewright.core.errors import ConfigError
from tunewright.core.types import (
    FailureKind,
    SessionInfo,
    TargetSpec,
    TensorSpec,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.cost_model import make_training_set
from tunewright.cost_model.model_file import read_model
from tunewright.cost_model.xgboost_model import MODEL_KIND, XGBoostCostModel
from tunewright.tuning_logs import TuningLog

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def make_log(path: Path, *, num_tasks: int, num_trials: int = 20, mcpus: tuple[str, ...] = ("x1",)) -> Path:
    """The main loop nest's column 30 decides the time; every tenth trial fails."""
    with TuningLog.open(file_url(path)) as log:
        for number in range(num_tasks):
            target = TargetSpec(mcpu=mcpus[number % len(mcpus)], num_threads=2)
            spec = TensorSpec((number + 1,), "float32")
            workload = Workload(
                f"workload_{number}", WorkloadKey(f"key-{number}"), f'{{"n": {number}}}', (spec,), 1e6
            )
            task = TuningTask(workload, target)
            trials = []
            for index in range(num_trials):
                rows = features(1000 * number + index, 1)
                secs = 1e-3 * (number + 1) * 2.0 ** float(rows[0, 30] / 5)
                result = failure(FailureKind.BUILD) if index % 10 == 9 else success(secs)
                record = trial(result, task=task.key, seed=index).record
                trials.append((replace(record, session_id=f"session-{number}"), rows))
            machine = trials[0][0].machine
            log.add_tasks([task])
            log.start_session(
                SessionInfo(f"session-{number}", "m", target, "random", 0, machine, {task.key: 1}, NOW)
            )
            log.append(trials)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("log") / "tuning.db", num_tasks=4)


def run(*args: str, log: Path) -> typer.testing.Result:
    result = typer.testing.CliRunner().invoke(model.app, [*args, "--log", str(log)])
    if result.exception is not None:
        raise result.exception
    return result


def test_train_then_look_into_the_file(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    lines = run("train", "-o", str(path), log=log).stdout.splitlines()
    found = dict(line.split(maxsplit=1) for line in lines if line[0] != " ")
    assert (found["CPU"], found["records"], found["tasks"]) == ("x1", "80", "4")
    assert "of them failed  8" in lines
    assert found["ranks"].startswith("unseen tasks: pairwise 0.")
    assert "known tasks: pairwise 0." in lines[-1]

    file = read_model(path)
    assert (file.mcpu, file.num_tasks, file.num_failures, file.snapshot.n_records) == ("x1", 4, 8, 80)
    assert file.snapshot.metrics["by_task_pairwise_accuracy"] > 0.7

    shown = run("show", str(path), log=log).stdout
    assert ": unrolled position: none" in shown  # column 30
    item = json.loads(run("show", str(path), "-f", "json", log=log).stdout)
    assert item["model_id"] == file.snapshot.model_id
    assert sum(item["gains"].values()) == pytest.approx(1.0)
    # With one store per candidate both pools hold the same.
    assert next(iter(item["gains"])).endswith(": unrolled position: none")


def test_training_for_programs(log: Path, tmp_path: Path) -> None:
    text = run("train", "-o", str(tmp_path / "m"), "-f", "json", log=log).stdout
    item = json.loads(text)
    assert (item["num_records"], item["num_tasks"], item["num_failures"]) == (80, 4, 8)
    assert item["metrics"]["by_task_pairwise_accuracy"] == pytest.approx(
        read_model(tmp_path / "m").snapshot.metrics["by_task_pairwise_accuracy"]
    )


def test_evaluate_by_unseen_task(log: Path) -> None:
    result = run("evaluate", log=log)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["task", "workload", "trials", "pairwise", "top-1", "top-5", "recall"]
    assert lines[2].split()[:3] == ["all", "-", "80"]
    assert sorted(line.split()[1] for line in lines[3:]) == [f"workload_{n}" for n in range(4)]
    assert max(map(len, lines)) <= 80
    rows = json.loads(run("evaluate", "-f", "json", log=log).stdout)
    assert rows[0]["task_key"] is None
    assert rows[0]["pairwise_accuracy"] == pytest.approx(np.mean([r["pairwise_accuracy"] for r in rows[1:]]))
    assert rows[0]["pairwise_accuracy"] > 0.7
    read = list(csv.DictReader(io.StringIO(run("evaluate", "-f", "csv", log=log).stdout)))
    assert list(read[0]) == list(rows[0])


def test_models_of_the_log(tmp_path: Path) -> None:
    path = make_log(tmp_path / "tuning.db", num_tasks=1)
    assert "has no models yet" in run("show", log=path).stderr
    with TuningLog.open(file_url(path)) as tuning_log:
        trials = tuning_log.training_trials(mcpu="x1", limit=100)
        snapshot = XGBoostCostModel(seed=0).fit(make_training_set(trials))
        tuning_log.save_model(snapshot)
        tuning_log.save_model(replace(snapshot, model_id="abcdef" * 10, kind="old", trained_at=NOW))
    listed = run("show", log=path).stdout.splitlines()
    assert [line.split()[0] for line in listed[2:]] == [snapshot.model_id[:8], "abcdefab"]
    rows = json.loads(run("show", "-f", "json", log=path).stdout)
    assert [(row["kind"], row["num_records"]) for row in rows] == [(MODEL_KIND, 20), ("old", 20)]
    assert f"model           {snapshot.model_id}" in run("show", snapshot.model_id[:8], log=path).stdout
    assert "not readable: the model is of another version" in run("show", "abcdefab", log=path).stdout


@pytest.mark.parametrize(
    ("model_id", "words"),
    [
        ("abc", "'abc' is neither a file nor 8 or more characters"),
        ("0" * 8, "no model's id begins with '00000000': `tunewright model show` lists them"),
        ("absent.json", "absent.json cannot be read .*No such file"),
    ],
)
def test_an_unknown_model(log: Path, model_id: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run("show", model_id, log=log)


def test_logs_with_too_little_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tuning log at"):
        run("evaluate", log=tmp_path / "absent.db")
    empty = make_log(tmp_path / "empty.db", num_tasks=0)
    with pytest.raises(ConfigError, match="the log has no trials yet: measure some with `tunewright tune`"):
        run("train", "-o", str(tmp_path / "m"), log=empty)
    few = make_log(tmp_path / "few.db", num_tasks=2, num_trials=5)
    with pytest.raises(ConfigError, match=r"has 10 trials with features for x1 .*, a model needs 16"):
        run("train", "-o", str(tmp_path / "m"), log=few)
    one = make_log(tmp_path / "one.db", num_tasks=1)
    with pytest.raises(ConfigError, match=r"trials of 1 task for x1, .* needs 2 or more: tune another model"):
        run("evaluate", log=one)
    small = make_log(tmp_path / "small.db", num_tasks=6, num_trials=3)
    with pytest.raises(ConfigError, match="no task has 4 or more trials for x1"):
        run("evaluate", log=small)
    assert not (tmp_path / "m").exists()


def test_a_log_of_two_cpus(tmp_path: Path) -> None:
    path = make_log(tmp_path / "two.db", num_tasks=3, mcpus=("x1", "x2"))
    with pytest.raises(ConfigError, match=r"2 CPUs, x1 \(40\), x2 \(20\): choose one with --mcpu"):
        run("train", "-o", str(tmp_path / "m"), log=path)
    run("train", "-o", str(tmp_path / "m"), "--mcpu", "x2", log=path)
    assert read_model(tmp_path / "m").mcpu == "x2"
    with pytest.raises(ConfigError, match=r"0 trials with features for x3 \(CPUs in it: x1, x2\)"):
        run("train", "-o", str(tmp_path / "m"), "--mcpu", "x3", log=path)


def test_help_loads_no_learner() -> None:
    code = "import sys, tunewright.cli.model; print('xgboost' in sys.modules, 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
