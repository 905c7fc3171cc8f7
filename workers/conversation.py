"""The jobs that one caller has started, and what they say, whichever is listened to."""

from collections import deque
from collections.abc import Container, Sequence

from tunewright.core.closeable import Closeable
from tunewright.workers.events import JobEvent, JobExit, JobSpec
from tunewright.workers.pool import Pool, new_mailbox


class Conversation(Closeable):
    """Starts jobs, sorts their events; leaving the context kills what still runs and was not dismissed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._mailbox = new_mailbox()
        self._alive: set[int] = set()
        self._dismissed: set[int] = set()  # of them nothing is heard any more
        self._unread: deque[JobEvent] = deque()

    def start(self, spec: JobSpec) -> int:
        """Start a job; see `Pool.start`."""
        job_id = self._pool.start(spec, self._mailbox)
        self._alive.add(job_id)
        return job_id

    def next_of(self, job_ids: Container[int]) -> JobEvent:
        """The next event of one of these jobs; those of others are kept for later."""
        for event in self._unread:
            if event.job_id in job_ids:
                self._unread.remove(event)
                return event
        while True:
            heard = self._heard(self._pool.wait(self._mailbox))
            if heard is not None and heard.job_id in job_ids:
                return heard
            self._keep(heard)

    def poll(self, job_ids: Container[int]) -> JobEvent | None:
        """The next event of one of these jobs if it is there already."""
        while not self._mailbox.empty():
            self._keep(self._heard(self._mailbox.get()))
        for event in self._unread:
            if event.job_id in job_ids:
                self._unread.remove(event)
                return event
        return None

    def finish(self, job_ids: Sequence[int], *, limit_secs: float) -> None:
        """Ask children to end, kill those that do not, and return when they are gone."""
        self.dismiss(job_ids, limit_secs=limit_secs)
        self.await_dismissed()

    def dismiss(self, job_ids: Sequence[int], *, limit_secs: float) -> None:
        """Ask children to end, without waiting for it; those that do not are killed."""
        for job_id in job_ids:
            if job_id in self._alive:
                self._pool.send(job_id, {"op": "exit"}, limit_secs=limit_secs)
                self._alive.remove(job_id)
                self._dismissed.add(job_id)
        self._unread = deque(event for event in self._unread if event.job_id not in job_ids)

    def await_dismissed(self) -> None:
        """Return when all that were dismissed are gone."""
        while self._dismissed:
            self._keep(self._heard(self._pool.wait(self._mailbox)))

    def close(self) -> None:
        """Kill what still runs, and return when it is gone."""
        doomed = list(self._alive)
        for job_id in doomed:
            self._pool.cancel(job_id)
        for job_id in doomed:
            self._await_exit(job_id)
        self._unread.clear()

    def _heard(self, event: JobEvent) -> JobEvent | None:
        """The event, but of those that were dismissed."""
        is_dismissed = event.job_id in self._dismissed
        if isinstance(event, JobExit):
            self._alive.discard(event.job_id)
            self._dismissed.discard(event.job_id)
        return None if is_dismissed else event

    def _keep(self, event: JobEvent | None) -> None:
        if event is not None:
            self._unread.append(event)

    def _await_exit(self, job_id: int) -> None:
        while not isinstance(self.next_of((job_id,)), JobExit):
            pass
