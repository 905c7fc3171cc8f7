"""`tunewright plot` on a real log file: pictures where there is something to draw, else one sentence."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from tunewright.cli import plot
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    SessionInfo,
    TargetSpec,
    TensorSpec,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.tuning_logs import TuningLog

START = datetime(2026, 1, 2, tzinfo=UTC)
MACHINE = MachineInfo("Test CPU", 2, False, "performance", "6.1", "0.27.0.post1", "0.1.14.post1", "22")


def make_task(name: str) -> TuningTask:
    shape = TensorSpec((8, 8), "float32")
    workload = Workload(name, WorkloadKey(name), "{}", (shape, shape, shape), flop=1024.0)
    return TuningTask(workload, TargetSpec("skylake-avx512", 2))


CONV, MATMUL = make_task("conv2d 8x8 -> 8x8"), make_task("matmul 8x8 -> 8x8")


def success(secs: float) -> MeasureSuccess:
    return MeasureSuccess((secs,), build_secs=0.1, wall_secs=0.5, is_verified=True)


def add_session(log: TuningLog, session_id: str, results: list[tuple[TuningTask, MeasureResult]]) -> None:
    log.add_tasks([CONV, MATMUL])
    weights = {CONV.key: 3, MATMUL.key: 1}
    info = SessionInfo(session_id, "net.onnx", CONV.target, "random", 7, MACHINE, weights, START)
    log.start_session(info)
    records = [
        TuningRecord(
            session_id=session_id,
            trial_index=index,
            candidate=Candidate(task.key, f'["{session_id}",{index}]', Origin.RANDOM),
            result=result,
            evaluator=EvaluatorConfig(),
            machine=MACHINE,
            strategy="random",
            seed=7,
            finished_at=START + timedelta(seconds=index),
            code_version="0",
        )
        for index, (task, result) in enumerate(results)
    ]
    log.append([(record, None) for record in records])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(f"sqlite:///{tmp_path}/tuning.db") as tuning_log:
        yield tuning_log


@pytest.fixture
def tuned(log: TuningLog) -> TuningLog:
    """A log with an older session and a newer one, which leans on what the older one knows of the conv."""
    add_session(log, "aa11", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, success(0.125))])
    failure = MeasureFailure(FailureKind.BUILD, "no", 0.1)
    add_session(log, "bb22", [(MATMUL, failure), (MATMUL, success(0.0625)), (MATMUL, success(0.03))])
    return log


def run(tmp_path: Path, *args: str) -> Result:
    result = CliRunner().invoke(plot.app, [*args, "--log", f"sqlite:///{tmp_path}/tuning.db"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("name", ["curve", "tasks"])
def test_pictures_are_written_in_each_format(tuned: TuningLog, tmp_path: Path, name: str) -> None:
    png, svg = tmp_path / "picture.png", tmp_path / "picture.svg"
    for output in (png, svg):
        result = run(tmp_path, name, "-o", str(output))
        assert result.exit_code == 0
        assert str(output) in result.stderr
        assert result.stdout == ""
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_the_latest_session_is_drawn_and_another_by_the_start_of_its_id(
    tuned: TuningLog, tmp_path: Path
) -> None:
    latest = plot._read(f"sqlite:///{tmp_path}/tuning.db", None)
    assert latest.summary.session_id == "bb22"
    assert len(latest.records) == 3
    assert len(latest.known) == 3
    older = plot._read(f"sqlite:///{tmp_path}/tuning.db", "aa")
    assert older.summary.session_id == "aa11"
    assert older.known == []
    assert older.weights == {CONV.key: 3, MATMUL.key: 1}


def test_one_task_against_seconds(tuned: TuningLog, tmp_path: Path) -> None:
    output = tmp_path / "task.svg"
    assert (
        run(tmp_path, "curve", "bb", "--task", MATMUL.key[:8], "-x", "seconds", "-o", str(output)).exit_code
        == 0
    )
    text = output.read_text()
    assert "matmul 8x8" in text
    assert "measuring time (s)" in text


def test_what_cannot_be_drawn_is_one_sentence(log: TuningLog, tmp_path: Path) -> None:
    output = str(tmp_path / "x.png")
    with pytest.raises(RecordNotFoundError, match="no session yet"):
        run(tmp_path, "curve", "-o", output)
    add_session(log, "aa11", [(CONV, MeasureFailure(FailureKind.BUILD, "no", 0.1))])
    for command in ("curve", "tasks"):
        with pytest.raises(RecordNotFoundError, match="session aa11 with 1 trials: nothing to draw"):
            run(tmp_path, command, "-o", output)
    with pytest.raises(ConfigError, match="none begins with 'zz'; choose one of aa11"):
        run(tmp_path, "curve", "zz", "-o", output)
    with pytest.raises(ConfigError, match=r"end its name in \.png, \.svg, \.pdf"):
        run(tmp_path, "curve", "-o", str(tmp_path / "x.gif"))
    with pytest.raises(ConfigError, match="folder does not exist"):
        run(tmp_path, "curve", "-o", str(tmp_path / "no" / "x.png"))
    assert not Path(output).exists()
