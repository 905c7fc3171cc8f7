"""Many small pieces of work spread over children, one answer per piece; a crash costs only its piece.

A child answers its pieces in order. When it dies, the first piece without an answer is the culprit: it
fails, and a new child goes on with the rest. So equal pieces give equal answers, however many children
share them.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.core.closeable import Closeable
from tunewright.core.types import FailureKind
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import ExitCause, JobExit, JobMessage, JobSpec, classify_exit
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool

# Native code loses memory now and then; a child may have only so much.
_MAX_PIECES_PER_CHILD = 512
_EXIT_LIMIT_SECS = 5.0


@dataclass(frozen=True, slots=True)
class PieceFailure:
    """A piece of work that has no answer."""

    kind: FailureKind
    message: str


Answer = Any | PieceFailure


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A kind of job that answers "items", a message for each (`child.serve_items`); the limit is for each."""

    kind: str
    limit_secs: float
    memory_bytes: int
    is_sandboxed: bool = False


@dataclass(slots=True)
class _Share:
    """The pieces of one child, by index; `done` of them have been answered."""

    indices: Sequence[int]
    done: int = 0
    is_alone: bool = False
    reported: str | None = None


class Crew(Closeable):
    """Children that do one kind of work; the idle ones wait for the next call, with what they have prepared.

    One call at a time. Closing the pool ends the children too.
    """

    def __init__(self, pool: Pool, spec: StreamSpec) -> None:
        self._pool = pool
        self._spec = spec
        self._jobs = Conversation(pool)
        self._idle: list[int] = []
        self._num_answered: Counter[int] = Counter()

    def answers(self, items: Sequence[Message], common: Message) -> list[Answer]:
        """Answers to all items, in their order: plain JSON values, or `PieceFailure`.

        Args:
            common: what a child gets to know beside its "items".

        Raises:
            EnvironmentProblem: no child can be started here.
        """
        with self._pool.whole_machine:
            try:
                return self._answers(items, common)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Kill all children."""
        self._idle.clear()
        self._jobs.close()

    def _answers(self, items: Sequence[Message], common: Message) -> list[Answer]:
        while (gone := self._jobs.poll(self._idle)) is not None:
            self._idle.remove(gone.job_id)
        answers: list[Answer] = [None] * len(items)
        num_children = min(len(self._pool.cpus), len(items))
        shares = [_Share(range(first, len(items), num_children)) for first in range(num_children)]
        running = {self._assign(items, common, share): share for share in shares}
        alone: deque[_Share] = deque()
        while running or alone:
            if not running:
                share = alone.popleft()
                running[self._assign(items, common, share)] = share
            event = self._jobs.next_of(running)
            share = running[event.job_id]
            if isinstance(event, JobMessage):
                _accept(share, event, answers)
                if share.done == len(share.indices):
                    del running[event.job_id]
                    self._rest(event.job_id, share.done)
                continue
            del running[event.job_id]
            share.indices, share.done = share.indices[share.done :], 0
            if event.cause in (ExitCause.LOST, ExitCause.CANCELLED):
                self._idle.clear()  # they went with the zygote, even where that is still to be reported
                if not share.is_alone:
                    # Who took the zygote down is not known: from now on, this share runs alone.
                    share.is_alone = True
                    alone.append(share)
                    continue
            _blame_first(share, event, self._spec, answers)
            if share.indices:
                running[self._assign(items, common, share)] = share
        return answers

    def _assign(self, items: Sequence[Message], common: Message, share: _Share) -> int:
        call = {**common, "items": [items[index] for index in share.indices]}
        spec = self._spec
        if self._idle:
            job_id = self._idle.pop()
            self._pool.send(job_id, call, limit_secs=spec.limit_secs)
            return job_id
        return self._jobs.start(
            JobSpec(
                spec.kind,
                call,
                self._pool.cpus,
                spec.limit_secs,
                spec.memory_bytes,
                is_expendable=True,
                is_sandboxed=spec.is_sandboxed,
            )
        )

    def _rest(self, job_id: int, num_answered: int) -> None:
        self._num_answered[job_id] += num_answered
        if self._num_answered[job_id] < _MAX_PIECES_PER_CHILD:
            self._idle.append(job_id)
        else:
            del self._num_answered[job_id]
            self._jobs.finish([job_id], limit_secs=_EXIT_LIMIT_SECS)


def _accept(share: _Share, event: JobMessage, answers: list[Answer]) -> None:
    # What a sandboxed child says may be anything.
    if event.message.get("event") == "item":
        answers[share.indices[share.done]] = event.message.get("value")
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
