"""Whole files: read within a limit, written in one step."""

from pathlib import Path

import pytest

from tunewright.core.errors import ConfigError
from tunewright.core.files import read_limited, write_whole


def test_what_is_written_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "a long first content\n")
    write_whole(path, "é\n")
    assert read_limited(path, 3, remedy="none") == "é\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match=r"large is larger than 1 MiB, which no such file is; take another"):
        read_limited(path, 1 << 20, remedy="take another")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"folder cannot be written \(Is a directory\); name another file"):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(ConfigError, match=r"No such file"):
        write_whole(tmp_path / "absent" / "file", "text")
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); make it"):
        read_limited(tmp_path / "absent", 1, remedy="make it")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
