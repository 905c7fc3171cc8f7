import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.models import residual_net
from tunewright.cli.app import main
from tunewright.core.tvm_adapter.target import host_target, machine_info
from tunewright.core.types import MachinePeak
from tunewright.tuning_logs import TuningLog

pytestmark = [pytest.mark.tvm, pytest.mark.slow]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that knows this machine's peak on one thread."""
    path = tmp_path / "tuning.db"
    peak = MachinePeak(
        machine_info(),
        host_target(num_threads=1),
        1.5e11,
        ((1 << 18, 9e10), (1 << 28, 1.2e10)),
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    with TuningLog.open(f"sqlite:///{path}") as opened:
        opened.add_peak(peak)
    return path


def run(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_known_peak_is_shown_and_not_measured_again(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("machine", "peak", "--threads", "1", "--log", log) == 0
    shown = capsys.readouterr().out
    assert "150.0" in shown and "90 in 256 KiB, 12 in 256 MiB" in shown and "2026-01-01" in shown
    assert run("machine", "peak", "--threads", "1", "--log", log, "-f", "json") == 0
    assert json.loads(capsys.readouterr().out)["flop_per_sec"] == 1.5e11


def test_more_threads_than_cpus_are_refused(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("machine", "peak", "--threads", "100000", "--log", log) == 3
    assert "ask for at most" in capsys.readouterr().err


def test_tasks_are_compared_with_the_peak(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = residual_net(tmp_path / "m.onnx")
    assert run("tasks", path, "--threads", "1", "--log", log, "-f", "json") == 0
    for row in json.loads(capsys.readouterr().out):
        moving_secs = row["bytes"] / (9e10 if row["bytes"] < 1 << 28 else 1.2e10)
        assert row["floor_secs"] == pytest.approx(max(row["flop"] / 1.5e11, moving_secs))
        assert row["peak_ratio"] is None


def test_measured_again_the_fastest_counts(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("machine", "peak", "--threads", "1", "--log", log, "--again", "-f", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["flop_per_sec"] >= 1.5e11
    with TuningLog.open(f"sqlite:///{log}") as opened:
        kept = opened.peak(host_target(num_threads=1), machine_fingerprint=machine_info().fingerprint)
    assert kept is not None and kept.flop_per_sec == shown["flop_per_sec"]
    assert kept.measured_at > datetime(2026, 1, 1, tzinfo=UTC)
