"""What the plots of more than one session draw, and those of the machine's limits; no drawing here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunewright.core.task_shares import improvements
from tunewright.core.types import MachinePeak, TaskKey, Workload
from tunewright.plots.data import Trials, as_columns

if TYPE_CHECKING:
    from tunewright.tuning_logs import TaskSummary

Floats = npt.NDArray[np.float64]

# What the log has for a task, the best first.
HAS_RECORD, IN_QUARANTINE, UNVERIFIED, FAILED, UNTRIED = (
    "verified record",
    "in quarantine",
    "not verified",
    "failures only",
    "no trial",
)
STATES = (HAS_RECORD, IN_QUARANTINE, UNVERIFIED, FAILED, UNTRIED)


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A task's best record: its work per byte of its arguments, and how fast it does it."""

    name: str
    flop_per_byte: float
    gflops: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """What a machine can do at most, and what the best records do, the costliest task first.

    `gbytes_per_sec`: (bytes of a working set, GB/s in it), the smallest set first. `num_left_out` tasks
    do no arithmetic.
    """

    peak_gflops: float
    gbytes_per_sec: tuple[tuple[int, float], ...]
    points: tuple[RooflinePoint, ...]
    num_left_out: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TaskHistory:
    """The records of one task on one machine: when they were found, ascending; seconds per call, falling."""

    name: str
    found_at: tuple[datetime, ...] = field(repr=False)
    best_secs: Floats = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelCoverage:
    """How much of a model's predicted time is in tasks of each of `STATES`; sums to 1."""

    name: str
    shares: Mapping[str, float]
    num_tasks: int


def make_roofline(costs: Iterable[tuple[Workload, float]], peak: MachinePeak) -> Roofline:
    """Args: costs: workloads and the seconds per call of their best records."""
    points = []
    num_left_out = 0
    for workload, secs in costs:
        if workload.flop and workload.arg_bytes:
            points.append(
                RooflinePoint(workload.name, workload.flop / workload.arg_bytes, workload.flop / secs / 1e9)
            )
        else:
            num_left_out += 1
    return Roofline(
        peak.flop_per_sec / 1e9,
        tuple((num_bytes, rate / 1e9) for num_bytes, rate in peak.bandwidths),
        tuple(points),
        num_left_out,
    )


def task_histories(trials: Trials, names: Mapping[TaskKey, str]) -> list[TaskHistory]:
    """The records of each task that has one, in the order of `names`.

    Args:
        trials: of one machine, in whatever order.
    """
    columns = as_columns(trials)
    columns = columns.rows(np.lexsort((columns.usable_secs, columns.finished_at)))
    weights = dict.fromkeys(names, 1)
    steps = improvements(columns, weights, np.full(len(weights), np.inf))
    histories = []
    for place, name in enumerate(names.values()):
        of_task = steps.task == place
        if of_task.any():
            moments = columns.finished_at[steps.trial[of_task]].astype("datetime64[us]").tolist()
            found_at = tuple(moment.replace(tzinfo=UTC) for moment in moments)
            histories.append(TaskHistory(name, found_at, steps.after_secs[of_task]))
    return histories


def model_coverage(
    name: str,
    tasks: Sequence["TaskSummary"],
    weights: Mapping[TaskKey, int],
    num_quarantined: Mapping[TaskKey, int],
) -> ModelCoverage:
    """What the log has for the tasks of one model, whatever the machine that timed it.

    Args:
        tasks: of the log; those without a weight are left out.
        weights: calls per run of the model.
        num_quarantined: of the tasks without a usable record.
    """
    from tunewright.scheduler.partition import roofline_secs

    secs = dict.fromkeys(STATES, 0.0)
    members = [task for task in tasks if task.task_key in weights]
    for task in members:
        predicted_secs = roofline_secs(workload_of(task), task.target)
        secs[task_state(task, num_quarantined.get(task.task_key, 0))] += (
            weights[task.task_key] * predicted_secs
        )
    total = math.fsum(secs.values())
    shares = {state: part / total if total else 0.0 for state, part in secs.items()}
    return ModelCoverage(name, shares, len(members))


def task_state(task: "TaskSummary", num_quarantined: int) -> str:
    """One of `STATES`."""
    if task.num_usable:
        return HAS_RECORD
    if num_quarantined:
        return IN_QUARANTINE
    if task.num_trials > task.num_failed + task.num_pruned:
        return UNVERIFIED
    return FAILED if task.num_trials else UNTRIED


def workload_of(task: "TaskSummary") -> Workload:
    """The workload without its module."""
    return Workload(task.name, task.workload_key, "", task.args, task.flop)
