"""Why each task of a model has a record of the log, or has none, and what is nearest to one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.core.types import FailureKind, MachineInfo, TargetSpec, TensorSpec, TuningTask
from tunewright.scheduler.partition import Partition
from tunewright.scheduler.schedule_log import KnownTask, Match, RankedRecord, ScheduleLog

NO_RECORD = "no record for this workload"
_MAX_TARGETS = 3
_MAX_REASONS = 3
_VERIFY = "run tunewright db verify"


@dataclass(frozen=True, slots=True)
class NearRecord:
    """The best record of a task that is like the one in question; `target` may be another one."""

    record_id: int
    name: str
    target: TargetSpec
    secs: float


@dataclass(frozen=True, slots=True)
class TaskExplanation:
    """What the log has for one task.

    `share` of the model's predicted time, in [0, 1]. `num_trials` of exactly this task, usable or not. `why`
    says what stands behind the record, or why there is none; people should read what `is_remarkable`.
    `nearest` is known where there is no `record` but something like it.
    """

    task: TuningTask
    share: float
    record: RankedRecord | None
    num_trials: int
    why: str
    is_remarkable: bool
    nearest: NearRecord | None = None

    @property
    def is_hit(self) -> bool:
        return self.record is not None


def explain(tasks: Partition, log: ScheduleLog, match: Match | None = None) -> tuple[TaskExplanation, ...]:
    """One explanation for each task, in the order of `tasks`.

    Records are taken as the log ranks them. Whether they still replay is for compiling to find out.
    """
    records = log.best_many([task.key for task in tasks.tasks], match=match)
    known: Sequence[KnownTask] | None = None
    explained = []
    for task in tasks.tasks:
        record = next(iter(records[task.key]), None)
        same = log.near_misses(task.workload.key)
        num_trials = next((other.num_trials for other in same if other.target == task.target), 0)
        nearest = None
        if record is not None:
            elsewhere = _elsewhere(record, match)
            why, is_remarkable = elsewhere or _count(num_trials, "trial"), bool(elsewhere)
        else:
            why, is_remarkable = _why_missed(task, same, log, match), True
            usable = [other for other in same if other.num_usable]
            if not usable:
                known = log.tasks() if known is None else known
                usable = _nearest(task, known)
            nearest = _near_record(task, usable, log)
        explained.append(
            TaskExplanation(task, tasks.share(task), record, num_trials, why, is_remarkable, nearest)
        )
    return tuple(explained)


def coverage_ratio(explained: Sequence[TaskExplanation]) -> float:
    """Share of the predicted time whose kernels have a record, in [0, 1]."""
    return sum(one.share for one in explained if one.is_hit)


def why_missed(task: TuningTask, log: ScheduleLog, match: Match | None = None) -> str:
    """Why `log.best_many` has nothing for a task."""
    return _why_missed(task, log.near_misses(task.workload.key), log, match)


def _why_missed(task: TuningTask, same: Sequence[KnownTask], log: ScheduleLog, match: Match | None) -> str:
    """Args: same: what the log knows of the workload, on all targets."""
    own = next((other for other in same if other.target == task.target), None)
    if own is not None and own.num_usable and match is not None:
        [record, *_] = log.best_many([task.key])[task.key]
        return _why_left_out(record.trial.record.machine, match)
    if own is not None:
        return _why_unusable(own, log)
    if same:
        # Targets whose trials all failed tell least.
        ordered = sorted(same, key=lambda other: (other.best_secs is None, other.best_secs or 0.0))
        shown = "; ".join(map(_elsewhere_known, ordered[:_MAX_TARGETS]))
        more = f"; and {len(same) - _MAX_TARGETS} more" if len(same) > _MAX_TARGETS else ""
        return f"same workload, other target: {shown}{more}"
    return NO_RECORD


def _why_left_out(timed_on: MachineInfo, match: Match) -> str:
    """Why the policy leaves out a task's best record."""
    here = match.machine
    if match.policy == "exact" and timed_on.fingerprint != here.fingerprint:
        return f"timed on another machine ({timed_on.cpu_model})"
    theirs, ours = _software(timed_on), _software(here)
    names = [name for name in theirs if theirs[name] != ours[name]]
    if not names:
        # It was found right with something else since.
        return f"tuned with TVM {timed_on.tvm_version}, last verified with other software: {_VERIFY}"
    if names[0] == "TVM":
        return f"tuned with TVM {theirs['TVM']}, not verified with {ours['TVM']}: {_VERIFY}"
    before, now = (" and ".join(f"{name} {stack[name]}" for name in names) for stack in (theirs, ours))
    return f"tuned with {before}, not verified with {now}: {_VERIFY}"


def _software(machine: MachineInfo) -> dict[str, str]:
    return {"TVM": machine.tvm_version, "tvm-ffi": machine.tvm_ffi_version, "LLVM": machine.llvm_version}


def _elsewhere(record: RankedRecord, match: Match | None) -> str:
    timed_on = record.trial.record.machine
    if match is None or timed_on.fingerprint == match.machine.fingerprint:
        return ""
    return f"timed on another machine ({timed_on.cpu_model})"


def _why_unusable(own: KnownTask, log: ScheduleLog) -> str:
    """Why none of a task's trials may be used."""
    quarantined = log.quarantine_counts(own.task_key)
    if quarantined:
        reasons = list(quarantined)
        more = f"; and {len(reasons) - _MAX_REASONS} more" if len(reasons) > _MAX_REASONS else ""
        return f"in quarantine: {'; '.join(reasons[:_MAX_REASONS])}{more}"
    failures = log.failure_counts(task_key=own.task_key)
    kinds = ", ".join(f"{n} {kind}" for kind, n in failures.items() if kind is not FailureKind.PRUNED)
    num_unverified = own.num_trials - own.num_failed - own.num_pruned
    parts = []
    if own.num_failed:
        parts.append(f"{own.num_failed} failed: {kinds}")
    if own.num_pruned:
        parts.append(f"{own.num_pruned} pruned")
    if num_unverified:
        parts.append(f"{num_unverified} not verified: {_VERIFY}")
    which = "its only trial is no" if own.num_trials == 1 else f"none of its {own.num_trials} trials is a"
    return f"{which} verified success ({'; '.join(parts)})"


def _elsewhere_known(other: KnownTask) -> str:
    there = "no verified record" if other.best_secs is None else f"{ms_text(other.best_secs)} there"
    return f"{describe_target(other.target)} ({there})"


def ms_text(secs: float) -> str:
    """Such as 0.213 ms; a kernel may take less than a microsecond."""
    return f"{secs * 1e3:.3g} ms"


def describe_target(target: TargetSpec) -> str:
    """As people write it: mcpu=znver4 threads=8."""
    features = f" mattr={','.join(target.mattr)}" if target.mattr else ""
    return f"mcpu={target.mcpu}{features} threads={target.num_threads}"


def _near_record(task: TuningTask, usable: Sequence[KnownTask], log: ScheduleLog) -> NearRecord | None:
    """The best record of the first of `usable`: of the task itself, if it is among them."""
    for other in sorted(usable, key=lambda other: other.target != task.target):
        for record in log.best_many([other.task_key])[other.task_key]:
            return NearRecord(record.trial.record_id, other.name, other.target, record.secs)
    return None


def _nearest(task: TuningTask, known: Sequence[KnownTask]) -> list[KnownTask]:
    """The task of the same operator whose record could be made to fit most easily, if there is any."""
    operator = _operator(task.workload.name)
    distances: Mapping[str, float] = {
        other.task_key: distance
        for other in known
        if other.num_usable
        and _operator(other.name) == operator
        and (distance := _distance(task.workload.args, other.args)) is not None
    }
    candidates = [other for other in known if other.task_key in distances]
    candidates.sort(key=lambda o: (o.target.mcpu != task.target.mcpu, distances[o.task_key], o.task_key))
    return candidates[:1]


def _operator(name: str) -> str:
    """conv2d_add_relu of "conv2d_add_relu 64x56x56 * 64x64x3x3 -> 64x56x56"."""
    return name.split(" ", 1)[0]


def _distance(args: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> float | None:
    """Sum of the factors between extents, as log2; None where types or ranks differ."""
    if [(len(a.shape), a.dtype) for a in args] != [(len(b.shape), b.dtype) for b in others]:
        return None
    pairs = [pair for a, b in zip(args, others, strict=True) for pair in zip(a.shape, b.shape, strict=True)]
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for a, b in pairs)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
