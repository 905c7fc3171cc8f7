"""`open_log`: a tuning log by its URL or path, and what it holds as data frames."""

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from tunewright.core.closeable import Closeable
from tunewright.core.errors import ConfigError, StoreError
from tunewright.core.log_url import file_url, log_url, shown_place
from tunewright.core.trace_text import trace_lines
from tunewright.core.types import TaskKey, TuningTask
from tunewright.explore.comparison import (
    ModelComparison,
    RecordComparison,
    SessionComparison,
    compare_models,
    compare_records,
    compare_sessions,
)
from tunewright.explore.coverage_view import Coverage, read_coverage
from tunewright.explore.frames import (
    BEST_COLUMNS,
    FAILURE_COLUMNS,
    SESSION_COLUMNS,
    TASK_COLUMNS,
    TRIAL_COLUMNS,
    FailureRow,
    RankedRow,
    TaskTrial,
    make_frame,
)
from tunewright.explore.lookup import find_session, find_task
from tunewright.explore.schedule_words import schedule_diff, schedule_words
from tunewright.explore.session_view import Session, read_session
from tunewright.explore.summary_html import problem_html, summary_html
from tunewright.explore.trial_view import Trial, read_trial

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.tuning_logs import TaskSummary, TuningLog


def open_log(url: str | os.PathLike[str] | None = None, *, read_only: bool = True) -> "OpenLog":
    """Open the log at a path or a URL; without one, that of the command line.

    That is `TUNEWRIGHT_LOG`, else a file in the user's data directory. Without `read_only`, a missing file is
    made and an older schema upgraded, with a copy of the file kept beside it.

    Raises:
        ConfigError: no log there, or not a URL of one.
        StoreError: not a tuning log, of another schema, damaged, locked, or not readable.
    """
    # SQLAlchemy is imported where a log is opened: `import tunewright` and the command line answer at once.
    from tunewright.tuning_logs import TuningLog

    full_url = log_url(url) if url is None or isinstance(url, str) else file_url(Path(url))
    return OpenLog(TuningLog.open(full_url, read_only=read_only), place=shown_place(full_url))


class OpenLog(Closeable):
    """A tuning log as data frames and objects to look at; `with` or `close` gives it back.

    A `task` or `session` is named by its whole key or id, or by 8 or more of its first characters. Times of
    different `machine_fingerprint`s do not compare.

    Methods raise `ConfigError` where a task or a session is unknown, the log is closed or pandas is missing,
    and `StoreError` where the log cannot be read.
    """

    def __init__(self, log: "TuningLog", *, place: str) -> None:
        """Args: place: what people are told of where the log is."""
        self._opened: TuningLog | None = log
        self._place = place

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def tasks(self) -> "pd.DataFrame":
        """One row per task, oldest first; `best_secs` is NaN where no trial is usable."""
        return make_frame(self._log.tasks(), TASK_COLUMNS)

    def best(self, task: str | TuningTask | None = None, k: int = 1) -> "pd.DataFrame":
        """The `k` fastest usable records of each task, or of one: verified and not in quarantine.

        `best_secs` is the median of the newest race where `is_raced`, else the trial's own.
        """
        if k < 1:
            raise ConfigError(f"k is {k}: ask for 1 or more records per task")
        tasks = self._log.tasks() if task is None else [self._task(task)]
        ranked = self._log.best_many([summary.task_key for summary in tasks], int(k))
        rows = (
            RankedRow(summary, rank, trial)
            for summary in tasks
            for rank, trial in enumerate(ranked[summary.task_key], start=1)
        )
        return make_frame(rows, BEST_COLUMNS)

    def trials(self, task: str | TuningTask | None = None, session: str | None = None) -> "pd.DataFrame":
        """One row per trial, oldest first: of a task, of a session, of a task in a session, or all.

        `status` is "ok" or the kind of failure. `device_secs` is what running took beside building.
        `median_secs`, `min_secs` and `steal_ratio` are NaN for a failure; of a pruned trial `run_secs` holds
        the one sample after which it was stopped.
        """
        return make_frame(self._trial_rows(task, session), TRIAL_COLUMNS)

    def sessions(self) -> "pd.DataFrame":
        """One row per tuning session, oldest first."""
        return make_frame(self._log.sessions(), SESSION_COLUMNS)

    def failures(self, task: str | TuningTask | None = None, session: str | None = None) -> "pd.DataFrame":
        """One row per kind of failure that occurred, most frequent first, pruned trials among them.

        `trial_ratio` is the share in all trials, successes too.
        """
        task_key = None if task is None else self._task(task).task_key
        session_id = None if session is None else find_session(self._log, session).session_id
        counts = self._log.failure_counts(task_key=task_key, session_id=session_id)
        num_all = self._num_trials(task_key, session_id)
        rows = (FailureRow(kind, number, num_all) for kind, number in counts.items())
        return make_frame(rows, FAILURE_COLUMNS)

    def schedule(self, record_id: int) -> list[str]:
        """The schedule of a record, one line per instruction; what was decided stands behind a `#`.

        Raises:
            RecordNotFoundError: no such record.
        """
        return trace_lines(self._trace_json(record_id))

    def words(self, record_id: int) -> list[str]:
        """What the schedule of a record does, in words: "tile i 8x2x1x32", "vectorize 16".

        Raises:
            RecordNotFoundError: no such record.
        """
        return schedule_words(self._trace_json(record_id))

    def diff(self, record_id: int, other_id: int) -> list[str]:
        """What the second record's schedule does otherwise than the first one's: "tile i 64x16 -> 32x32".

        Raises:
            RecordNotFoundError: no such record.
        """
        return schedule_diff(self._trace_json(record_id), self._trace_json(other_id))

    def session(self, session: str) -> Session:
        """One tuning session: a line on a terminal, a page in a notebook, `to_frame()` its tasks."""
        return read_session(self._log, find_session(self._log, session))

    def trial(self, record_id: int) -> Trial:
        """All about one trial: its times, schedule in words, versions; `to_frame()` its samples.

        Raises:
            RecordNotFoundError: no such record.
        """
        return read_trial(self._log, int(record_id))

    def coverage(
        self,
        model: str | os.PathLike[str],
        *,
        target: str = "host",
        num_threads: int | None = None,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        match: str = "compatible",
    ) -> Coverage:
        """Which kernels of a model have a record, and how much of its predicted time they are.

        Args:
            model: an ONNX file, which TVM imports, or the folder of a compiled model, which needs no TVM.
            target, num_threads, input_shapes: of an ONNX file, as `tunewright compile` takes them.
            match: whose records may be used: "exact", "compatible" or "any".

        Raises:
            ConfigError: no such model, or it cannot be imported.
        """
        return read_coverage(
            self._log,
            Path(model),
            target=target,
            num_threads=num_threads,
            input_shapes=input_shapes,
            match=match,
        )

    @overload
    def compare(self, a: int, b: int, *, tir: bool = False) -> RecordComparison: ...
    @overload
    def compare(self, a: str, b: str) -> SessionComparison: ...
    @overload
    def compare(self, a: Path, b: Path) -> ModelComparison: ...
    def compare(
        self, a: int | str | Path, b: int | str | Path, *, tir: bool = False
    ) -> RecordComparison | SessionComparison | ModelComparison:
        """B against A: two records by their numbers, two sessions by their ids, two folders by their `Path`s.

        Args:
            tir: of records, that TVM applies both schedules, in sandboxed children, and shows the functions.

        Raises:
            ConfigError: A and B are of different kinds; sessions were timed on different machines.
            RecordNotFoundError: no such record.
        """
        if isinstance(a, Path) and isinstance(b, Path):
            return compare_models(a, b)
        if isinstance(a, str) and isinstance(b, str):
            return compare_sessions(self._log, find_session(self._log, a), find_session(self._log, b))
        if isinstance(a, str | Path) or isinstance(b, str | Path):
            raise ConfigError(f"{a!r} and {b!r} do not compare: give two records, two sessions or two Paths")
        return compare_records(self._log, operator.index(a), operator.index(b), tir=tir)

    def __repr__(self) -> str:
        return f"OpenLog({self._place!r}{', closed' if self._opened is None else ''})"

    def _repr_html_(self) -> str:
        if self._opened is None:
            return problem_html(self._place, "closed")
        from tunewright.tuning_logs.schema import HEAD_REVISION

        try:
            # A log that has been opened is of this program's schema.
            return summary_html(self._place, HEAD_REVISION, self._opened.tasks(), self._opened.sessions())
        except StoreError as error:
            return problem_html(self._place, str(error))

    @property
    def _log(self) -> "TuningLog":
        if self._opened is None:
            raise ConfigError(f"the tuning log {self._place} is closed: open it again with open_log")
        return self._opened

    def _trace_json(self, record_id: int) -> str:
        # The database takes Python's integers only, and a cell of a data frame is numpy's.
        return self._log.record(int(record_id)).record.candidate.trace_json

    def _task(self, task: str | TuningTask) -> "TaskSummary":
        return find_task(self._log, task.key if isinstance(task, TuningTask) else task)

    def _trial_rows(self, task: str | TuningTask | None, session: str | None) -> Iterator[TaskTrial]:
        task_key = None if task is None else self._task(task).task_key
        session_id = None if session is None else find_session(self._log, session).session_id
        names: dict[TaskKey, str] = {}
        for trial in self._log.trial_facts(task_key=task_key, session_id=session_id):
            if trial.task_key not in names:  # a session may be adding some right now
                names = {summary.task_key: summary.name for summary in self._log.tasks()}
            yield TaskTrial(names[trial.task_key], trial)

    def _num_trials(self, task_key: TaskKey | None, session_id: str | None) -> int:
        if session_id is not None:
            counts = self._log.count_trials(session_id)
            return sum(counts.values()) if task_key is None else counts.get(task_key, 0)
        return sum(summary.num_trials for summary in self._log.tasks(key_prefix=task_key or ""))
