"""What a user does: tune, be interrupted, go on, compile with other weights, run; and every way it fails."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from tests import models
from tunewright.cli.app import main
from tunewright.tuning_logs import TuningLog

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TUNE = [sys.executable, "-m", "tunewright", "tune"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.residual_net(tmp_path_factory.mktemp("model") / "net.onnx", seed=1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "tuning.db"


def start(model: Path, log: Path, *options: str) -> "subprocess.Popen[str]":
    """A tuning session in a process group of its own, as a terminal makes one."""
    return subprocess.Popen(
        [*TUNE, str(model), "--threads", "1", "--json-lines", "--log", str(log), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def events(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    return (json.loads(line) for line in lines)


def wait_for_batches(process: "subprocess.Popen[str]", count: int) -> None:
    assert process.stdout is not None
    for event in events(process.stdout):
        count -= event["event"] == "BatchMeasured"
        if count == 0:
            return
    raise AssertionError(f"the session ended early: {process.communicate()[1]}")


def candidate_keys(log: Path) -> list[str]:
    with TuningLog.open(f"sqlite:///{log}", read_only=True) as opened:
        (session,) = opened.sessions()
        return [trial.record.candidate.key for trial in opened.session_trials(session.session_id)]


def descendants_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_tune_then_reuse_with_other_weights(
    model: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ok(
        "tune", str(model), "--trials", "24", "--threads", "1", "--log", str(log), "-o", str(tmp_path / "t")
    )
    report = capsys.readouterr().out
    assert "24 new trials" in report and "outputs agree with ONNX Runtime's" in report

    other = models.residual_net(tmp_path / "other.onnx", seed=2, prefix="all/other/names/")
    main_ok("compile", str(other), "--strict", "--threads", "1", "--log", str(log), "-o", str(tmp_path / "o"))
    assert "100.0 % of the predicted time, from the log" in capsys.readouterr().out
    assert len(candidate_keys(log)) == 24
    weights = sum(numpy_helper.to_array(weight).nbytes for weight in onnx.load(model).graph.initializer)
    with TuningLog.open(f"sqlite:///{log}", read_only=True) as opened:
        # Constants of shapes and batch norms are folded; what convolutions and products read is not.
        assert 0.5 * weights < opened.record(1).record.evaluator.streamed_bytes <= weights

    image = np.random.default_rng(3).standard_normal((1, 3, 12, 12)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    output = tmp_path / "out.npz"
    for onnx_file, bundle in ((model, "t"), (other, "o")):
        main_ok(
            "run", str(tmp_path / bundle), "--input", str(tmp_path / "image.npy"), "--output", str(output)
        )
        expected = models.run_onnxruntime(onnx_file, {"image": image})
        with np.load(output) as outputs:
            np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], rtol=1e-3)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_session_goes_on(tmp_path: Path, log: Path, signal_number: signal.Signals) -> None:
    """kill -9 of the session alone, and Ctrl-C, which reaches every process of the terminal."""
    model = models.dense_net(tmp_path / "net.onnx")
    process = start(model, log, "--trials", "28")
    wait_for_batches(process, 1)
    children = descendants_of(process)
    assert children
    if signal_number is signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, signal_number)
    _, complaint = process.communicate(timeout=30)
    if signal_number is signal.SIGINT:
        assert process.returncode == 130
        assert "goes on" in complaint and "Traceback" not in complaint
    assert psutil.wait_procs(children, timeout=10)[1] == []
    before = candidate_keys(log)

    process = start(model, log, "--trials", "28")
    stdout, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    after = candidate_keys(log)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == 28
    first, *_ = events(iter(stdout.splitlines()))
    assert first["is_resumed"] is True
    with sqlite3.connect(log) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def main_ok(*args: str) -> None:
    """Run a command that succeeds."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code in (0, None)


def complaint_of(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    """Run a command that fails with this exit code; what it says, which is one line."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    said = capsys.readouterr().err
    assert caught.value.code == code, said
    assert said.startswith("tunewright: ") and said.count("\n") == 1, said
    return said


def test_bad_models_are_one_clear_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ("--log", str(tmp_path / "tuning.db"))
    whole = models.residual_net(tmp_path / "whole.onnx")
    truncated, text = tmp_path / "truncated.onnx", tmp_path / "text.onnx"
    truncated.write_bytes(whole.read_bytes()[:-100])
    text.write_text("this is no model")
    free = models.residual_net(tmp_path / "free.onnx", batch="N")
    unsupported = models.unsupported_net(tmp_path / "unsupported.onnx")
    cases = {
        tmp_path / "missing.onnx": "missing.onnx",
        truncated: "truncated.onnx",
        text: "text.onnx",
        free: "--input-shape",
        unsupported: "the_culprit",
    }
    for path, word in cases.items():
        assert word in complaint_of(capsys, 2, "tune", str(path), "--trials", "1", *log)
    assert "Frobnicate" in complaint_of(capsys, 2, "tune", str(unsupported), "--trials", "1", *log)
    with TuningLog.open(f"sqlite:///{tmp_path / 'tuning.db'}", read_only=True) as opened:
        assert opened.sessions() == []


@pytest.mark.parametrize(
    ("code", "options", "word"),
    [
        (2, ("--target", "pentium9000"), "pentium9000"),
        (2, ("--target", "cuda -arch=sm_90"), "CPU"),
        (2, ("--strategy", "clairvoyant"), "evolutionary"),
        (2, ("--time-budget", "soon"), "soon"),
        (2, ("--input-shape", "image=1,3"), "--input-shape"),
        (3, ("--threads", "4096"), "no core left for timing"),
    ],
)
def test_bad_options_are_one_clear_sentence(
    model: Path, log: Path, capsys: pytest.CaptureFixture[str], code: int, options: tuple[str, ...], word: str
) -> None:
    budget = () if "--time-budget" in options else ("--trials", "1")
    assert word in complaint_of(capsys, code, "tune", str(model), *budget, "--log", str(log), *options)


def test_bad_logs_are_one_clear_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garbage, newer = tmp_path / "garbage.db", tmp_path / "newer.db"
    garbage.write_bytes(b"no database at all" * 100)
    TuningLog.open(f"sqlite:///{newer}").close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE tw_alembic_version SET version_num = '9999'")
    connection.close()
    cases = {garbage: "garbage.db", newer: "newer", tmp_path: str(tmp_path), Path("/proc/none/t.db"): "/proc"}
    for path, word in cases.items():
        with pytest.raises(SystemExit) as caught:
            main(["tune", str(model), "--trials", "1", "--log", str(path)])
        said = capsys.readouterr().err
        assert caught.value.code in (2, 3) and said.count("\n") == 1, said
        assert word in said
    assert garbage.read_bytes() == b"no database at all" * 100
