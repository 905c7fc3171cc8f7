"""`tunewright db verify`: simulated verdicts, and once with real kernels."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.testing

from tests.scheduler.in_process import record
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.cli import db, db_verify
from tunewright.cli.app import main
from tunewright.cli.db_verify import parse_share
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.core.tvm_adapter.target import machine_info
from tunewright.core.types import (
    Candidate,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    TuningTask,
)
from tunewright.scheduler import verify_choice, verify_log
from tunewright.tuning_logs import TuningLog

# This command asks this process's TVM which software it is.
pytestmark = [pytest.mark.tvm, pytest.mark.slow]

KINDS = {"replay": FailureKind.REPLAY, "slow": FailureKind.RUN_TIMEOUT}


class Simulated:
    """Finds right what has no failure's name."""

    def __init__(self) -> None:
        self.machine: MachineInfo = machine_info()
        self.num_batches = 0
        self.interrupts_batch: int | None = None

    def rehearse(self, inputs: Sequence[MeasureInput]) -> list[MeasureFailure | None]:
        return [None] * len(inputs)

    def verify(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        self.num_batches += 1
        if self.num_batches == self.interrupts_batch:
            raise KeyboardInterrupt
        return [self._result(one.candidate, 1) for one in inputs]

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        return [self._result(one.candidate, rounds) for one in inputs]

    def _result(self, candidate: Candidate, num_samples: int) -> MeasureResult:
        name = candidate.trace_json.rstrip("0123456789")
        if name in KINDS:
            return MeasureFailure(KINDS[name], "no \x1b[31mblock", 0.1)
        return MeasureSuccess((0.5,) * num_samples, 0.1, 0.1, is_verified=True)


@pytest.fixture
def task() -> TuningTask:
    return matmul_task()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuning.db"


@pytest.fixture
def store(path: Path, task: TuningTask) -> Callable[..., None]:
    def store_traces(*traces: str) -> None:
        with TuningLog.open(f"sqlite:///{path}") as log:
            for index, trace in enumerate(traces):
                record(log, task, trace, 0.1 * (index + 1), trial_index=index)

    return store_traces


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    verifier = Simulated()

    @contextmanager
    def make(num_threads: int) -> Iterator[Simulated]:
        yield verifier

    monkeypatch.setattr(db_verify, "_make_verifier", make)
    return verifier


def run(path: Path, *args: str) -> typer.testing.Result:
    result = typer.testing.CliRunner().invoke(db.app, ["verify", *args, "--log", str(path)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_all_right(path: Path, store: Callable[..., None], simulated: Simulated) -> None:
    store("a", "b")
    result = run(path, "-k", "2", "--again", "-f", "table")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["record", "task", "workload", "result", "stored", "ms", "now", "ms", "change"]
    assert [line.split()[3:] for line in lines[2:]] == [
        ["right", "100.0", "-", "-"],
        ["right", "200.0", "-", "-"],
    ]
    assert "2 of 2 records verified, 0 in quarantine" in result.stderr
    assert "2 records verified: 2 right" in result.stderr
    assert result.exit_code == 0


def test_what_is_wrong_is_told_and_ends_with_1(
    path: Path, store: Callable[..., None], simulated: Simulated
) -> None:
    store("replay", "a", "slow")
    result = run(path, "-k", "3", "--again", "--remeasure", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["record_id"], row["verdict"], row["result"], row["now_secs"]) for row in rows] == [
        ("1", "quarantined", "replay", ""),
        ("2", "right", "right", "0.5"),
        ("3", "unknown", "run_timeout", ""),
    ]
    assert "no \x1b" in rows[0]["reason"]
    assert "record 1 is in quarantine: verification failed: replay with TVM 0.27" in result.stderr
    assert "record 3 stays as it was: run_timeout: no \\x1b" in result.stderr
    assert "1 slower, 0 faster than stored" in result.stderr
    assert result.exit_code == 1


def test_what_cannot_be_judged_ends_with_3(
    path: Path, store: Callable[..., None], simulated: Simulated
) -> None:
    store("slow")
    with pytest.raises(EnvironmentProblem, match="1 record could not be judged here"):
        run(path, "--again")


def test_nothing_is_done_twice(path: Path, store: Callable[..., None], simulated: Simulated) -> None:
    store("a")
    result = run(path)
    assert (result.stdout, result.exit_code, simulated.num_batches) == ("", 0, 0)
    assert "left out 1 record verified with TVM 0.27" in result.stderr and "--again" in result.stderr
    assert "nothing to verify" in result.stderr
    assert json.loads(run(path, "-f", "json").stdout) == []


def test_another_machines_target_is_skipped_with_a_sentence(
    path: Path, store: Callable[..., None], simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("a")
    monkeypatch.setattr(verify_choice, "missing_features", lambda required: ("avx9",))
    result = run(path, "--again")
    assert "skipped 1 task for " in result.stderr and "this machine lacks avx9" in result.stderr
    assert (result.exit_code, simulated.num_batches) == (0, 0)


def test_an_interrupt_keeps_what_is_recorded_and_goes_on(
    path: Path, store: Callable[..., None], simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_log, "BATCH_SIZE", 2)
    store(*(f"a{n}" for n in range(5)))
    with TuningLog.open(f"sqlite:///{path}") as log:
        (summary,) = log.tasks()
    simulated.interrupts_batch = 2
    args = ("--task", summary.task_key[:8], "-k", "5", "--again")
    result = run(path, *args)
    assert result.exit_code == 130
    assert "interrupted; 2 of 5 records are verified and recorded\n" in result.stderr
    with TuningLog.open(f"sqlite:///{path}") as log:
        assert [len(log.verifications(number)) for number in range(1, 6)] == [1, 1, 0, 0, 0]


def test_a_missing_log_is_not_made(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tuning log at"):
        run(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--sample", "five"], "'five' is no share: write for example 5%"),
        (["--sample", "0"], "more than 0"),
        (["--sample", "5%", "-k", "2"], "leave out -k"),
        (["--task", "00000000"], "no task's key begins"),
    ],
)
def test_wrong_usage(path: Path, store: Callable[..., None], args: list[str], words: str) -> None:
    store("a")
    with pytest.raises(ConfigError, match=words):
        run(path, *args)


@pytest.mark.parametrize(
    ("text", "ratio"), [("5%", 0.05), ("0.05", 0.05), (" 12.5 % ", 0.125), ("100%", 1.0)]
)
def test_shares(text: str, ratio: float) -> None:
    assert parse_share(text) == pytest.approx(ratio)


def test_real_kernels(path: Path, store: Callable[..., None], task: TuningTask) -> None:
    """The fastest one names a block that is not there; the next best is right."""
    instructions, decisions = json.loads(default_trace_json(task))
    instructions[0][2][0] = "no_such_block"
    store(json.dumps([instructions, decisions]), default_trace_json(task))

    first = run(path, "-k", "2", "--again", "--remeasure", "-f", "json")

    assert first.exit_code == 1
    replay, right = json.loads(first.stdout)
    assert (replay["result"], right["result"]) == ("replay", "right")
    assert right["now_secs"] < right["stored_secs"] and right["is_stored"]
    assert run(path, "-k", "2").stdout == ""
    with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
        [ranked] = log.best(task, k=9)
        assert (ranked.trial.record_id, ranked.secs) == (2, right["now_secs"])
    shown = typer.testing.CliRunner().invoke(db.app, ["show", "1", "--log", str(path)]).stdout
    assert "quarantine      verification failed: replay with TVM" in shown
    assert ": replay with TVM " in next(
        line for line in shown.splitlines() if line.startswith("verified (UTC)")
    )


def test_the_command_ends_as_the_others_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["db", "verify", "--log", str(path)])
    assert caught.value.code == 2
    assert "there is no tuning log" in capsys.readouterr().err
