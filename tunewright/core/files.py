"""Files of people and for people: read within a limit, and written in one step."""

import os
from pathlib import Path

from tunewright.core.errors import ConfigError


def read_limited(path: Path, max_bytes: int, *, remedy: str) -> bytes:
    """The content of a file.

    Raises:
        ConfigError: it cannot be read, or is larger than `max_bytes`. Ends with the remedy.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read ({exc.strerror}); {remedy}") from exc
    if len(content) > max_bytes:
        raise ConfigError(f"{path} is larger than {max_bytes >> 20} MiB, which no such file is; {remedy}")
    return content


def write_whole(path: Path, text: str) -> None:
    """Write a text in one step: whoever reads sees the old content or all of the new.

    Raises:
        ConfigError: the file cannot be written.
    """
    # Beside the file, as only a rename within a file system is one step.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); name another file") from exc
