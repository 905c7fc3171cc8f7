"""A pool of forked children: the face of `supervisor` for every thread of the session."""

import itertools
import queue
import threading
from collections.abc import Sequence

from tunewright.core.closeable import Closeable
from tunewright.core.errors import EnvironmentProblem, InternalError
from tunewright.workers.events import JobEvent, JobSpec, Mailbox
from tunewright.workers.frames import Message
from tunewright.workers.supervisor import Supervisor

PRODUCTION_JOBS = "tunewright.workers.jobs:handlers"
_PATIENCE_SECS = 1.0
_MAX_GROWTH_BYTES = 512 << 20


class Pool(Closeable):
    """Runs jobs in children of one zygote, which starts with the first job, or before it with `warm_up`.

    All methods may be called from any thread. `cpus` are the CPUs that jobs without wishes of their own
    spread over. `whole_machine` is held by whoever keeps the CPUs busy: a batch that builds, a candidate
    that is timed, a search that expands; so nothing of ours disturbs a timing.

    Args:
        jobs_module: "module:function" that gives the zygote its job handlers.
        max_growth_bytes: a zygote that has grown by more is replaced when no child is alive.
    """

    def __init__(
        self,
        cpus: Sequence[int],
        *,
        jobs_module: str = PRODUCTION_JOBS,
        max_growth_bytes: int = _MAX_GROWTH_BYTES,
    ) -> None:
        self.cpus = tuple(cpus)
        self.whole_machine = threading.Lock()
        self._ids = itertools.count(1)
        self._supervisor = Supervisor(jobs_module, max_growth_bytes=max_growth_bytes)
        self._is_closed = False
        # A daemon, so that a session which was never closed can still end; the zygote sees its socket close.
        self._thread = threading.Thread(target=self._supervisor.run, name="tunewright-pool", daemon=True)
        self._thread.start()

    @property
    def zygote_pid(self) -> int | None:
        """Process id of the zygote, if one runs."""
        return self._supervisor.zygote_pid

    def warm_up(self) -> None:
        """Start the zygote in the background: the first job will not wait for all of its second."""
        self._supervisor.post(self._supervisor.warm_up)

    def start(self, spec: JobSpec, mailbox: Mailbox) -> int:
        """Start a job; its events go to `mailbox`, the last of them a `JobExit`.

        Raises:
            EnvironmentProblem: the zygote cannot start, or the pool is closed.
        """
        self.check()
        job_id = next(self._ids)
        self._supervisor.post(lambda: self._supervisor.start(job_id, spec, mailbox))
        return job_id

    def send(self, job_id: int, message: Message, *, limit_secs: float | None = None) -> None:
        """Send a message to a child; it is killed if it does not answer within `limit_secs`."""
        if not self._is_closed:
            self._supervisor.post(lambda: self._supervisor.send(job_id, message, limit_secs))

    def cancel(self, job_id: int) -> None:
        """Kill a child; its `JobExit` follows."""
        if not self._is_closed:
            self._supervisor.post(lambda: self._supervisor.cancel(job_id))

    def wait(self, mailbox: Mailbox) -> JobEvent:
        """The next event of a mailbox whose jobs have not all ended."""
        while True:
            try:
                return mailbox.get(timeout=_PATIENCE_SECS)
            except queue.Empty:
                if not self._thread.is_alive():
                    raise InternalError("the pool's thread has died") from None

    def check(self) -> None:
        """Raise EnvironmentProblem if no job can run any more."""
        if self._is_closed:
            raise EnvironmentProblem("the worker pool is closed; make a new measurer")
        if self._supervisor.startup_problem is not None:
            raise EnvironmentProblem(self._supervisor.startup_problem)

    def close(self) -> None:
        """Kill all children and the zygote; every job that still runs ends with `JobExit`."""
        if not self._is_closed:
            self._is_closed = True
            self._supervisor.post(self._supervisor.close)
            self._thread.join()


def new_mailbox() -> Mailbox:
    """An empty mailbox."""
    return queue.SimpleQueue()
