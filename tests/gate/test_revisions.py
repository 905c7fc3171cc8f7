import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.gate.repository import Repository
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.gate.revisions import checked_out, commit_of, run_build


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "project")
    made.commit(model__txt="old")
    made.commit(model__txt="new")
    return made


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_revision_is_checked_out_beside_the_working_tree_and_removed(
    repository: Repository, scratch: Path
) -> None:
    (repository.folder / "model.txt").write_text("not committed")
    with checked_out(repository.folder, "HEAD~1") as found:
        assert (found.folder / "model.txt").read_text() == "old"
        assert found.commit == repository.git("rev-parse", "HEAD~1")
        (found.folder / "built").write_text("x")
        assert found.path_of(repository.folder / "built", repository.folder) == found.folder / "built"
        assert repository.num_worktrees == 2
        with pytest.raises(ConfigError, match="outside of the repository"):
            found.path_of(repository.folder.parent / "x", repository.folder)
    assert repository.num_worktrees == 1
    assert list(scratch.iterdir()) == []
    assert (repository.folder / "model.txt").read_text() == "not committed"


def test_a_suite_may_stand_in_a_folder_that_is_newer_than_the_revision(
    repository: Repository, scratch: Path
) -> None:
    below = repository.folder / "benchmarks"
    below.mkdir()
    with checked_out(below, "HEAD~1") as found:
        assert found.folder == found.top / "benchmarks" and found.folder.is_dir()
        assert found.path_of(below / "../model.txt", below).read_text() == "old"


def test_hooks_neither_run_nor_mislead(
    repository: Repository, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = repository.folder / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    other = Repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    with checked_out(repository.folder, "main~1") as found:
        assert (found.folder / "model.txt").read_text() == "old"
    assert not (tmp_path / "ran").exists()


def test_what_is_no_revision_is_said(repository: Repository, tmp_path: Path) -> None:
    assert commit_of(repository.folder, "main") == repository.git("rev-parse", "HEAD")
    for wrong in ("nothing", "--help", "HEAD:model.txt", ""):
        assert commit_of(repository.folder, wrong) is None
        with pytest.raises(ConfigError, match="git rev-parse failed"), checked_out(repository.folder, wrong):
            pass
    assert commit_of(tmp_path, "main") is None


def test_a_build_knows_its_python_and_the_suite(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    command = 'python -c "import sys; print(sys.prefix)" > out && echo $TUNEWRIGHT_GATE_SUITE >> out'
    run_build(command, folder, suite_folder=tmp_path, side="base")
    assert (folder / "out").read_text().split() == [sys.prefix, str(tmp_path)]


def test_a_build_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"head cannot be built: .* ended with status 7\n  no such"):
        run_build("echo no such compiler >&2; exit 7", tmp_path, suite_folder=tmp_path, side="head")


@pytest.mark.slow
def test_an_interrupt_ends_the_build_and_removes_the_checkout(
    repository: Repository, scratch: Path, tmp_path: Path
) -> None:
    """As Ctrl-C does it: the signal comes while the build runs."""
    code = (
        "import sys; from pathlib import Path\n"
        "from tunewright.gate.revisions import checked_out, run_build\n"
        "folder, suite = map(Path, sys.argv[1:])\n"
        "with checked_out(folder, 'main') as found:\n"
        "    run_build('echo $$ > $TUNEWRIGHT_GATE_SUITE/pid; exec tail -f /dev/null', found.folder,"
        " suite_folder=suite, side='base')\n"
    )
    os.mkfifo(tmp_path / "pid")
    waiting = os.open(tmp_path / "pid", os.O_RDONLY | os.O_NONBLOCK)
    command = [sys.executable, "-c", code, str(repository.folder), str(tmp_path)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert select.select([waiting], [], [], 60)[0]
    build_pid = int(os.read(waiting, 100))
    os.close(waiting)
    assert repository.num_worktrees == 2
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(build_pid, 0)
    assert repository.num_worktrees == 1
    assert list(scratch.iterdir()) == []
