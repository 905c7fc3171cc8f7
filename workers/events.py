"""What the owner of a job hands to the pool and hears from it."""

import queue
import signal
from dataclasses import dataclass
from enum import StrEnum

from tunewright.core.types import FailureKind
from tunewright.workers.frames import Message

DEFAULT_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job for one forked child.

    `limit_secs` is the wall-clock time from the fork to the child's first message. `memory_bytes` is what
    it may map beyond what the zygote has mapped, `file_bytes` the size of any file that it writes, its own
    output included. An expendable job may be cancelled whenever the zygote is due to be replaced. A sandboxed
    one works on data from outside (`sandbox`): it can write no file and start no thread.
    """

    kind: str
    payload: Message
    cpus: tuple[int, ...]
    limit_secs: float
    memory_bytes: int
    file_bytes: int = DEFAULT_FILE_BYTES
    is_expendable: bool = False
    is_sandboxed: bool = False


class ExitCause(StrEnum):
    """Why a child is gone."""

    ENDED = "ended"  # by itself, or by a signal that we did not send
    DEADLINE = "deadline"  # it was silent for longer than its limit and has been killed
    GARBLED = "garbled"  # it sent what is no message and has been killed
    CANCELLED = "cancelled"  # its owner had it killed
    LOST = "lost"  # the zygote died, or did not answer


@dataclass(frozen=True, slots=True)
class JobMessage:
    """The child has sent a message.

    Its time limit is lifted until the owner sends something, or starts anew if the message has "more" set.
    """

    job_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class JobExit:
    """The child is gone: always the last event of a job, after all its messages.

    `code` or `signal` is None, both are after LOST. `output_tail` holds the last bytes of its stdout and
    stderr.
    """

    job_id: int
    cause: ExitCause
    code: int | None = None
    signal: int | None = None
    max_rss_bytes: int = 0
    output_tail: str = ""


JobEvent = JobMessage | JobExit
Mailbox = queue.SimpleQueue[JobEvent]

_ALLOCATION_TEXTS = ("bad_alloc", "out of memory", "Out of memory", "MemoryError", "Cannot allocate memory")


def classify_exit(event: JobExit, *, is_building: bool, limit_secs: float) -> tuple[FailureKind, str]:
    """Failure kind and message of a child that ended without reporting its result."""
    doing = "building" if is_building else "running"
    kind = FailureKind.BUILD if is_building else FailureKind.RUN
    match event.cause:
        case ExitCause.DEADLINE:
            kind = FailureKind.BUILD_TIMEOUT if is_building else FailureKind.RUN_TIMEOUT
            return kind, _with_tail(f"killed after {limit_secs:g} s of {doing}", event)
        case ExitCause.LOST | ExitCause.CANCELLED:
            return FailureKind.WORKER_LOST, f"the worker process died while {doing}"
        case ExitCause.GARBLED:
            return kind, _with_tail(f"the child wrote garbage to its control socket while {doing}", event)
    if event.signal is None:
        return kind, _with_tail(f"the child ended with exit code {event.code} while {doing}", event)
    name = signal.Signals(event.signal).name
    text = _with_tail(f"the child was killed by {name} while {doing}", event)
    # Nobody but the kernel's out-of-memory killer sends SIGKILL that we did not.
    if event.signal == signal.SIGKILL or any(text in event.output_tail for text in _ALLOCATION_TEXTS):
        return FailureKind.OOM, f"{text} (peak memory {event.max_rss_bytes >> 20} MiB)"
    return kind, text


def _with_tail(text: str, event: JobExit) -> str:
    tail = event.output_tail.strip()
    return f"{text}; its last output: {tail}" if tail else text
