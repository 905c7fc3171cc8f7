"""Which task or session people mean: they give its key, or as much of it as tells it from the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigError
from tunewright.core.keys import SHORT_KEY_CHARS

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TaskSummary, TuningLog


def find_task(log: "TuningLog", prefix: str) -> "TaskSummary":
    """The task whose key begins with `prefix`, as git finds commits.

    Raises:
        ConfigError: fewer than 8 characters, no such task, or several.
    """
    if len(prefix) < SHORT_KEY_CHARS:
        raise ConfigError(
            f"'{prefix}' is too short for a task key: give {SHORT_KEY_CHARS} or more characters"
        )
    found = log.tasks(key_prefix=prefix.lower())
    if not found:
        raise ConfigError(f"no task's key begins with '{prefix}': `tunewright db list` shows the keys")
    if len(found) > 1:
        raise _ambiguous(prefix, "the keys", "tasks", [summary.task_key for summary in found])
    return found[0]


def find_session(log: "TuningLog", prefix: str) -> "SessionSummary":
    """The session of that id, or the only one whose id begins with it.

    Raises:
        ConfigError: no such session, several, or fewer than 8 characters of an id.
    """
    sessions = log.sessions()
    for summary in sessions:
        if summary.session_id == prefix:
            return summary
    if len(prefix) < SHORT_KEY_CHARS:
        raise ConfigError(
            f"'{prefix}' is too short for a session's id: give {SHORT_KEY_CHARS} or more characters"
        )
    found = [summary for summary in sessions if summary.session_id.startswith(prefix)]
    if not found:
        raise ConfigError(
            f"no session's id begins with '{prefix}': `tunewright db list --sessions` shows the ids"
        )
    if len(found) > 1:
        raise _ambiguous(prefix, "the ids", "sessions", [summary.session_id for summary in found])
    return found[0]


def _ambiguous(prefix: str, which: str, what: str, keys: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"'{prefix}' begins {which} of {len(keys)} {what} ({', '.join(keys[:3])}): give more characters"
    )
