"""What commands about cost models read: the trials of a log, and a model's parameters."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewright.cli import settings
from tunewright.core.errors import ConfigError

if TYPE_CHECKING:
    from tunewright.core.types import RecordedTrial, TaskKey
    from tunewright.cost_model import TrainingSet
    from tunewright.cost_model.hyper_parameters import HyperParameters
    from tunewright.tuning_logs import TaskSummary, TuningLog

McpuOption = Annotated[
    str | None, typer.Option("--mcpu", metavar="CPU", help="Records of this CPU, if the log has several.")
]
ParamsOption = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="Parameters of the cost model, found by `model tune`."),
]

# The newest, some 2 kB each; 20 000 are fit in 1.3 s and judged in 10 s.
_MAX_TRIALS = 200_000
_MIN_TRIALS = 16


def model_params(path: Path | None) -> "HyperParameters":
    """Those of a file, or the defaults.

    Raises:
        ConfigError: the file holds none.
    """
    from tunewright.cost_model.hyper_parameters import DEFAULT, read_hyper_parameters

    return DEFAULT if path is None else read_hyper_parameters(path)


def open_log(log: str | None) -> "TuningLog":
    """The log that an option names, to read only."""
    from tunewright.tuning_logs import TuningLog

    return TuningLog.open(settings.log_url(log), read_only=True)


def training_set_of(
    log: str | None, mcpu: str | None
) -> "tuple[str, dict[TaskKey, TaskSummary], TrainingSet]":
    """The CPU, the log's tasks by key, and what there is to learn from.

    Raises:
        ConfigError: the log has trials of several CPUs and none is chosen, or too few.
    """
    from tunewright.cost_model import make_training_set

    with open_log(log) as tuning_log:
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
