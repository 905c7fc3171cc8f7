"""`tunewright gate`, as a person or a job types it, on a made-up machine: what is written and shown."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.gate.fakes import FakeTimer
from tests.gate.manifests import make_folder
from tests.gate.repository import Repository
from tunewright.cli.app import main
from tunewright.gate import measure
from tunewright.gate.measure import Pair
from tunewright.gate.statistics import PairGroup
from tunewright.scheduler.manifest import LIBRARY_FILE

pytestmark = pytest.mark.tvm

EFFECTS = {"same": 0.0, "slower": 0.1, "faster": -0.1}


class Machine(FakeTimer):
    """The made-up one, as the command opens it."""

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *exc: object) -> None:
        return None


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(EFFECTS)
    monkeypatch.setattr(measure, "LocalTimer", lambda sample_secs: machine)
    return machine


def gate(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["gate", *map(str, args)])
    return int(caught.value.code or 0)


def write_suite(names: Sequence[str], *, extra: str = "") -> None:
    lines = [extra]
    for name in names:
        for side in ("base", "head"):
            if not Path(side, name).exists():
                make_folder(Path(side, name), library=side.encode())
        lines.append(f'[[tool.tunewright.gate.model]]\nbase = "base/{name}"\nhead = "head/{name}"\n')
    Path("pyproject.toml").write_text("[tool.tunewright.gate]\n" + "\n".join(lines))


def test_a_green_run(timer: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    write_suite(["same", "faster"])
    assert gate("run") == 0
    out, err = capsys.readouterr()
    assert "1 improved, 1 same" in out
    assert "would have found a slowdown of +2." in out and "with 95 % power" in out
    assert "this machine is not calibrated" in err


def test_a_confirmed_regression_and_everything_that_is_written(
    timer: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(["same", "slower"])
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    Path("summary.md").write_text("before\n")
    assert gate("run", "--json", "r.json", "--junit", "r.xml", "--markdown", "r.md") == 1
    assert "slower" in capsys.readouterr().out
    (suite,) = ElementTree.parse("r.xml").getroot()
    assert suite.get("failures") == "1" and suite.get("tests") == "2"
    markdown = Path("r.md").read_text()
    assert "found a regression" in markdown
    assert Path("summary.md").read_text() == "before\n" + markdown
    fields = json.loads(Path("r.json").read_text())
    assert [one["verdict"] for one in fields["results"]] == ["same", "regressed"]
    assert len(fields["run"]["items"][1]["times"]["second"]) == 5


def test_a_saved_baseline_and_a_revision_that_is_built(
    timer: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "project")
    source = make_folder(repository.folder / "source", library=b"old")
    build = "mkdir -p out && cp -r source out/slower"
    suite = repository.folder / "gate.toml"
    suite.write_text(f'build = "{build}"\n[[model]]\nhead = "out/slower"')
    repository.commit()
    assert gate("save", "before", "--suite", suite) == 0
    assert "baselines/before" in capsys.readouterr().out
    (source / LIBRARY_FILE).write_bytes(b"new")
    (repository.folder / "out/slower").rename(repository.folder / "out/earlier")

    assert gate("run", "--suite", suite, "--baseline", "before", "--json", "r.json") == 1
    assert "base is the saved baseline before" in capsys.readouterr().err
    assert gate("run", "--suite", suite, "--baseline", "HEAD", "--json", "r.json") == 1
    err = capsys.readouterr().err
    assert f"building head: {build}\nbase is HEAD, commit " in err and f"building base: {build}" in err
    (item,) = json.loads(Path("r.json").read_text())["run"]["items"]
    assert (item["base"]["source"], item["head"]["source"]) == (
        "slower of HEAD",
        f"{suite.parent}/out/slower",
    )
    assert repository.num_worktrees == 1

    assert gate("run", "--suite", suite, "--baseline", "nothing") == 2
    assert "those saved are before" in capsys.readouterr().err
    suite.write_text('build = "exit 9"\n[[model]]\nhead = "out/slower"')
    assert gate("run", "--suite", suite, "--baseline", "HEAD") == 3
    assert "head cannot be built: 'exit 9' ended with status 9" in capsys.readouterr().err


def test_a_regression_is_accepted_until_a_day(timer: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    write_suite(["slower"])
    assert gate("run", "--json", "r.json") == 1
    assert gate("report", "r.json") == 1
    day = date.today() + timedelta(days=30)
    assert gate("accept", "r.json", "slower", "--reason", "safer", "--until", f"{day}") == 0
    assert "slower may be up to 1" in capsys.readouterr().out
    assert gate("report", "r.json") == 0
    assert f"accepted until {day}: safer" in capsys.readouterr().out
    assert gate("run") == 0
    text = Path("gate-accepted.toml").read_text()
    Path("gate-accepted.toml").write_text(text.replace(str(day), "2020-01-01"))
    assert gate("run") == 1
    assert "expired on 2020-01-01" in capsys.readouterr().out
    assert gate("accept", "r.json", "nobody", "--reason", "x", "--until", f"{day}") == 2
    assert "has no 'nobody'; it has 'slower'" in capsys.readouterr().err


def test_noise_is_inconclusive_or_passes_if_the_suite_says_so(
    timer: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(["same"])
    timer.cv = 0.1
    assert gate("run") == 4
    assert "pairs might do" in capsys.readouterr().out
    write_suite(["same"], extra='inconclusive = "pass"')
    assert gate("run") == 0


def test_a_side_that_does_not_run_is_a_failure_of_the_environment(
    timer: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(["same", "odd"])
    timer.broken = frozenset(["odd"])
    assert gate("run", "--junit", "r.xml") == 3
    assert "head: odd crashed" in capsys.readouterr().out
    assert ElementTree.parse("r.xml").getroot()[0].get("errors") == "1"


def test_usage_and_schema_have_their_own_statuses(timer: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate("run") == 2
    assert "pyproject.toml cannot be read" in capsys.readouterr().err
    write_suite(["same"], extra="alfa = 1")
    assert gate("run") == 2
    Path("r.json").write_text('{"schema": "tunewright-gate/99"}')
    assert gate("report", "r.json") == 6
    assert "has schema 'tunewright-gate/99'" in capsys.readouterr().err
    assert gate("compare", "base/same", "r.json") == 2
    assert "are no pair" in capsys.readouterr().err
    assert gate("compare", "base/same", "head/same", "--min-effect", "lots") == 2


def test_the_noise_floor_of_this_machine_and_no_other_counts(
    timer: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(["same", "slower"])
    timer.effects, timer.cv = {}, 0.35
    assert gate("calibrate") == 0
    out, err = capsys.readouterr()
    assert "19 of 20 experiments" in out and "cannot be told from noise here" in err
    assert len({name for name, _ in timer.log}) == 2
    timer.effects, timer.cv = EFFECTS, 0.005
    assert gate("run", "--json", "r.json") == 0  # +10 % is less than this machine's noise
    assert json.loads(Path("r.json").read_text())["run"]["rule"]["noise_floor_ratio"] > 0.12

    write_suite(["same"], extra='calibration = "noise.json"')
    assert gate("run") == 2
    timer.effects, timer.cv = {}, 0.005
    write_suite(["same"])
    assert gate("calibrate", "-o", "noise.json") == 0
    write_suite(["same"], extra='calibration = "noise.json"')
    assert gate("run") == 0
    fields = json.loads(Path("noise.json").read_text())
    fields["run"]["machine"]["cpu_model"] = "Another CPU"
    Path("noise.json").write_text(json.dumps(fields))
    capsys.readouterr()
    assert gate("run") == 3
    assert "measured on Another CPU" in capsys.readouterr().err


def test_the_made_up_machine_times_as_the_interface_says() -> None:
    timer: measure.PairTimer = Machine({"a": 1.0}, cv=1e-9)
    pair: Pair = measure.ModelPair("a", Path("b"), Path("h"))
    group = timer.time_pairs(pair, num_pairs=3, rng=np.random.default_rng(0))
    assert isinstance(group, PairGroup)
    assert np.allclose(np.array(group.head_secs) / np.array(group.base_secs), 2.0)
