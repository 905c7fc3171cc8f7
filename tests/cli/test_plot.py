"""`tunewright plot` on a real log file: pictures where there is something to draw, else one sentence."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from tests.plots.tuned_log import (
    CONV,
    MACHINE,
    MATMUL,
    OTHER_MACHINE,
    START,
    add_session,
    failure,
    success,
)
from tunewright.cli import plot
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.types import MachinePeak
from tunewright.tuning_logs import TuningLog

ONE_SESSION = ("curve", "tasks", "gain", "outcomes", "model", "roofline", "history")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(f"sqlite:///{tmp_path}/tuning.db") as tuning_log:
        yield tuning_log


@pytest.fixture
def tuned(log: TuningLog) -> TuningLog:
    """A log with an older session and a newer one, which leans on what the older one knows of the conv."""
    add_session(log, "aa11", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, success(0.125))])
    results = [(MATMUL, failure()), *((MATMUL, success(secs)) for secs in (0.0625, 0.04, 0.03, 0.05))]
    add_session(log, "bb22", results, scores=[0.1, 0.2, 0.3, 0.4, 0.5], seed=8)
    log.add_peak(MachinePeak(MACHINE, CONV.target, 1e9, ((1024, 1e9),), START))
    return log


def run(tmp_path: Path, *args: str) -> Result:
    result = CliRunner().invoke(plot.app, [*args, "--log", f"sqlite:///{tmp_path}/tuning.db"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def drawn(tmp_path: Path, *args: str) -> str:
    """The picture as SVG; its comments have the text that is drawn."""
    output = tmp_path / "picture.svg"
    result = run(tmp_path, *args, "-o", str(output))
    assert result.exit_code == 0
    assert (result.stdout, result.stderr) == ("", f"wrote {output}\n")
    text = output.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def test_pictures_are_written_in_each_format(tuned: TuningLog, tmp_path: Path) -> None:
    beginnings = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for ending, beginning in beginnings.items():
        output = tmp_path / f"picture.{ending}"
        assert run(tmp_path, "curve", "-o", str(output)).exit_code == 0
        assert output.read_bytes().startswith(beginning)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("curve", ["random, seed 8", "best latency so far (ms)", "trials"]),
        ("tasks", ["conv2d", "tuned: 780 ms per run"]),
        ("gain", ["default schedules", "1,625 ms", "780 ms"]),
        ("outcomes", ["verified: 4 (80.0 %)", "build: 1 (20.0 %)"]),
        ("model", ["rank correlation (Spearman); by chance 0"]),
        ("roofline", ["1 GFLOP/s (float32), 1 GB/s in 1 KiB", "matmul 8x8"]),
        ("history", ["best time (% of the first record)", "matmul 8x8"]),
    ],
)
def test_the_latest_session_is_drawn(
    tuned: TuningLog, tmp_path: Path, kind: str, expected: list[str]
) -> None:
    text = drawn(tmp_path, kind)
    for words in (*expected, "net.onnx on skylake-avx512, 2 threads"):
        assert f"<!-- {words}" in text or words in text


def test_other_views(tuned: TuningLog, tmp_path: Path) -> None:
    assert "predicted place in the batch" in drawn(tmp_path, "model", "--show", "places")
    assert "random points" in drawn(tmp_path, "gain", "--by", "origin")
    assert "50.0" not in drawn(tmp_path, "coverage")
    assert "1 model of the tuning log" in drawn(tmp_path, "coverage")
    text = drawn(tmp_path, "compare", "aa", "bb")
    assert "time of bb22 / time of aa11" in text
    assert "all 1: 125 ms → 30.0 ms" in text


def test_another_session_by_the_start_of_its_id(tuned: TuningLog, tmp_path: Path) -> None:
    assert "random, seed 7" in drawn(tmp_path, "curve", "aa")
    assert "tuned: 875 ms per run" in drawn(tmp_path, "tasks", "aa")


@pytest.mark.parametrize(
    ("x", "label"),
    [
        ("seconds", "build and measuring time (s)"),
        ("device-seconds", "time on the device (s)"),
        ("wall-seconds", "wall time (s)"),
    ],
)
def test_one_task_against_seconds(tuned: TuningLog, tmp_path: Path, x: str, label: str) -> None:
    text = drawn(tmp_path, "curve", "bb", "--task", MATMUL.key[:8], "-x", x)
    assert "matmul 8x8" in text
    assert label in text


def test_sessions_that_differ_in_their_seed_are_one_band(log: TuningLog, tmp_path: Path) -> None:
    for seed in range(3):
        both = [(CONV, success(0.5)), (MATMUL, success(0.1 * (seed + 1)))]
        add_session(log, f"r{seed}", both, seed=seed)
        add_session(log, f"e{seed}", both, seed=seed, strategy="evolutionary")
    text = drawn(tmp_path, "curve", "r0", "r1", "r2", "e0", "e1", "e2")
    assert "random (median and range of 3 runs)" in text
    assert "evolutionary (median and range of 3 runs)" in text


def test_what_cannot_be_drawn_is_one_sentence(log: TuningLog, tmp_path: Path) -> None:
    output = str(tmp_path / "x.png")
    for kind in (*ONE_SESSION, "coverage"):
        with pytest.raises(RecordNotFoundError, match="no session yet"):
            run(tmp_path, kind, "-o", output)
    add_session(log, "aa11", [(CONV, failure())])
    for kind in ("curve", "tasks", "gain", "model", "history"):
        with pytest.raises(RecordNotFoundError, match="session aa11 with 1 trials: nothing to draw"):
            run(tmp_path, kind, "-o", output)
    with pytest.raises(ConfigError, match="measure them there with `tunewright machine peak`"):
        run(tmp_path, "roofline", "-o", output)
    with pytest.raises(RecordNotFoundError, match=r"session aa11 .* session aa11 .*: nothing to draw"):
        run(tmp_path, "compare", "aa", "aa", "-o", output)
    with pytest.raises(ConfigError, match="none begins with 'zz'; choose one of aa11"):
        run(tmp_path, "curve", "zz", "-o", output)
    with pytest.raises(ConfigError, match=r"end its name in \.png, \.svg, \.pdf"):
        run(tmp_path, "curve", "-o", str(tmp_path / "x.gif"))
    with pytest.raises(ConfigError, match="folder does not exist"):
        run(tmp_path, "curve", "-o", str(tmp_path / "no" / "x.png"))
    assert not Path(output).exists()


def test_failures_alone_have_outcomes_and_a_coverage_of_nothing(log: TuningLog, tmp_path: Path) -> None:
    add_session(log, "aa11", [(CONV, failure())])
    assert "build: 1 (100.0 %)" in drawn(tmp_path, "outcomes")
    assert "failures only" in drawn(tmp_path, "coverage")


def test_sessions_of_different_machines_are_not_compared(tuned: TuningLog, tmp_path: Path) -> None:
    add_session(tuned, "cc33", [(CONV, success(0.1))], machine=OTHER_MACHINE)
    with pytest.raises(ConfigError, match="different machines"):
        run(tmp_path, "compare", "aa", "cc", "-o", str(tmp_path / "x.png"))


def test_collecting_goes_on_after_the_command(tuned: TuningLog, tmp_path: Path) -> None:
    assert gc.isenabled()
    drawn(tmp_path, "tasks")
    assert gc.isenabled()


def test_only_what_a_picture_needs_is_imported(tuned: TuningLog, tmp_path: Path) -> None:
    heavy = {"onnx", "onnxruntime", "pandas", "ray", "scipy", "torch", "tvm", "tvm_ffi", "xgboost", "psycopg"}
    script = (
        "import sys; from tunewright.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        f"except SystemExit: print(sorted({heavy!r} & sys.modules.keys()))"
    )
    command = ["plot", "curve", "-o", str(tmp_path / "x.svg"), "--log", f"sqlite:///{tmp_path}/tuning.db"]
    child = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert (child.stdout, child.returncode) == ("[]\n", 0), child.stderr
