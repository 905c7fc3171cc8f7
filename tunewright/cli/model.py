"""`tunewright model`: train a cost model from a tuning log, look into models, see how well they rank.

Nothing here changes the log: `tune` trains its own from the log that it writes to. A model in a file is for
tuning where that log is not.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import model_tune, settings
from tunewright.cli.log_trials import McpuOption, ParamsOption, model_params, open_log, training_set_of
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
    from tunewright.core.types import ModelSnapshot

app = typer.Typer(no_args_is_help=True, help="Train and judge cost models.")

_SEED = 0


app.command("tune")(model_tune.tune)


@app.command()
def train(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write the model here.")],
    mcpu: McpuOption = None,
    params: ParamsOption = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Learn from all records of one CPU; `tunewright tune --cost-model FILE` starts from the file."""
    from tunewright.core.clock import SystemClock
    from tunewright.cost_model.model_file import ModelFile, write_model
    from tunewright.cost_model.xgboost_model import XGBoostCostModel, evaluate_xgboost

    chosen = model_params(params)
    cpu, _, training_set = training_set_of(log, mcpu)
    typer.echo(f"Learning from {len(training_set)} records, then from parts of them ...", err=True)
    clock = SystemClock()
    start = clock.monotonic()
    snapshot = XGBoostCostModel(seed=_SEED, params=chosen).fit(training_set)
    fit_secs = clock.monotonic() - start
    metrics = evaluate_xgboost(training_set, seed=_SEED, params=chosen)
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
        with open_log(log) as tuning_log:
            models = tuning_log.models()
        empty = "the tuning log has no models yet: `tunewright tune` leaves some"
        print_rows(models, MODEL_COLUMNS, output_format, empty=empty)
        return
    print_item(_details(model, log), DETAIL_COLUMNS, output_format)


@app.command()
def evaluate(
    mcpu: McpuOption = None,
    params: ParamsOption = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """How well tasks are ranked by models that learnt from the other tasks of the log only."""
    from tunewright.cost_model.evaluation import MIN_TASKS, mean_metrics, rank_unseen_tasks
    from tunewright.cost_model.xgboost_model import fit_predict

    learner = fit_predict(seed=_SEED, params=model_params(params))
    cpu, tasks, training_set = training_set_of(log, mcpu)
    num_tasks = len(set(training_set.group_tasks))
    if num_tasks < MIN_TASKS:
        raise ConfigError(
            f"the log has trials of {num_tasks} task for {cpu}, and judging by unseen tasks needs "
            f"{MIN_TASKS} or more: tune another model"
        )
    rankings = rank_unseen_tasks(training_set, learner, seed=_SEED)
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
    with open_log(log) as tuning_log:
        found = [m for m in tuning_log.models() if m.model_id.startswith(prefix.lower())]
    if not found:
        raise ConfigError(f"no model's id begins with '{prefix}': `tunewright model show` lists them")
    if len(found) > 1:
        ids = ", ".join(short_key(m.model_id) for m in found[:3])
        raise ConfigError(f"'{prefix}' begins the ids of {len(found)} models ({ids}): give more characters")
    return found[0]
