"""Compile, run and bench, as a person types them one after the other."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import dense_net, run_onnxruntime
from tunewright.cli.app import main

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

X = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)


def run(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(autouse=True)
def no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)


def test_a_model_is_compiled_run_and_benchmarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = dense_net(tmp_path / "m.onnx"), tmp_path / "out"
    assert run("compile", model, "-o", folder, "--threads", "1") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("0 of 2 tasks, 0.0 % of the predicted time, from the log\n")
    assert "every task takes the default schedule" in captured.err

    np.save(tmp_path / "x.npy", X)
    assert run("run", folder, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npz") == 0
    expected = run_onnxruntime(model, {"x": X})["y"]
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_allclose(outputs["y"], expected, rtol=1e-4, atol=1e-6)
    capsys.readouterr()
    assert run("run", folder, "--input", f"x={tmp_path / 'x.npy'}", "-f", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["shape"]) == ("y", [4, 16])
    np.testing.assert_allclose(np.array(row["values"]), expected, rtol=1e-4, atol=1e-6)

    assert run("bench", folder, "--against", model, "--rounds", "3", "-f", "json") == 0
    ours, ort = json.loads(capsys.readouterr().out)
    assert (ours["contestant"], ort["contestant"]) == ("tunewright", "onnxruntime")
    assert ours["outputs_agree"] is True and len(ours["turn_secs"]) == 3
    assert ort["speedup_low_ratio"] <= ort["speedup_ratio"] <= ort["speedup_high_ratio"]


def test_strict_says_what_is_missing_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dense_net(tmp_path / "m.onnx")
    assert run("compile", model, "-o", tmp_path / "out", "--strict") == 1
    error = capsys.readouterr().err
    assert "2 of 2 tasks have no usable record" in error
    assert "matmul_add_relu" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "{tmp}"], "is no compiled model"),
        (["bench", "{tmp}/none"], "is no compiled model"),
        (["compile", "{tmp}/none.onnx", "-o", "{tmp}/out"], "does not exist"),
        (["compile", "{tmp}/m.onnx", "-o", "{tmp}"], "exists and is no compiled model"),
        (["compile", "{tmp}/m.onnx", "-o", "{tmp}/o", "--target", "pentium9"], "pentium9"),
        (["run", "{tmp}", "--input", "{tmp}/none.npy"], "none.npy does not exist"),
        (["run", "{tmp}", "--input", "{tmp}/m.onnx"], "cannot be read as .npy"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(
    args: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense_net(tmp_path / "m.onnx")
    assert run(*(arg.format(tmp=tmp_path) for arg in args)) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
