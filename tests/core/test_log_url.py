"""Where the log is looked for."""

from pathlib import Path

import platformdirs
import pytest
from sqlalchemy.engine import make_url

from tunewright.core.log_url import file_url, log_url, shown_place


def test_the_option_comes_before_the_environment_and_that_before_the_default() -> None:
    environ = {"TUNEWRIGHT_LOG": "sqlite:////env.db"}
    assert log_url("sqlite:////option.db", environ=environ) == "sqlite:////option.db"
    assert log_url(None, environ=environ) == "sqlite:////env.db"
    default = platformdirs.user_data_path("tunewright") / "tuning.db"
    for nothing in ({}, {"TUNEWRIGHT_LOG": ""}):
        assert log_url(None, environ=nothing) == f"sqlite:///{default}"
    assert log_url("sqlite://", environ=environ) == "sqlite://"


@pytest.mark.parametrize("name", ["tuning.db", "sub folder/50%? #1é+.db", "a%20b.db"])
def test_a_plain_path_is_taken_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (name, str(tmp_path / name)):
        url = make_url(log_url(given, environ={}))
        assert (url.database, dict(url.query)) == (str(tmp_path / name), {})


def test_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert log_url("~/tuning.db", environ={}) == "sqlite:////home/someone/tuning.db"
    assert file_url(Path("~/tuning.db")) == "sqlite:////home/someone/tuning.db"


@pytest.mark.parametrize("name", ["tuning.db", "sub folder/50%? #1é+.db", "a@b:c.db"])
def test_people_see_the_path_of_a_file(name: str, tmp_path: Path) -> None:
    assert shown_place(file_url(tmp_path / name)) == str(tmp_path / name)


def test_people_see_where_a_relative_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_place("sqlite:///tuning.db") == str(tmp_path / "tuning.db")
    assert shown_place("sqlite://") == shown_place("sqlite:///:memory:") == "in memory"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://host/logs", "postgresql+psycopg://host/logs"),
        ("postgresql://host:5432/logs?sslmode=require", "postgresql://host:5432/logs"),
        ("postgresql://ann:s3cret@host:5432/logs", "postgresql://host:5432/logs"),
        ("postgresql://ann@host/logs", "postgresql://host/logs"),
        ("postgresql://ann:s3/c?r#e:t@host/logs?password=s3cret", "postgresql://host/logs"),
        ("postgresql:///logs?user=ann&password=s3c@ret", "postgresql:///logs"),
    ],
)
def test_people_see_no_password(url: str, shown: str) -> None:
    assert shown_place(url) == shown
