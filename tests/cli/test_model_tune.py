"""`tunewright model tune`, and that what it writes is what other commands take."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer.testing

from tests.cli.test_model import make_log
from tunewright.cli import model
from tunewright.core.errors import ConfigError
from tunewright.cost_model.hyper_parameters import HyperParameters, read_hyper_parameters
from tunewright.cost_model.model_file import read_model
from tunewright.scheduler import model_tuning
from tunewright.scheduler.model_tuning import Estimate, ModelTuning


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_log(tmp_path_factory.mktemp("log") / "tuning.db", num_tasks=12)


def run(*args: str, log: Path) -> typer.testing.Result:
    result = typer.testing.CliRunner().invoke(model.app, [*args, "--log", str(log)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def tune(folder: Path, *args: str, log: Path) -> typer.testing.Result:
    return run("tune", "-o", str(folder / "p.json"), "--storage", str(folder / "s.db"), *args, log=log)


@pytest.fixture
def found_better(monkeypatch: pytest.MonkeyPatch) -> HyperParameters:
    """The study's best is believed: its held-out difference is above chance."""
    real = model_tuning.tune_model
    params = HyperParameters(num_rounds=7, max_depth=2)

    def tune_model(*args: object, **options: object) -> ModelTuning:
        found = real(*args, **options)  # type: ignore[arg-type]
        estimate = Estimate(0.02, 0.01, 0.03)
        comparisons = tuple(replace(one, difference=estimate) for one in found.comparisons)
        return replace(found, params=params, comparisons=comparisons)

    monkeypatch.setattr(model_tuning, "tune_model", tune_model)
    return params


@pytest.mark.slow
def test_a_default_that_is_not_beaten_stays(log: Path, tmp_path: Path) -> None:
    result = tune(tmp_path, "--trials", "1", log=log)
    assert result.exit_code == 1
    assert "0 trials so far; 200 records of 10 workloads, 40 of 2 others held out" in result.stderr
    assert "The defaults are not beaten: they are the best of the 1 trials themselves" in result.stderr
    assert not (tmp_path / "p.json").exists()
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["of", "name", "default", "tuned"]
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout
    rows = json.loads(tune(tmp_path, "--trials", "1", "-f", "json", log=log).stdout)
    assert [row["name"] for row in rows if row["of"] == "parameter"] == list(HyperParameters.__slots__)
    (held_out,) = [row for row in rows if row["of"] == "held out" and row["name"] == "pairwise_accuracy"]
    assert held_out["default_low"] <= held_out["default"] == held_out["tuned"] <= held_out["default_high"]
    assert held_out["difference"] == 0


@pytest.mark.slow
def test_what_is_better_is_written_and_taken(
    log: Path, tmp_path: Path, found_better: HyperParameters
) -> None:
    result = tune(tmp_path, "--trials", "2", "--study", "mine", log=log)
    assert result.exit_code == 0
    assert "The defaults are beaten on 2 held-out workloads: pairwise_accuracy +0.0200" in result.stderr
    path = tmp_path / "p.json"
    assert read_hyper_parameters(path) == found_better
    found = json.loads(path.read_text())["found"]
    assert (found["study"], found["mcpu"], found["num_trials"]) == ("mine", "x1", 2)

    run("train", "-o", str(tmp_path / "tuned"), "--params", str(path), log=log)
    run("train", "-o", str(tmp_path / "plain"), log=log)
    sizes = [len(read_model(tmp_path / name).snapshot.booster_ubj) for name in ("tuned", "plain")]
    assert sizes[0] < sizes[1]
    rankings = [
        json.loads(run("evaluate", "-f", "json", *options, log=log).stdout)[0]["pairwise_accuracy"]
        for options in (("--params", str(path)), ())
    ]
    assert rankings[0] != rankings[1]


@pytest.mark.slow
def test_a_study_goes_on(log: Path, tmp_path: Path) -> None:
    tune(tmp_path, "--trials", "2", log=log)
    again = tune(tmp_path, "--trials", "3", log=log)
    assert ": 2 trials so far" in again.stderr
    with pytest.raises(ConfigError, match="made with other trials or another metric"):
        tune(tmp_path, "--study", "a", "--trials", "1", log=log)
        tune(tmp_path, "--study", "a", "--metric", "spearman", "--trials", "1", log=log)


def test_wrong_usage(log: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="metric 'speed' is unknown; choose one of: pairwise_accuracy, top_1"
    ):
        tune(tmp_path, "--metric", "speed", log=log)
    with pytest.raises(ConfigError, match="No such file"):
        run("train", "-o", str(tmp_path / "m"), "--params", str(tmp_path / "absent"), log=log)
    small = make_log(tmp_path / "small.db", num_tasks=3)
    with pytest.raises(ConfigError, match=r"trials of 3 workloads, .* needs 10 or more"):
        tune(tmp_path, log=small)
