"""`tunewright model tune`: better hyper-parameters of the cost model, if the log's trials say there are any.

Nothing is changed by it: what it finds goes into a file, for `--params` of `tune` and of `model train`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.log_trials import McpuOption, training_set_of
from tunewright.cli.model_tune_columns import COLUMNS, rows_of
from tunewright.cli.output import Format, FormatOption, print_rows
from tunewright.core.errors import ConfigError
from tunewright.core.keys import short_key
from tunewright.core.units import parse_duration_secs

if TYPE_CHECKING:
    from tunewright.scheduler.model_tuning import ModelTuning, TrialDone

DEFAULT_TRIALS = 100
_EXIT_NO = 1
_EXIT_INTERRUPTED = 130


def tune(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Write the parameters here.")
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Parameter sets that the study tries; {DEFAULT_TRIALS} where no budget is given."
        ),
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Time to search for: 90s, 10m, 1h30m.")] = None,
    metric: Annotated[
        str,
        typer.Option(help="What to improve: pairwise_accuracy, top_1_score, top_5_score, ..."),
    ] = "pairwise_accuracy",
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another name is another study of the same trials.")
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep studies here, else in the user's data directory."),
    ] = None,
    mcpu: McpuOption = None,
    log: settings.LogOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Search for parameters with which models rank unseen workloads better, by the log's trials.

    The study keeps what it tried: the same command goes on from there. Its best is compared with the defaults
    on workloads that took no part; where it is not better, nothing is written and the exit status is 1.
    """
    time_secs = parse_duration_secs(time_budget) if time_budget else None
    num_trials = DEFAULT_TRIALS if trials is None and time_secs is None else trials
    from tunewright.core.clock import SystemClock
    from tunewright.cost_model.hyper_parameters import write_hyper_parameters
    from tunewright.scheduler.model_tuning import (
        FIRST_TRIED,
        METRICS,
        RANGES,
        split_by_workload,
        tune_model,
    )
    from tunewright.search.hyper_study import HyperStudy

    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} is unknown; choose one of: {', '.join(METRICS)}")
    cpu, tasks, training_set = training_set_of(log, mcpu)
    split = split_by_workload(training_set, {key: task.workload_key for key, task in tasks.items()})
    path = storage or _default_storage()
    name = study or f"{cpu} {metric} {short_key(split.data_key)}"
    opened = HyperStudy.open(path, name, RANGES, start=FIRST_TRIED, data=f"{metric} {split.data_key}")
    typer.echo(
        f"Study '{name}' in {path}: {opened.num_done} trials so far; {len(split.study)} records of "
        f"{split.num_study_workloads} workloads, {len(split.held_out)} of {split.num_held_out_workloads} "
        "others held out",
        err=True,
    )
    try:
        found = tune_model(
            split,
            opened,
            metric=metric,
            num_trials=num_trials,
            time_secs=time_secs,
            clock=SystemClock(),
            on_trial=_Reporter(),
        )
    except KeyboardInterrupt:
        typer.echo("tunewright: interrupted; what was tried is kept, the same command goes on", err=True)
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    print_rows(rows_of(found), COLUMNS, output_format, empty="")
    typer.echo(_verdict(found), err=True)
    if not found.is_better:
        raise typer.Exit(_EXIT_NO)
    write_hyper_parameters(output, found.params, found=_found(found, cpu=cpu, study=name))
    typer.echo(f"Written to {output}: for --params of `tunewright tune` and `model train`", err=True)


class _Reporter:
    """A line for each trial that is better than all before it."""

    def __init__(self) -> None:
        self._best: float | None = None

    def __call__(self, done: "TrialDone") -> None:
        if self._best is None or done.best_score > self._best:
            self._best = done.best_score
            typer.echo(f"trial {done.number}: {done.best_score:.4f}", err=True)


def _verdict(found: "ModelTuning") -> str:
    chosen = found.chosen
    held_out = f"{found.split.num_held_out_workloads} held-out workloads"
    by = f"{chosen.difference.mean:+.4f} ({chosen.difference.low:+.4f} to {chosen.difference.high:+.4f})"
    if found.is_better:
        return f"The defaults are beaten on {held_out}: {chosen.metric} {by}"
    if found.is_default:
        return f"The defaults are not beaten: they are the best of the {found.num_trials} trials themselves"
    return (
        f"The defaults are not beaten on {held_out}: {chosen.metric} {by}, which may be chance, whatever the "
        "study says of its own workloads. Nothing is written"
    )


def _found(found: "ModelTuning", *, cpu: str, study: str) -> Mapping[str, object]:
    return {
        "study": study,
        "mcpu": cpu,
        "metric": found.metric,
        "num_trials": found.num_trials,
        "num_held_out_workloads": found.split.num_held_out_workloads,
        "held_out": {one.metric: asdict(one) for one in found.comparisons},
    }


def _default_storage() -> Path:
    import platformdirs

    return platformdirs.user_data_path("tunewright") / "studies.db"
