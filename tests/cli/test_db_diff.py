"""`tunewright db diff` on a real log file."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.explore.test_schedule_words import ruled
from tests.explore.test_tir import other_tile
from tests.plots.tuned_log import CONV, MATMUL, OTHER_MACHINE, START, add_session, failure, success
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.cli import db
from tunewright.core.errors import ConfigError, RecordNotFoundError
from tunewright.core.types import TuningTask
from tunewright.tuning_logs import TuningLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(f"sqlite:///{tmp_path}/tuning.db") as tuning_log:
        yield tuning_log


def add(log: TuningLog, task: TuningTask, trace_json: str, secs: float | None) -> int:
    """The number of a new record."""
    result = failure() if secs is None else success(secs)
    [first] = add_session(log, f"s{trace_json}", [(task, result)], tasks=[task], weights={task.key: 1})
    record = first.record
    candidate = replace(record.candidate, trace_json=trace_json)
    [trial] = log.append([(replace(record, candidate=candidate), None)])
    return trial.record_id


def run(tmp_path: Path, *args: str) -> Result:
    result = CliRunner().invoke(db.app, ["diff", *args, "--log", f"sqlite:///{tmp_path}/tuning.db"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_changes_in_words_beside_the_times(log: TuningLog, tmp_path: Path) -> None:
    a = add(log, CONV, ruled([128, 8], 2), 0.004)
    b = add(log, CONV, ruled([64, 16], 0), 0.002)
    log.add_race(b, (0.001, 0.0011, 0.0012), START)
    result = run(tmp_path, str(a), str(b))
    sides, words = result.stdout.split("\n\n")
    assert [line.split()[0] for line in sides.splitlines()[2:]] == [str(a), str(b)]
    # Median, quartiles, number of samples.
    assert sides.splitlines()[2].split()[-5:-1] == ["4.000", "4.000", "4.000", "1"]
    assert sides.splitlines()[3].split()[-5:-1] == ["1.100", "1.050", "1.150", "3"]
    assert words.splitlines() == [
        "tile i 128x8 -> 64x16",
        "unroll up to 64 steps -> off",
        "vectorize 8 -> 16",
    ]
    assert result.stderr == ""


def test_for_programs(log: TuningLog, tmp_path: Path) -> None:
    a, b = (add(log, CONV, ruled(tile, 0), 0.004) for tile in ([128, 8], [256, 4]))
    changes = json.loads(run(tmp_path, str(a), str(b), "-f", "json").stdout)
    assert changes == [
        {"block": "", "what": "tile i", "before": "128x8", "after": "256x4"},
        {"block": "", "what": "vectorize", "before": "8", "after": "4"},
    ]
    rows = list(csv.DictReader(io.StringIO(run(tmp_path, str(a), str(b), "-f", "csv").stdout)))
    assert rows == changes
    assert json.loads(run(tmp_path, str(a), str(a), "-f", "json").stdout) == []


def test_the_same_schedule_and_that_of_another_task(log: TuningLog, tmp_path: Path) -> None:
    a = add(log, CONV, ruled([128, 8], 2), 0.004)
    assert run(tmp_path, str(a), str(a)).stdout.endswith("\nthe same schedule\n")
    b = add(log, MATMUL, json.dumps(json.loads(ruled([128, 8], 2)), indent=1), None)
    result = run(tmp_path, str(a), str(b))
    assert "different tasks" in result.stderr
    assert "no difference but in what postprocessing made of them" in result.stdout
    assert "build" in result.stdout


def test_a_record_that_is_not_there(log: TuningLog, tmp_path: Path) -> None:
    a = add(log, CONV, ruled([128, 8], 2), 0.004)
    with pytest.raises(RecordNotFoundError, match="no record 99"):
        run(tmp_path, str(a), "99")


def test_of_different_machines(log: TuningLog, tmp_path: Path) -> None:
    a = add(log, CONV, ruled([128, 8], 2), 0.004)
    [abroad] = add_session(log, "abroad", [(CONV, success(0.5))], machine=OTHER_MACHINE)
    result = run(tmp_path, str(a), str(abroad.record_id))
    assert "different machines" in result.stderr


def test_tir_is_for_people(log: TuningLog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --format json"):
        run(tmp_path, "1", "2", "--tir", "-f", "json")


@pytest.mark.tvm
@pytest.mark.slow
def test_what_changed_in_tir(log: TuningLog, tmp_path: Path) -> None:
    task = matmul_task(32)
    trace = default_trace_json(task)
    a, b = (add(log, task, text, 0.004) for text in (trace, other_tile(trace)))
    result = run(tmp_path, str(a), str(b), "--tir")
    words, diff = result.stdout.split(f"\n\n--- record {a}\n+++ record {b}\n")
    assert "tile " in words
    assert {line[0] for line in diff.splitlines()} == {"-", "+", "@", " "}
    assert run(tmp_path, str(a), str(a), "--tir").stdout.endswith("\nthe same schedule\n\nthe same program\n")
