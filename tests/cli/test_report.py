"""`tunewright report` writes a page, or says in one sentence why not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.plots.tuned_log import CONV, MATMUL, add_session, success
from tunewright.cli.app import app
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.tuning_logs import TuningLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(f"sqlite:///{tmp_path}/tuning.db") as tuning_log:
        yield tuning_log


def run(tmp_path: Path, *args: str) -> Result:
    result = CliRunner().invoke(app, ["report", *args, "--log", f"sqlite:///{tmp_path}/tuning.db"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_latest_session_one_by_its_id_and_all(log: TuningLog, tmp_path: Path) -> None:
    add_session(log, "aa11", [(CONV, success(0.5)), (MATMUL, success(0.1))], model_name="old.onnx")
    add_session(log, "bb22", [(CONV, success(0.5)), (MATMUL, success(0.1))], model_name="new.onnx")
    output = tmp_path / "report.html"
    for session, title in (
        ((), "Tuning of new.onnx"),
        (("aa",), "Tuning of old.onnx"),
        (("all",), "Tuning log"),
    ):
        result = run(tmp_path, *session, "-o", str(output))
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"wrote {output}\n")
        assert f"<title>{title}</title>" in output.read_text(encoding="utf-8")


def test_what_cannot_be_reported_is_one_sentence(log: TuningLog, tmp_path: Path) -> None:
    output = str(tmp_path / "x.html")
    with pytest.raises(RecordNotFoundError, match="no session yet"):
        run(tmp_path, "-o", output)
    add_session(log, "aa11", [])
    with pytest.raises(ConfigError, match="none begins with 'zz'; choose one of aa11"):
        run(tmp_path, "zz", "-o", output)
    with pytest.raises(ConfigError, match=r"end its name in \.html"):
        run(tmp_path, "-o", str(tmp_path / "x.pdf"))
    with pytest.raises(ConfigError, match="folder does not exist"):
        run(tmp_path, "-o", str(tmp_path / "no" / "x.html"))
    assert not Path(output).exists()
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match=r"cannot report to '.*folder\.html': Is a directory"):
        run(tmp_path, "-o", str(tmp_path / "folder.html"))
