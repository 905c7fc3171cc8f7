"""`tunewright tune`: search the schedules of a model's tasks, keep every trial, show what it brought."""

import tempfile
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.interrupts import InterruptWatch
from tunewright.cli.log_trials import ParamsOption, model_params
from tunewright.cli.match import MatchChoice, match_here
from tunewright.cli.progress import make_reporter
from tunewright.cli.tasks import (
    InputShapeOption,
    ModelArgument,
    TargetOption,
    ThreadsOption,
    import_for_cli,
)
from tunewright.core.errors import ConfigError
from tunewright.core.units import parse_duration_secs

if TYPE_CHECKING:
    from tunewright.core.types import TargetSpec
    from tunewright.scheduler.events import SessionEvent, SessionFinished
    from tunewright.scheduler.importer import ImportedModel
    from tunewright.scheduler.model_bench import BenchReport
    from tunewright.scheduler.partition import Partition
    from tunewright.scheduler.tuning import TuneOptions
    from tunewright.tuning_logs import TuningLog
    from tunewright.workers.local import LocalMeasurer
    from tunewright.workers.ray_cluster import RayMeasurer

    AnyMeasurer = LocalMeasurer | RayMeasurer

DEFAULT_TRIALS = 1000
EXIT_INTERRUPTED = 130
_BENCH_ROUNDS = 10


def tune(
    model: ModelArgument,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help=f"Candidates to measure; {DEFAULT_TRIALS} where no budget is given."),
    ] = None,
    time_budget: Annotated[str | None, typer.Option(help="Time to tune for: 90s, 10m, 1h30m.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Keep the tuned model here.")] = None,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = None,
    target: TargetOption = "host",
    strategy: Annotated[
        str, typer.Option(help="Search strategy: evolutionary, genetic, optuna or random.")
    ] = "evolutionary",
    sampler: Annotated[
        str | None,
        typer.Option(help="Optuna's sampler: tpe (the default), cmaes or random.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another tuning session.")] = 0,
    patience: Annotated[
        int, typer.Option(min=1, help="A task is done after this many trials without a gain of 1 %.")
    ] = 128,
    cluster: Annotated[
        str | None, typer.Option(help="Measure on Ray: local, auto, or the address of a cluster.")
    ] = None,
    cost_model: Annotated[
        Path | None,
        typer.Option(help="Start from this model, made by `model train`, not from the log's records."),
    ] = None,
    params: ParamsOption = None,
    log: settings.LogOption = None,
    json_lines: Annotated[bool, typer.Option(help="One JSON object per event on stdout.")] = False,
) -> None:
    """Tune MODEL until the budget is spent, then measure it before and after.

    Every trial is recorded before it counts: interrupted or killed, the same command goes on from there.
    """
    time_secs = parse_duration_secs(time_budget) if time_budget else None
    url = settings.log_url(log)
    from tunewright.cost_model.model_file import read_model
    from tunewright.scheduler.session import Budget
    from tunewright.scheduler.stitch import check_destination
    from tunewright.scheduler.tuning import TuneOptions, strategy_name
    from tunewright.tuning_logs import TuningLog

    num_trials = DEFAULT_TRIALS if trials is None and time_secs is None else trials
    base_model = None if cost_model is None else read_model(cost_model)
    options = TuneOptions(
        Budget(num_trials, time_secs, patience),
        strategy_name(strategy, sampler),
        seed,
        base_model=None if base_model is None else base_model.snapshot,
        model_params=model_params(params),
    )
    if output is not None:
        check_destination(output)
    # The log and the workers are tried before the model's import: what is wrong with them shows at once.
    with TuningLog.open(url) as tuning_log:
        imported = import_for_cli(model, input_shape, threads=threads, target=target)
        if base_model is not None and base_model.mcpu != imported.target.mcpu:
            raise ConfigError(
                f"the cost model {cost_model} learnt from {base_model.mcpu}, the target is "
                f"{imported.target.mcpu}: train one from records of that CPU with `tunewright model train`"
            )
        parts = _partition(imported)
        with _make_measurer(cluster, imported.target) as measurer:
            finished = _tune(imported, parts, options, tuning_log, measurer, json_lines=json_lines)
        typer.echo("Compiling the model tuned and untuned, and timing both ...", err=True)
        report = _compare(imported, parts, tuning_log, output)
    _show(finished, report, json_lines=json_lines)


def _partition(model: "ImportedModel") -> "Partition":
    from tunewright.scheduler.partition import partition

    parts = partition(model)
    if not parts.tasks:
        raise ConfigError(f"{model.path} has no task that can be tuned")
    return parts


def _make_measurer(cluster: str | None, target: "TargetSpec") -> "AbstractContextManager[AnyMeasurer]":
    from tunewright.workers.config import WorkerConfig

    config = WorkerConfig.for_threads(target.num_threads)
    if cluster is None:
        from tunewright.workers.local import LocalMeasurer

        return LocalMeasurer(config)
    from tunewright.workers.ray_cluster import RayMeasurer

    return RayMeasurer(cluster, num_threads=target.num_threads)


def _tune(
    model: "ImportedModel",
    parts: "Partition",
    options: "TuneOptions",
    log: "TuningLog",
    measurer: "AnyMeasurer",
    *,
    json_lines: bool,
) -> "SessionFinished":
    from tunewright.core.types import EvaluatorConfig
    from tunewright.scheduler.tuning import tune_tasks
    from tunewright.workers.process_space import design_spaces

    evaluator = EvaluatorConfig.for_model(model.weight_bytes, num_threads=model.target.num_threads)
    options = replace(options, evaluator=evaluator)
    reporter = make_reporter(json_lines=json_lines)
    try:
        with InterruptWatch() as watch:

            def on_event(event: "SessionEvent") -> None:
                reporter(event)
                watch.check()

            return tune_tasks(
                parts.tasks,
                options,
                model_name=model.name,
                store=log,
                measurer=measurer,
                make_space=design_spaces(measurer.pool),
                on_event=on_event,
            )
    except KeyboardInterrupt:
        reporter.close()
        typer.echo(
            "tunewright: interrupted; every trial shown is recorded, the same command goes on", err=True
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        reporter.close()


def _compare(
    model: "ImportedModel", parts: "Partition", log: "TuningLog", output: Path | None
) -> "BenchReport":
    """Compile the model tuned and untuned, and time both against ONNX Runtime, interleaved."""
    from tunewright.scheduler.kernel_choice import Variant
    from tunewright.scheduler.model_bench import BenchOptions, Contestant, bench_models
    from tunewright.scheduler.stitch import CompileOptions, compile_model
    from tunewright.workers.config import WorkerConfig
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import replay_all

    with tempfile.TemporaryDirectory(prefix="tunewright-") as scratch:
        tuned, default = output or Path(scratch) / "tuned", Path(scratch) / "default"
        config = WorkerConfig.for_threads(model.target.num_threads)
        with Pool(config.build_cpus) as pool:
            compile_here = partial(
                compile_model, model, tasks=parts, log=log, replay=partial(replay_all, pool)
            )
            compile_here(tuned, options=CompileOptions(match=match_here(MatchChoice.COMPATIBLE)))
            compile_here(default, options=CompileOptions(Variant.DEFAULT))
        contestants = [Contestant("tuned", tuned), Contestant("default schedules", default)]
        if model.is_optimised:  # else ONNX Runtime cannot load it
            contestants.append(Contestant("ONNX Runtime", model.path))
        bench = BenchOptions(num_threads=model.target.num_threads, num_rounds=_BENCH_ROUNDS)
        return bench_models(contestants, bench)


def _show(finished: "SessionFinished", report: "BenchReport", *, json_lines: bool) -> None:
    from tunewright.cli import tune_report

    if json_lines:
        typer.echo(tune_report.to_json(report))
        return
    for line in tune_report.lines(finished, report):
        typer.echo(line)
