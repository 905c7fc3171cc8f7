import json
from pathlib import Path

import pytest

from tests.models import residual_net
from tunewright.cli.app import main
from tunewright.cli.tasks import parse_input_shapes
from tunewright.core.errors import ConfigError


def run(*args: str | Path) -> int:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_input_shapes_are_parsed() -> None:
    assert parse_input_shapes(["image:1,3,8,8", "a:b:2x5"]) == {"image": (1, 3, 8, 8), "a:b": (2, 5)}


@pytest.mark.parametrize("text", ["image", "image:a,b", ":1,2", "1,3,224,224"])
def test_what_is_no_shape_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="is not understood; write NAME:1,3,224,224"):
        parse_input_shapes([text])


def test_an_input_bound_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives 'x' twice"):
        parse_input_shapes(["x:1", "x:2"])


@pytest.mark.tvm
@pytest.mark.slow
def test_tasks_are_listed_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)
    path = residual_net(tmp_path / "m.onnx", batch="N")
    bound = ["--input-shape", "image:1,3,12,12", "--threads", "1"]

    assert run("tasks", path, *bound) == 0
    captured = capsys.readouterr()
    assert "conv2d_add_relu" in captured.out and "predicted" in captured.out
    assert "8 tasks in 9 calls" in captured.err and "0 have a record" in captured.err

    assert run("tasks", path, *bound, "-f", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert sum(row["predicted_time_ratio"] for row in rows) == pytest.approx(1.0)
    assert sum(row["calls"] for row in rows) == 9
    conv = next(row for row in rows if row["name"].startswith("conv2d_add_relu 12x12x8"))
    assert conv["flop_per_byte"] == pytest.approx(conv["flop"] / conv["bytes"])
    assert conv["best_secs"] is None
    assert not (tmp_path / "tunewright").exists()  # looking makes no log


@pytest.mark.tvm
@pytest.mark.slow
def test_a_log_that_is_named_but_missing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = residual_net(tmp_path / "m.onnx")
    assert run("tasks", path, "--log", tmp_path / "none.db") == 2
    assert "none.db" in capsys.readouterr().err


@pytest.mark.tvm
@pytest.mark.slow
def test_a_free_dimension_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = residual_net(tmp_path / "m.onnx", batch="N")
    assert run("tasks", path) == 2
    error = capsys.readouterr().err
    assert "--input-shape image:1,3,12,12" in error and error.count("\n") == 1
