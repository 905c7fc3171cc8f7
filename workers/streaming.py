"""Many small pieces of work spread over children, one answer per piece; a crash costs only its piece.

A child answers its pieces in order. When it dies, the first piece without an answer is the culprit: it
fails, and a new child goes on with the rest. So equal pieces give equal answers, however many children
share them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.core.types import FailureKind
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec, classify_exit
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool


@dataclass(frozen=True, slots=True)
class PieceFailure:
    """A piece of work that has no answer."""

    kind: FailureKind
    message: str


Answer = Any | PieceFailure


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A kind of job whose payload is `common` plus a list of "items"; `limit_secs` is for each item."""

    kind: str
    common: Message
    limit_secs: float
    memory_bytes: int


@dataclass(slots=True)
class _Share:
    """The pieces of one child, by index; `done` of them have been answered."""

    indices: Sequence[int]
    done: int = 0
    is_alone: bool = False
    reported: str | None = None


def stream(pool: Pool, spec: StreamSpec, items: Sequence[Message]) -> list[Answer]:
    """Answers to all items, in their order: plain JSON values, or `PieceFailure`.

    Raises:
        EnvironmentProblem: no child can be started here.
    """
    answers: list[Answer] = [None] * len(items)
    num_children = min(len(pool.cpus), len(items))
    with pool.whole_machine, Conversation(pool) as jobs:
        shares = [_Share(range(first, len(items), num_children)) for first in range(num_children)]
        running = {_start(jobs, pool, spec, items, share): share for share in shares}
        alone: deque[_Share] = deque()
        while running or alone:
            if not running:
                share = alone.popleft()
                running[_start(jobs, pool, spec, items, share)] = share
            event = jobs.next_of(running)
            share = running[event.job_id]
            if isinstance(event, JobMessage):
                _accept(share, event, answers)
                continue
            del running[event.job_id]
            share.indices, share.done = share.indices[share.done :], 0
            if not share.indices:
                continue
            if event.cause is ExitCause.LOST and not share.is_alone:
                # Who took the zygote down is not known: from now on, this share runs alone.
                share.is_alone = True
                alone.append(share)
                continue
            _blame_first(share, event, spec, answers)
            if share.indices:
                running[_start(jobs, pool, spec, items, share)] = share
    return answers


def _start(jobs: Conversation, pool: Pool, spec: StreamSpec, items: Sequence[Message], share: _Share) -> int:
    payload = {**spec.common, "items": [items[index] for index in share.indices]}
    return jobs.start(JobSpec(spec.kind, payload, pool.cpus, spec.limit_secs, spec.memory_bytes))


def _accept(share: _Share, event: JobMessage, answers: list[Answer]) -> None:
    if event.message["event"] == "item":
        answers[share.indices[share.done]] = event.message["value"]
        share.done += 1
    else:
        share.reported = str(event.message.get("message"))


def _blame_first(share: _Share, event: JobExit, spec: StreamSpec, answers: list[Answer]) -> None:
    """The first piece without an answer has ended its child: it fails, and leaves the share."""
    culprit, *rest = share.indices
    kind, text = classify_exit(event, is_building=False, limit_secs=spec.limit_secs)
    answers[culprit] = PieceFailure(kind, share.reported or text)
    share.reported = None
    share.indices = rest
