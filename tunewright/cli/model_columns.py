"""What `tunewright model` shows of models and of how well they rank, column by column."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.cli.output import Cell, Column
from tunewright.core.keys import short_key

if TYPE_CHECKING:
    from tunewright.core.types import ModelSnapshot
    from tunewright.cost_model.model_file import ModelFile
    from tunewright.tuning_logs import TaskSummary

_NUM_SHOWN_GAINS = 10
# Name of a metric, and what people see of it.
_METRICS = (
    ("pairwise_accuracy", "pairwise"),
    ("top_1_score", "top-1"),
    ("top_5_score", "top-5"),
    ("top_quarter_recall", "recall"),
    ("spearman", "Spearman"),
)


@dataclass(frozen=True, slots=True)
class Training:
    """A model that was just trained and written to a file."""

    model: "ModelFile"
    path: Path
    fit_secs: float


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A model of the log, or of a file. `gains`: share by column; None where it cannot be loaded."""

    snapshot: "ModelSnapshot"
    file: "ModelFile | None"
    gains: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well the trials of a task that the model has not seen were ranked; of all tasks without one."""

    task: "TaskSummary | None"
    num_candidates: int
    metrics: Mapping[str, float]


def _metric(snapshot: "ModelSnapshot", name: str) -> float | None:
    value = snapshot.metrics.get(name, math.nan)
    return value if math.isfinite(value) else None


def _metrics_text(snapshot: "ModelSnapshot") -> str | None:
    lines = []
    for split, title in (("by_task", "unseen"), ("within_task", "known")):
        found = [(shown, _metric(snapshot, f"{split}_{name}")) for name, shown in _METRICS]
        text = ", ".join(f"{shown} {value:.3f}" for shown, value in found if value is not None)
        lines += [f"{title} tasks: {text}"] if text else []
    return "\n".join(lines) or None


def _metrics(snapshot: "ModelSnapshot") -> Cell:
    return {name: _metric(snapshot, name) for name in sorted(snapshot.metrics)}


def _gains(details: ModelDetails) -> Mapping[str, float] | None:
    if details.gains is None:
        return None
    return dict(sorted(details.gains.items(), key=lambda item: (-item[1], item[0])))


def _gains_text(details: ModelDetails) -> str:
    gains = _gains(details)
    if gains is None:
        return "not readable: the model is of another version of Tunewright"
    return "\n".join(f"{100 * gain:4.1f} %  {name}" for name, gain in list(gains.items())[:_NUM_SHOWN_GAINS])


def _ranking_column(name: str, title: str) -> Column[Ranking]:
    def value(row: Ranking) -> float:
        return row.metrics[name]

    return Column(name, value, title=title, text=lambda row: f"{value(row):.3f}", is_number=True)


def _of_file(get: "Callable[[ModelFile], Cell]") -> Callable[[ModelDetails], Cell]:
    return lambda details: None if details.file is None else get(details.file)


TRAINING_COLUMNS: tuple[Column[Training], ...] = (
    Column("file", lambda t: str(t.path), title="file"),
    Column("model_id", lambda t: t.model.snapshot.model_id, title="model"),
    Column("mcpu", lambda t: t.model.mcpu, title="CPU"),
    Column("num_records", lambda t: t.model.snapshot.n_records, title="records"),
    Column("num_failures", lambda t: t.model.num_failures, title="of them failed"),
    Column("num_tasks", lambda t: t.model.num_tasks, title="tasks"),
    Column("fit_secs", lambda t: t.fit_secs, title="fit", text=lambda t: f"{t.fit_secs:.2f} s"),
    Column(
        "metrics",
        lambda t: _metrics(t.model.snapshot),
        title="ranks",
        text=lambda t: _metrics_text(t.model.snapshot),
    ),
)

MODEL_COLUMNS: "tuple[Column[ModelSnapshot], ...]" = (
    Column("model_id", lambda m: m.model_id, title="model", text=lambda m: short_key(m.model_id)),
    Column("kind", lambda m: m.kind, title="kind", shrinks=True),
    Column("feature_version", lambda m: m.feature_version),
    Column("num_records", lambda m: m.n_records, title="records", is_number=True),
    Column(
        "trained_at",
        lambda m: m.trained_at.isoformat(),
        title="trained (UTC)",
        text=lambda m: m.trained_at.strftime("%Y-%m-%d %H:%M:%S"),
    ),
    Column("metrics", _metrics),
)

DETAIL_COLUMNS: tuple[Column[ModelDetails], ...] = (
    Column("model_id", lambda d: d.snapshot.model_id, title="model"),
    Column("kind", lambda d: d.snapshot.kind, title="kind"),
    Column("feature_version", lambda d: d.snapshot.feature_version, title="features"),
    Column("mcpu", _of_file(lambda f: f.mcpu), title="CPU"),
    Column("num_records", lambda d: d.snapshot.n_records, title="records"),
    Column("num_failures", _of_file(lambda f: f.num_failures), title="of them failed"),
    Column("num_tasks", _of_file(lambda f: f.num_tasks), title="tasks"),
    Column(
        "trained_at",
        lambda d: d.snapshot.trained_at.isoformat(),
        title="trained (UTC)",
        text=lambda d: d.snapshot.trained_at.strftime("%Y-%m-%d %H:%M:%S"),
    ),
    Column(
        "metrics",
        lambda d: _metrics(d.snapshot),
        title="ranks",
        text=lambda d: _metrics_text(d.snapshot),
    ),
    Column("gains", _gains, title="decided by", text=_gains_text),
)

RANKING_COLUMNS: tuple[Column[Ranking], ...] = (
    Column(
        "task_key",
        lambda r: None if r.task is None else r.task.task_key,
        title="task",
        text=lambda r: "all" if r.task is None else short_key(r.task.task_key),
    ),
    Column("workload", lambda r: None if r.task is None else r.task.name, title="workload", shrinks=True),
    Column("num_trials", lambda r: r.num_candidates, title="trials", is_number=True),
    *(_ranking_column(name, title) for name, title in _METRICS[:4]),
    Column("spearman", lambda r: r.metrics["spearman"]),
)
