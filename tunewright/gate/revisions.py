"""An earlier state of the repository, checked out beside the working tree, and what is built in it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunewright.core.errors import ConfigError, EnvironmentProblem

SUITE_VARIABLE = "TUNEWRIGHT_GATE_SUITE"
_SHOWN_LINES = 12
# A hook sets these, and then git answers for another repository than that of the folder.
_HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A revision's files. `folder` is what the suite's folder was then, somewhere in `top`."""

    revision: str
    commit: str
    top: Path
    folder: Path

    def path_of(self, path: Path, suite_folder: Path) -> Path:
        """Where a path of the working tree is here.

        Raises:
            ConfigError: it lies outside of the repository.
        """
        relative = os.path.relpath(path.absolute(), suite_folder.absolute())
        found = Path(os.path.normpath(self.folder / relative))
        if not found.is_relative_to(self.top):
            raise ConfigError(
                f"{path} lies outside of the repository of the suite, so that no revision has it: "
                "give a folder or a saved baseline as --baseline"
            )
        return found


def commit_of(folder: Path, revision: str) -> str | None:
    """The commit that git knows by the name, None where it knows none; so where there is no git."""
    try:
        return _git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except ConfigError:
        return None


@contextmanager
def checked_out(folder: Path, revision: str) -> Iterator[Checkout]:
    """The revision's files in a temporary worktree, which is removed at the end, however that comes.

    Raises:
        ConfigError: git does not know the revision, or cannot check it out.
    """
    commit = _git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    prefix = _git(folder, "rev-parse", "--show-prefix")
    top = Path(tempfile.mkdtemp(prefix="tunewright-base-")).resolve() / "tree"
    try:
        # No hooks: they are for people's working trees.
        _git(folder, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(top), commit)
        (top / prefix).mkdir(parents=True, exist_ok=True)
        yield Checkout(revision, commit, top, top / prefix)
    finally:
        shutil.rmtree(top.parent, ignore_errors=True)
        with contextlib.suppress(ConfigError):
            _git(folder, "worktree", "prune")


def run_build(command: str, folder: Path, *, suite_folder: Path, side: str) -> None:
    """Run a line of the shell in a folder; the Python that runs this is the first on its PATH.

    Args:
        suite_folder: of the working tree, for both sides; the command finds it in TUNEWRIGHT_GATE_SUITE.
        side: what is built, for messages.

    Raises:
        EnvironmentProblem: the command fails.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    environ = _environ() | {"PATH": path, SUITE_VARIABLE: str(suite_folder.absolute())}
    with tempfile.TemporaryFile() as noise:
        # A session of its own, so that an interrupt ends the command's children too.
        child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=noise,
            start_new_session=True,
        )
        try:
            status = child.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        if status:
            noise.seek(0)
            lines = noise.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
            raise EnvironmentProblem(
                "\n  ".join((f"{side} cannot be built: {command!r} ended with status {status}", *lines))
            )


def _git(folder: Path, *args: str) -> str:
    """Raises: ConfigError: git fails, or there is none."""
    command = ["git", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=_environ())
    except OSError as exc:
        raise ConfigError(f"git cannot be run ({exc.strerror}): give a folder as --baseline") from exc
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ConfigError(f"git {args[0]} failed: {' '.join(reason)}")
    return done.stdout.decode(errors="surrogateescape").rstrip("\n")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _HOOK_VARIABLES}
