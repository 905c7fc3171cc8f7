"""The `doctor` command: its lines for people, its JSON, its exit code."""

import functools
import json
import re
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tunewright.cli import doctor, doctor_checks
from tunewright.cli.doctor_checks import Finding, Status

app = typer.Typer()
app.command()(doctor.doctor)

CHECKS = {"compiler", "cpu", "threads", "cpus", "load", "governor", "memory", "ray", "sandbox", "log", "disk"}


def test_report_wraps_below_the_text_and_ends_with_a_verdict() -> None:
    findings = [
        Finding("compiler", Status.OK, "TVM works " * 12),
        Finding("load", Status.WARN, "busy", "stop other programs"),
    ]
    lines = re.sub("\x1b\\[\\d*m", "", doctor.report(findings, width=80)).splitlines()
    assert lines[0].startswith("ok    compiler  TVM works")
    assert lines[1].startswith(" " * 16 + "works TVM")
    assert all(len(line) <= 80 for line in lines)
    assert lines[2:4] == ["warn  load      busy", " " * 16 + "→ stop other programs"]
    assert lines[-1] == "This machine can tune (1 warning)."
    failed = doctor.report([Finding("log", Status.FAIL, "gone")], width=80)
    assert "cannot tune" in failed


@pytest.mark.tvm
@pytest.mark.slow
def test_json_says_that_this_machine_can_tune(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["-f", "json", "--log", f"sqlite:///{tmp_path}/tuning.db"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["can_tune"] is True
    assert {finding["check"] for finding in document["findings"]} == CHECKS
    assert {finding["status"] for finding in document["findings"]} <= {"ok", "warn"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exit_code_3_where_the_compiler_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    segfault = [sys.executable, "-c", "import ctypes; ctypes.string_at(0)"]
    diagnose = functools.partial(doctor_checks.diagnose, self_test=segfault, sample_secs=0.01)
    monkeypatch.setattr(doctor, "diagnose", diagnose)
    result = CliRunner().invoke(app, ["--log", str(tmp_path / "tuning.db")])
    assert result.exit_code == 3
    assert "crashed with SIGSEGV" in result.stdout
    assert "→ pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1\n" in result.stdout
    assert "Traceback" not in result.output
