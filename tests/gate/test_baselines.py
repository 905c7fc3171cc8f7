from dataclasses import replace
from pathlib import Path

import pytest

from tests.gate.compiled import DEFAULT, make_log, trace_of
from tests.gate.manifests import make_folder
from tests.gate.repository import Repository
from tests.workers.workloads import matmul_task
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.gate.baselines import Base, build_heads, opened_baseline, save_baseline, saved_names
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite
from tunewright.scheduler.manifest import LIBRARY_FILE, KernelSource
from tunewright.scheduler.schedule_lock import LockedTask, ScheduleLock, write_lock
from tunewright.tuning_logs import TuningLog

BUILD = "mkdir -p build/net && cp source.txt build/net/lib.so && echo $TUNEWRIGHT_GATE_SUITE > build/suite"


def model(folder: Path, name: str = "net") -> ModelEntry:
    return ModelEntry(name, None, folder / "build" / name, 0.02)


def kernels(head: Path | str, name: str = "k") -> KernelsEntry:
    return KernelsEntry(name, None, str(head), None, (), 0.02)


def found(suite: Suite, baseline: str | None, entry: ModelEntry | KernelsEntry) -> Base | None:
    with opened_baseline(suite, baseline) as base_of:
        return base_of(entry)


def test_without_a_baseline_each_entry_names_its_base(tmp_path: Path) -> None:
    entry = model(tmp_path)
    assert found(Suite(), None, replace(entry, base=Path("old"))) == Base("old", "old")
    with pytest.raises(ConfigError, match="'net' has no base: name one, or pass --baseline"):
        found(Suite(), None, entry)


def test_a_folder_holds_what_heads_are_called(tmp_path: Path) -> None:
    base = make_folder(tmp_path / "old/net", library=b"")
    for baseline in (tmp_path / "old", base):
        assert found(Suite(), str(baseline), model(tmp_path)) == Base(str(base), str(base))
    lock = str(tmp_path / "old/x.lock")
    assert found(Suite(), str(tmp_path / "old"), kernels("new/x.lock")) == Base(lock, lock)


def test_a_file_is_the_base_of_kernels(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_text("")
    for baseline in (str(tmp_path / "old.db"), "postgresql://host/logs"):
        assert found(Suite(), baseline, kernels("new.db")) == Base(baseline, baseline)
        with pytest.raises(ConfigError, match="must be a compiled model"):
            found(Suite(), baseline, model(tmp_path))


@pytest.mark.tvm
def test_what_was_saved_is_the_base_by_its_name(tmp_path: Path) -> None:
    """A model, a lock file and a log, which change afterwards."""
    head = make_folder(tmp_path / "build/net", library=b"old")
    task = matmul_task(16)
    locked = LockedTask(task.workload.name, task.key, KernelSource.UNSCHEDULED, None)
    write_lock(ScheduleLock("net", task.target, (locked,)), tmp_path / "net.lock")
    log = make_log(tmp_path / "tuning.db", (task, trace_of(task, DEFAULT)))
    entries = kernels(tmp_path / "net.lock", "lock"), kernels(log, "log")
    suite = Suite(models=(model(tmp_path),), kernels=entries, folder=tmp_path)
    folder = save_baseline(suite, "before")
    assert folder == tmp_path / ".tunewright/baselines/before"
    (head / LIBRARY_FILE).write_bytes(b"new")
    (tmp_path / "net.lock").unlink()
    (tmp_path / "tuning.db").unlink()

    base = found(suite, "before", suite.models[0])
    assert base == Base(str(folder / "net"), "net saved as before")
    assert (folder / "net" / LIBRARY_FILE).read_bytes() == b"old"
    assert found(suite, "before", entries[0]) == Base(str(folder / "net.lock"), "net.lock saved as before")
    with TuningLog.open(f"sqlite:///{folder / 'tuning.db'}", read_only=True) as copy:
        assert [summary.task_key for summary in copy.tasks()] == [task.key]
    assert found(suite, "before", model(tmp_path, "newer")) is None
    assert (tmp_path / ".tunewright/.gitignore").read_text() == "*\n"

    # Once more, with the same name.
    smaller = replace(suite, kernels=())
    save_baseline(smaller, "before")
    assert [path.name for path in folder.iterdir()] == ["net"]
    assert (folder / "net" / LIBRARY_FILE).read_bytes() == b"new"
    assert saved_names(suite) == ["before"]


def test_what_cannot_be_saved_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "build/net", library=b"old")
    suite = Suite(models=(model(tmp_path),), folder=tmp_path)
    folder = save_baseline(suite, "before")
    broken = replace(suite, kernels=(kernels(tmp_path / "none.lock"),))
    with pytest.raises(ConfigError, match=r"none\.lock"):
        save_baseline(broken, "before")
    assert (folder / "net" / LIBRARY_FILE).is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["before"]
    (tmp_path / "taken").mkdir()
    twice = replace(suite, models=(model(tmp_path), model(tmp_path / "elsewhere")))
    for wrong, name, text in (
        (suite, "../x", "is no name"),
        (suite, "taken", "is a file or a revision of git already"),
        (twice, "x", "two heads of the suite are called 'net'"),
        (Suite(folder=tmp_path), "x", "nothing to save"),
    ):
        with pytest.raises(ConfigError, match=text):
            save_baseline(wrong, name)


def test_a_name_that_means_nothing_is_refused_and_the_known_ones_are_said(tmp_path: Path) -> None:
    Repository(tmp_path).commit(a="1")
    make_folder(tmp_path / "build/net", library=b"")
    suite = Suite(models=(model(tmp_path),), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"no saved baseline \(none is saved\)"):
        found(suite, "befor", suite.models[0])
    save_baseline(suite, "before")
    for wrong in ("befor", "../before", "--help"):
        with pytest.raises(
            ConfigError, match=r"no saved baseline \(those saved are before\), and no revision"
        ):
            found(suite, wrong, suite.models[0])
    with pytest.raises(ConfigError, match="a revision of git already"):
        save_baseline(suite, "HEAD")


def test_a_revision_is_built_by_its_own_files_and_head_by_those_here(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "project")
    repository.commit(source__txt="old", net__lock="old lock")
    repository.commit(source__txt="new")
    folder = repository.folder
    suite = Suite(models=(model(folder),), folder=folder, build=BUILD)
    told: list[str] = []
    build_heads(suite, tell=told.append)
    assert (folder / "build/net/lib.so").read_text() == "new"
    with opened_baseline(suite, "HEAD~1", tell=told.append) as base_of:
        base = base_of(suite.models[0])
        assert base is not None and base.shown == "net of HEAD~1"
        assert Path(base.place, LIBRARY_FILE).read_text() == "old"
        assert Path(base.place, "../suite").read_text().strip() == str(folder)
        lock = base_of(kernels(folder / "net.lock"))
        assert lock is not None and Path(lock.place).read_text() == "old lock"
        assert base_of(model(folder, "newer")) is None
        with pytest.raises(ConfigError, match="is a log, of which git knows no revisions"):
            base_of(kernels("postgresql://host/logs"))
    assert not Path(base.place).exists() and repository.num_worktrees == 1
    assert told[0] == f"building head: {BUILD}"
    assert told[1:] == [
        f"base is HEAD~1, commit {repository.git('rev-parse', 'HEAD~1')[:10]}",
        f"building base: {BUILD}",
    ]

    with pytest.raises(ConfigError, match="give the suite a `build`"):
        found(replace(suite, build=None), "HEAD~1", suite.models[0])
    with (
        pytest.raises(
            EnvironmentProblem, match=r"base \(HEAD\) cannot be built: 'exit 3' ended with status 3"
        ),
        opened_baseline(replace(suite, build="exit 3"), "HEAD"),
    ):
        pass
    assert repository.num_worktrees == 1
