"""Data frames of what the log returns: the columns, their types, and how they are filled.

Names are those that `tunewright db -f json` prints, with units. Text is `string`, text that repeats in trials
is `category`, moments are aware UTC, a number that may be missing is `float64` with NaN.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tunewright.core.errors import ConfigError
from tunewright.core.types import FailureKind
from tunewright.explore import trial_facts

if TYPE_CHECKING:
    import pandas as pd

    from tunewright.tuning_logs import RankedTrial, SessionSummary, TaskSummary
    from tunewright.tuning_logs.trial_facts import TrialFacts

Row = TypeVar("Row")

TEXT = "string"
LABEL = "category"
COUNT = "int64"
NUMBER = "float64"
FACT = "bool"
MOMENT = "datetime64[us, UTC]"


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a frame: None becomes NaN, NaT or NA, whichever `dtype` has."""

    name: str
    dtype: str
    value: Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A ranked trial with its task; `rank` is 1 for the fastest."""

    task: "TaskSummary"
    rank: int
    ranked: "RankedTrial"


@dataclass(frozen=True, slots=True)
class TaskTrial:
    """A trial with the name of its task's workload."""

    workload: str
    trial: "TrialFacts"


@dataclass(frozen=True, slots=True)
class FailureRow:
    """How many trials ended in one kind of failure, of so many trials in all."""

    kind: FailureKind
    num_trials: int
    num_all_trials: int


def make_frame(rows: Iterable[Row], columns: Sequence[Column[Row]]) -> "pd.DataFrame":
    """A frame with one row each; with no rows the columns keep their types.

    `rows` is read once and not kept: a generator may hold a part of the log at a time.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"data frames need pandas, which cannot be imported ({exc}): pip install 'tunewright[notebooks]'"
        ) from exc
    cells: list[list[object]] = [[] for _ in columns]
    for row in rows:
        for column, values in zip(columns, cells, strict=True):
            values.append(column.value(row))
    return pd.DataFrame(
        {
            column.name: pd.Series(values, dtype=column.dtype)
            for column, values in zip(columns, cells, strict=True)
        }
    )


TASK_COLUMNS: "list[Column[TaskSummary]]" = [
    Column("task_key", TEXT, lambda s: s.task_key),
    Column("workload_key", TEXT, lambda s: s.workload_key),
    Column("workload", TEXT, lambda s: s.name),
    Column("args", TEXT, lambda s: trial_facts.args_text(s.args)),
    Column("target", TEXT, lambda s: str(s.target)),
    Column("mcpu", TEXT, lambda s: s.target.mcpu),
    Column("num_threads", COUNT, lambda s: s.target.num_threads),
    Column("flop", NUMBER, lambda s: s.flop),
    Column("num_trials", COUNT, lambda s: s.num_trials),
    Column("num_failed", COUNT, lambda s: s.num_failed),
    Column("num_pruned", COUNT, lambda s: s.num_pruned),
    Column("num_usable", COUNT, lambda s: s.num_usable),
    Column("best_secs", NUMBER, lambda s: s.best_secs),
    Column("best_gflops", NUMBER, lambda s: s.best_gflops),
]

BEST_COLUMNS: list[Column[RankedRow]] = [
    Column("record_id", COUNT, lambda r: r.ranked.trial.record_id),
    Column("task_key", TEXT, lambda r: r.task.task_key),
    Column("workload_key", TEXT, lambda r: r.task.workload_key),
    Column("workload", TEXT, lambda r: r.task.name),
    Column("target", TEXT, lambda r: str(r.task.target)),
    Column("mcpu", TEXT, lambda r: r.task.target.mcpu),
    Column("num_threads", COUNT, lambda r: r.task.target.num_threads),
    Column("rank", COUNT, lambda r: r.rank),
    Column("best_secs", NUMBER, lambda r: r.ranked.secs),
    Column("best_gflops", NUMBER, lambda r: r.task.flop / r.ranked.secs / 1e9),
    Column("is_raced", FACT, lambda r: r.ranked.is_raced),
    Column("origin", TEXT, lambda r: r.ranked.trial.record.candidate.origin.value),
    Column("strategy", TEXT, lambda r: r.ranked.trial.record.strategy),
    Column("machine_fingerprint", TEXT, lambda r: r.ranked.trial.record.machine.fingerprint),
    Column("session_id", TEXT, lambda r: r.ranked.trial.record.session_id),
    Column("finished_at", MOMENT, lambda r: r.ranked.trial.record.finished_at),
]

SESSION_COLUMNS: "list[Column[SessionSummary]]" = [
    Column("session_id", TEXT, lambda s: s.session_id),
    Column("model", TEXT, lambda s: s.model_name),
    Column("target", TEXT, lambda s: str(s.target)),
    Column("mcpu", TEXT, lambda s: s.target.mcpu),
    Column("num_threads", COUNT, lambda s: s.target.num_threads),
    Column("strategy", TEXT, lambda s: s.strategy),
    Column("seed", COUNT, lambda s: s.seed),
    Column("machine_fingerprint", TEXT, lambda s: s.machine_fingerprint),
    Column("created_at", MOMENT, lambda s: s.created_at),
    Column("num_tasks", COUNT, lambda s: s.num_tasks),
    Column("num_trials", COUNT, lambda s: s.num_trials),
    Column("elapsed_secs", NUMBER, lambda s: s.elapsed_secs),
]

FAILURE_COLUMNS: list[Column[FailureRow]] = [
    Column("kind", TEXT, lambda f: f.kind.value),
    Column("num_trials", COUNT, lambda f: f.num_trials),
    Column("trial_ratio", NUMBER, lambda f: f.num_trials / f.num_all_trials),
]

TRIAL_COLUMNS: list[Column[TaskTrial]] = [
    Column("record_id", COUNT, lambda r: r.trial.record_id),
    Column("session_id", LABEL, lambda r: r.trial.session_id),
    Column("task_key", LABEL, lambda r: r.trial.task_key),
    Column("workload", LABEL, lambda r: r.workload),
    Column("trial_index", COUNT, lambda r: r.trial.trial_index),
    Column("status", LABEL, lambda r: r.trial.status),
    Column("is_verified", FACT, lambda r: r.trial.is_verified),
    Column("median_secs", NUMBER, lambda r: r.trial.median_secs),
    Column("min_secs", NUMBER, lambda r: r.trial.min_secs),
    Column("num_samples", COUNT, lambda r: len(r.trial.run_secs)),
    Column("run_secs", "object", lambda r: r.trial.run_secs),
    Column("build_secs", NUMBER, lambda r: r.trial.build_secs),
    Column("wall_secs", NUMBER, lambda r: r.trial.wall_secs),
    Column("device_secs", NUMBER, lambda r: r.trial.device_secs),
    Column("origin", LABEL, lambda r: r.trial.origin.value),
    Column("strategy", LABEL, lambda r: r.trial.setup.strategy),
    Column("seed", COUNT, lambda r: r.trial.setup.seed),
    Column("predicted_score", NUMBER, lambda r: r.trial.predicted_score),
    Column("model_id", LABEL, lambda r: r.trial.setup.model_id),
    Column("is_noisy", FACT, lambda r: r.trial.is_noisy),
    Column("is_duplicate", FACT, lambda r: r.trial.is_duplicate),
    Column("steal_ratio", NUMBER, lambda r: r.trial.steal_ratio),
    Column("yardstick_secs", NUMBER, lambda r: r.trial.yardstick_secs),
    Column("message", TEXT, lambda r: r.trial.message),
    Column("candidate_key", TEXT, lambda r: r.trial.candidate_key),
    Column("parent_key", TEXT, lambda r: r.trial.parent_key),
    Column("machine_fingerprint", LABEL, lambda r: r.trial.machine.fingerprint),
    Column("tvm_version", LABEL, lambda r: r.trial.machine.tvm_version),
    Column("llvm_version", LABEL, lambda r: r.trial.machine.llvm_version),
    Column("code_version", LABEL, lambda r: r.trial.setup.code_version),
    Column("finished_at", MOMENT, lambda r: r.trial.finished_at),
]
