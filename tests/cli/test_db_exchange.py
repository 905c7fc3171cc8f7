"""Schedules carried from one log to another, and locks, as a person types it."""

import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.models import dense_net
from tests.scheduler.in_process import NOW, record, sampled_trace
from tunewright.cli.app import main
from tunewright.cli.settings import file_url, log_url
from tunewright.core.tvm_adapter.target import available_cpus, host_target
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.tuning_logs import TuningLog
from tunewright.workers.pool import Pool

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

METASCHEDULE = Path(__file__).parents[1] / "scheduler" / "data" / "metaschedule.tar.gz"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit status, stdout and stderr of a command."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(available_cpus()) as pool:
        yield pool


@pytest.fixture
def one_pool(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a test take the same child processes; elsewhere each of them starts its own."""
    monkeypatch.setattr("tunewright.workers.pool.Pool", lambda cpus: nullcontext(pool))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return dense_net(tmp_path / "net.onnx")


@pytest.fixture
def log(tmp_path: Path, model: Path) -> Path:
    """Each task of the model for one thread has a verified record."""
    path = tmp_path / "tuning.db"
    tasks = partition(import_model(model, target=host_target(num_threads=1))).tasks
    with TuningLog.open(file_url(path)) as opened:
        for index, task in enumerate(tasks):
            record(opened, task, sampled_trace(task), 1e-4, trial_index=index)
    return path


@pytest.mark.usefixtures("one_pool")
def test_a_bundle_takes_schedules_to_another_log(run: Run, model: Path, log: Path, tmp_path: Path) -> None:
    bundle, other = tmp_path / "net.twb", tmp_path / "other.db"
    export = ("db", "export", "--model", model, "--threads", "1", "--log", log)
    status, out, _ = run(*export, "-o", bundle, "--write-lock", tmp_path / "schedules.lock")
    assert status == 0 and "2 records of 2 of 2 tasks" in out
    content = bundle.read_bytes()
    assert run(*export, "-o", bundle)[0] == 0
    assert bundle.read_bytes() == content
    with zipfile.ZipFile(bundle) as archive:
        assert archive.read("schedules.lock") == (tmp_path / "schedules.lock").read_bytes()

    status, out, _ = run("db", "import", bundle, "--log", other)
    assert (status, out.splitlines()[0]) == (0, "stored 2 of 2 records")
    assert "not verified here" in out and "tunewright db verify" in out
    status, out, _ = run("db", "import", bundle, "--log", other)
    assert (status, out) == (0, "stored 0 of 2 records, 2 were there before\n")

    # Not used before somebody has compared its outputs here; then the lock is met there, too.
    compile_ = ("compile", model, "--threads", "1", "--log", other, "-o", tmp_path / "out")
    locked = (*compile_, "--locked", tmp_path / "schedules.lock")
    status, _, err = run(*locked)
    assert status == 1 and err.count("has not been verified here: run tunewright db verify") == 2
    assert not (tmp_path / "out").exists()
    with TuningLog.open(file_url(other)) as opened:
        for summary in opened.tasks():
            for trial in opened.trials(summary.task_key):
                opened.add_race(trial.record_id, trial.record.result.run_secs, NOW, is_verified=True)
    status, out, _ = run(*locked)
    assert status == 0 and "2 of 2 tasks, 100.0 % of the predicted time, from the log" in out


def test_other_weights_hit_everything_other_threads_nothing(run: Run, log: Path, tmp_path: Path) -> None:
    (tmp_path / "renamed").mkdir()
    renamed = dense_net(tmp_path / "renamed" / "net.onnx", seed=7, prefix="other/")
    explain = ("db", "explain", renamed, "--log", log)
    status, out, _ = run(*explain, "--threads", "1", "--strict")
    assert status == 0 and "2 of 2 tasks, 100.0 % of the predicted time, have a record" in out
    status, out, err = run(*explain, "--threads", "2", "--strict")
    assert status == 1 and "2 of 2 tasks have no record that may be used" in err
    assert "0 of 2 tasks, 0.0 % of the predicted time, have a record" in out
    assert out.count("same workload, other target: mcpu=") == 1
    assert out.count("threads=1 (0.1 ms there)") == 1  # one reason, two tasks
    assert "; nearest: record 1\n" in out and "; nearest: record 2\n" in out
    status, out, _ = run(*explain, "--threads", "1", "--target", "x86-64-v3", "-f", "csv")
    assert status == 0 and out.splitlines()[0].startswith("task_key,workload_key,name,calls,predicted_time")
    assert out.count(",false,") == 2


@pytest.mark.usefixtures("one_pool")
def test_a_compiled_model_writes_the_lock_that_it_meets(
    run: Run, model: Path, log: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "locks" / "schedules.lock"
    compile_ = ("compile", model, "--threads", "1", "--log", log, "-o", tmp_path / "out")
    assert run(*compile_, "--match", "exact", "--write-lock", lock)[0] == 0
    content = lock.read_bytes()
    assert [task["schedule"] for task in tomllib.loads(content.decode())["task"]] == ["record", "record"]
    assert run(*compile_, "--locked", lock)[0] == 0
    assert run("db", "export", "--model", model, "--threads", "1", "--log", log, "--write-lock", lock)[0] == 0
    assert lock.read_bytes() == content
    lock.write_bytes(content.replace(b'candidate = "', b'candidate = "x', 1))
    status, _, err = run(*compile_, "--locked", lock)
    assert status == 2 and "no SHA-256" in err
    lock.write_bytes(content.split(b"[[task]]\n")[0] + b"[[task]]\n" + content.split(b"[[task]]\n")[1])
    status, _, err = run(*compile_, "--locked", lock)
    assert status == 1 and "1 of 2 tasks" in err and "the lock does not name this task" in err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["db", "export", "-o", "{tmp}/x.twb"], "give --model FILE"),
        (["db", "export", "--model", "{tmp}/net.onnx"], "give -o FILE, --write-lock FILE, or both"),
        (["db", "import", "{tmp}/net.onnx", "--log", "{tmp}/new.db"], "is damaged or no bundle"),
        (["db", "import", "{tmp}/none.twb", "--log", "{tmp}/new.db"], "cannot be read"),
        (["db", "explain", "{tmp}/net.onnx", "--log", "{tmp}/new.db"], "there is no tuning log at"),
        (["compile", "{tmp}/net.onnx", "-o", "{tmp}/out", "--locked", "{tmp}/none.lock"], "cannot be read"),
        (
            ["compile", "{tmp}/net.onnx", "-o", "{tmp}/out", "--locked", "a", "--write-lock", "b"],
            "exclude each other",
        ),
        (
            ["compile", "{tmp}/net.onnx", "-o", "{tmp}/out", "--locked", "a", "--schedules", "default"],
            "exclude each other: the lock says what to take",
        ),
    ],
)
def test_wrong_usage_ends_with_one_line_and_status_2(
    run: Run, model: Path, tmp_path: Path, args: list[str], expected: str
) -> None:
    status, _, err = run(*(arg.format(tmp=tmp_path) for arg in args))
    assert status == 2 and expected in err and err.count("\n") == 1
    assert not (tmp_path / "new.db").exists()


def test_a_database_of_tvm_comes_in_and_goes_out(run: Run, tmp_path: Path) -> None:
    with tarfile.open(METASCHEDULE) as archive:
        archive.extractall(tmp_path / "theirs", filter="data")
    [folder] = {path.parent for path in (tmp_path / "theirs").rglob("database_workload.json")}

    status, out, _ = run("db", "import", folder)
    assert status == 0
    assert "stored 21 of 21 records of 3 workloads" in out
    assert "run tunewright db verify --unverified" in out
    assert "stored 0 of 21 records" in run("db", "import", folder)[1]

    status, _, err = run("db", "export", "--tvm", tmp_path / "ours")
    assert (status, "no verified record" in err or "no record" in err) == (2, True)
    with TuningLog.open(log_url(None)) as log:
        for summary in log.tasks():
            timed = [trial for trial in log.trials(summary.task_key) if trial.record.best_secs is not None]
            log.add_race(timed[0].record_id, [1e-3], NOW, is_verified=True)
    status, out, _ = run("db", "export", "--tvm", tmp_path / "ours")
    assert (status, "records of 3 workloads" in out) == (0, True)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "database_tuning_record.json",
        "database_workload.json",
    ]
    status, _, err = run("db", "export", "--tvm", tmp_path / "ours")
    assert status == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export"], "nothing says what to export"),
        (["export", "--tvm", "somewhere", "-o", "x.twb"], "leave -o and --write-lock out"),
        (["import", "."], "database_workload.json"),
    ],
)
def test_what_does_not_go_together(
    run: Run, arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("db", *arguments)
    assert (status, words in err) == (2, True)
