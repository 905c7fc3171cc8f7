"""`tunewright model`: train a cost model from a tuning log, look into models, see how well they rank.

Nothing here changes the log: `tune` trains its own from the log that it writes to. A model in a file is for
tuning where that log is not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.model_columns import (
    DETAIL_COLUMNS,
    MODEL_COLUMNS,
    RANKING_COLUMNS,
    TRAINING_COLUMNS,
    ModelDetails,
    Ranking,
    Training,
)
from tunewright.cli.output import Format, FormatOption, print_item, print_rows
from tunewright.core.errors import ConfigError, ModelError
from tunewright.core.keys import SHORT_KEY_CHARS, short_key

if TYPE_CHECKING:
    from tunewright.core.types import ModelSnapshot, RecordedTrial
    from tunewright.cost_model import TrainingSet
    from tunewright.tuning_logs import TaskSummary, TuningLog

app = typer.Typer(no_args_is_help=True, help="Train and judge cost models.")

McpuOption = Annotated[
    str | None, typer.Option("--mcpu", metavar="CPU", help="Records of this CPU, if the log has several.")
]

_SEED = 0
# The newest, some 2 kB each; 20 000 are fit in 1.3 s and judged in 10 s.
_MAX_TRIALS = 200_000
_MIN_TRIALS = 16


@app.command()
def train(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write the model here.")],
    mcpu: McpuOption = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Learn from all records of one CPU; `tunewright tune --cost-model FILE` starts from the file."""
    from tunewright.core.clock import SystemClock
    from tunewright.cost_model.model_file import ModelFile, write_model
    from tunewright.cost_model.xgboost_model import XGBoostCostModel, evaluate_xgboost

    cpu, _, training_set = _training_set(log, mcpu)
    typer.echo(f"Learning from {len(training_set)} records, then from parts of them ...", err=True)
    clock = SystemClock()
    start = clock.monotonic()
    snapshot = XGBoostCostModel(seed=_SEED).fit(training_set)
    fit_secs = clock.monotonic() - start
    metrics = evaluate_xgboost(training_set, seed=_SEED)
    model = ModelFile(
        replace(snapshot, metrics=metrics),
        mcpu=cpu,
        num_tasks=len(set(training_set.group_tasks)),
        num_failures=int((training_set.label == 0).sum()),
    )
    write_model(output, model)
    print_item(Training(model, output, fit_secs), TRAINING_COLUMNS, output_format)


@app.command()
def show(
    model: Annotated[
        str | None,
        typer.Argument(help="A file that `model train` wrote, or the id of one in the log (8+ characters)."),
    ] = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """The models that tuning sessions left in the log; or one of them, or one in a file, in detail."""
    if model is None:
        with _open(log) as tuning_log:
            models = tuning_log.models()
        empty = "the tuning log has no models yet: `tunewright tune` leaves some"
        print_rows(models, MODEL_COLUMNS, output_format, empty=empty)
        return
    print_item(_details(model, log), DETAIL_COLUMNS, output_format)


@app.command()
def evaluate(
    mcpu: McpuOption = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """How well tasks are ranked by models that learnt from the other tasks of the log only."""
    from tunewright.cost_model.evaluation import MIN_TASKS, mean_metrics, rank_unseen_tasks
    from tunewright.cost_model.xgboost_model import fit_predict

    cpu, tasks, training_set = _training_set(log, mcpu)
    num_tasks = len(set(training_set.group_tasks))
    if num_tasks < MIN_TASKS:
        raise ConfigError(
            f"the log has trials of {num_tasks} task for {cpu}, and judging by unseen tasks needs "
            f"{MIN_TASKS} or more: tune another model"
        )
    rankings = rank_unseen_tasks(training_set, fit_predict(seed=_SEED), seed=_SEED)
    if not rankings:
        raise ConfigError(
            f"no task has 4 or more trials for {cpu} that differ in time: measure more with `tunewright tune`"
        )
    total = sum(ranking.num_candidates for ranking in rankings)
    rows = [Ranking(None, total, mean_metrics(rankings))]
    ordered = sorted(rankings, key=lambda ranking: -ranking.num_candidates)
    rows += [Ranking(tasks[r.task_key], r.num_candidates, r.metrics) for r in ordered]
    print_rows(rows, RANKING_COLUMNS, output_format, empty="")
    if output_format is Format.TABLE:
        num_left_out = num_tasks - len({r.task_key for r in rankings})
        left_out = f"; tasks left out, with fewer than 4 trials: {num_left_out}" if num_left_out else ""
        typer.echo(f"the first line is the mean weighted by trials{left_out}", err=True)


def _open(log: str | None) -> "TuningLog":
    from tunewright.tuning_logs import TuningLog

    return TuningLog.open(settings.log_url(log), read_only=True)


def _training_set(log: str | None, mcpu: str | None) -> "tuple[str, dict[str, TaskSummary], TrainingSet]":
    """The CPU, the log's tasks by key, and what there is to learn from."""
    from tunewright.cost_model import make_training_set

    with _open(log) as tuning_log:
        tasks = tuning_log.tasks()
        cpu = mcpu or _only_cpu(tasks)
        trials: Sequence[RecordedTrial] = tuning_log.training_trials(mcpu=cpu, limit=_MAX_TRIALS)
    training_set = make_training_set(trials)
    if len(training_set) < _MIN_TRIALS:
        known = ", ".join(sorted({task.target.mcpu for task in tasks})) or "none"
        raise ConfigError(
            f"the log has {len(training_set)} trials with features for {cpu} (CPUs in it: {known}), a model "
            f"needs {_MIN_TRIALS}: measure more with `tunewright tune`, or name another --log or --mcpu"
        )
    return cpu, {task.task_key: task for task in tasks}, training_set


def _only_cpu(tasks: "Sequence[TaskSummary]") -> str:
    counts: Counter[str] = Counter()
    for task in tasks:
        counts[task.target.mcpu] += task.num_trials
    if not counts.total():
        raise ConfigError("the log has no trials yet: measure some with `tunewright tune`")
    used = [(mcpu, count) for mcpu, count in counts.most_common() if count]
    if len(used) > 1:
        known = ", ".join(f"{mcpu} ({count})" for mcpu, count in used)
        raise ConfigError(f"the log has trials for {len(used)} CPUs, {known}: choose one with --mcpu")
    return used[0][0]


def _details(model: str, log: str | None) -> ModelDetails:
    from tunewright.cost_model.feature_names import pooled_column_name
    from tunewright.cost_model.model_file import read_model
    from tunewright.cost_model.xgboost_model import XGBoostCostModel

    path = Path(model)
    file = read_model(path) if path.exists() or path.suffix else None
    snapshot = file.snapshot if file is not None else _find_model(model, log)
    try:
        gains = XGBoostCostModel.from_snapshot(snapshot, seed=_SEED).column_gains()
    except ModelError:
        gains = None  # of an earlier version: its figures are still worth seeing
    named = {pooled_column_name(column): gain for column, gain in gains.items()} if gains else None
    return ModelDetails(snapshot, file, named)


def _find_model(prefix: str, log: str | None) -> "ModelSnapshot":
    """The model whose id begins with `prefix`, as git finds commits."""
    if len(prefix) < SHORT_KEY_CHARS:
        raise ConfigError(
            f"'{prefix}' is neither a file nor {SHORT_KEY_CHARS} or more characters of a model's id"
        )
    with _open(log) as tuning_log:
        found = [m for m in tuning_log.models() if m.model_id.startswith(prefix.lower())]
    if not found:
        raise ConfigError(f"no model's id begins with '{prefix}': `tunewright model show` lists them")
    if len(found) > 1:
        ids = ", ".join(short_key(m.model_id) for m in found[:3])
        raise ConfigError(f"'{prefix}' begins the ids of {len(found)} models ({ids}): give more characters")
    return found[0]
