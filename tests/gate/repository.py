"""A small git repository, in which nothing of the user's settings counts."""

import subprocess
from pathlib import Path

_OPTIONS = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")


class Repository:
    """Made in an empty or new folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *args: str) -> str:
        command = ["git", "-C", str(self.folder), *_OPTIONS, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, **files: str) -> str:
        """Write files (a dot in the name is written as two underscores), commit all; the commit."""
        for name, text in files.items():
            (self.folder / name.replace("__", ".")).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "change")
        return self.git("rev-parse", "HEAD")

    @property
    def num_worktrees(self) -> int:
        return len(self.git("worktree", "list").splitlines())
