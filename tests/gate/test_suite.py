from pathlib import Path

import pytest

from tunewright.core.errors import ConfigError
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite, has_suite, parse_ratio, read_suite

FULL = """
min_effect = "3%"
alpha = 0.005
looks = [9, 20]
sample_ms = 20
min_cost = "0.5%"
inconclusive = "pass"
calibration = "noise.json"
accepted = "ok.toml"
build = "make models"

[[model]]
base = "old/net"
head = "new/net"
min_effect = 0.05

[[kernels]]
name = "champions"
base = "base.lock"
head = "postgresql+psycopg://somebody@host/logs"
log = "tuning.db"
tasks = ["conv2d*"]
"""


def test_a_file_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(FULL)
    assert read_suite(path) == Suite(
        models=(ModelEntry("net", tmp_path / "old/net", tmp_path / "new/net", 0.05),),
        kernels=(
            KernelsEntry(
                "champions",
                str(tmp_path / "base.lock"),
                "postgresql+psycopg://somebody@host/logs",
                str(tmp_path / "tuning.db"),
                ("conv2d*",),
                0.03,
            ),
        ),
        alpha=0.005,
        looks=(9, 20),
        sample_secs=0.02,
        min_cost_ratio=0.005,
        inconclusive_fails=False,
        calibration=tmp_path / "noise.json",
        accepted=tmp_path / "ok.toml",
        min_effect_ratio=0.03,
        folder=tmp_path,
        build="make models",
    )


def test_pyproject_holds_one_and_says_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = Path("pyproject.toml")
    assert not has_suite(project)
    project.write_text("[tool.other]\nx = 1\n")
    assert not has_suite(project)
    with pytest.raises(ConfigError, match=r"no \[tool.tunewright.gate\]"):
        read_suite(None)
    project.write_text('[[tool.tunewright.gate.model]]\nhead = "out"\n')
    assert has_suite(project)
    suite = read_suite(None)
    assert suite.models == (ModelEntry("out", None, Path("out"), 0.02),)
    assert suite.inconclusive_fails and suite.looks == (15, 30, 50, 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alfa = 0.01", "alfa is not known"),
        ("alpha = 0.7", "less than 0.5"),
        ('min_effect = "much"', 'write a ratio such as 0.02, or "2%"'),
        ("min_effect = 0", "at least"),
        ("looks = [15, 10]", "rising"),
        ("looks = [3]", "from 9"),
        ('looks = ["a"]', "whole numbers"),
        ('inconclusive = "warn"', "'fail'"),
        ("sample_ms = true", "wrong type"),
        ("sample_ms = 0", "0.1 to 60000"),
        ("model = [3]", "write [[model]]"),
        ("[[model]]\nbase = 'x'", "model 1: head is missing"),
        ("[[model]]\nhead = 'x'\n[[model]]\nhead = 'y/x'", "two entries"),
        ("[[kernels]]\nhead = 'a.lock'\ntasks = [1]", "no list of texts"),
        ("[[kernels]]\nhead = 'a.lock'\nlogs = 'x'", "kernels 1: logs is not known"),
        ("= 3", "is no TOML"),
    ],
)
def test_mistakes_are_named(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_suite(path)
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml cannot be read"):
        read_suite(tmp_path / "none.toml")


def test_ratios() -> None:
    assert parse_ratio("2.5 %", "x") == pytest.approx(0.025)
    assert parse_ratio(0, "x") == 0.0
    for wrong in ("2", True, 1.0, -0.1, None):
        with pytest.raises(ConfigError):
            parse_ratio(wrong, "x")
