"""Which stored records to verify again: the best, a sample, or those never verified."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from tunewright.core.errors import ConfigError
from tunewright.core.keys import digest
from tunewright.core.types import MachineInfo, TargetSpec, TaskKey
from tunewright.scheduler.cpu_features import missing_features, required_features


class KnownTask(Protocol):
    """A task of the log."""

    @property
    def task_key(self) -> TaskKey: ...

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> TargetSpec: ...


class StoredSuccess(Protocol):
    """A timed trial, without its trace; `secs` per call is what it ranks by.

    `may_return`: it is in quarantine, and leaves it when its outputs are found right. `is_checked`: the
    software that asks has given its verdict on it.
    """

    @property
    def record_id(self) -> int: ...

    @property
    def secs(self) -> float: ...

    @property
    def is_verified(self) -> bool: ...

    @property
    def is_duplicate(self) -> bool: ...

    @property
    def is_in_quarantine(self) -> bool: ...

    @property
    def may_return(self) -> bool: ...

    @property
    def is_checked(self) -> bool: ...


_TaskSuccesses = tuple[KnownTask, Sequence[StoredSuccess]]


class Catalogue(Protocol):
    """What is read of the tuning log to choose from it."""

    def successes(self, task_key: TaskKey, *, machine: MachineInfo) -> Sequence[StoredSuccess]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What to verify: the `num_best` fastest of each task, by default 1.

    `sample_ratio`: instead, this share of all timed trials, chosen by `seed`. `only_unverified`: instead,
    those whose outputs nobody has compared yet, all of them where `num_best` is None. `again`: also where the
    same software has given its verdict before.

    Raises:
        ConfigError: these do not go together, or the share is not in (0, 1].
    """

    num_best: int | None = None
    sample_ratio: float | None = None
    seed: int = 0
    only_unverified: bool = False
    again: bool = False

    def __post_init__(self) -> None:
        if self.sample_ratio is None:
            return
        if not 0 < self.sample_ratio <= 1:
            raise ConfigError(
                f"a sample of {self.sample_ratio:.4g} of all records: give more than 0 and at most 100 %"
            )
        if self.only_unverified or self.num_best is not None:
            raise ConfigError(
                "a sample is of all records of a task: leave out -k and --unverified, or --sample"
            )


@dataclass(frozen=True, slots=True)
class Chosen:
    """One record to verify; `secs` per call is what it ranks by, `rank` its place in its task, from 0.

    `is_trusted`: its outputs have been found right before. Others may come from anywhere.
    """

    record_id: int
    task: KnownTask
    secs: float
    rank: int
    is_trusted: bool


@dataclass(frozen=True, slots=True)
class SkippedTarget:
    """A target whose kernels cannot run here, and why."""

    target: TargetSpec
    num_tasks: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to verify, in order; `num_known` were left out, for this software has given its verdict."""

    chosen: Sequence[Chosen]
    skipped: Sequence[SkippedTarget]
    num_known: int


def choose(
    log: Catalogue,
    tasks: Iterable[KnownTask],
    selection: Selection,
    *,
    machine: MachineInfo,
    why_not: Callable[[TargetSpec], str | None],
) -> Plan:
    """Choose among the records of some tasks.

    Records of one thread count come together; among them the best of all tasks come first, then all second
    ones: wherever it is broken off, every task has had its share.

    Args:
        machine: this one; its software is what records may have been checked with.
        why_not: why kernels for a target cannot run here, None where they can.
    """
    runnable, skipped = _runnable(tasks, why_not)
    known = [(task, log.successes(task.task_key, machine=machine)) for task in runnable]
    if selection.sample_ratio is not None:
        known = _sampled(known, selection.sample_ratio, selection.seed)
    wanted: list[Chosen] = []
    num_known = 0
    for task, successes in known:
        for rank, one in enumerate(_wanted(successes, selection)):
            if one.is_checked and not selection.again:
                num_known += 1
            else:
                wanted.append(Chosen(one.record_id, task, one.secs, rank, one.is_verified))
    wanted.sort(key=lambda chosen: (chosen.task.target.num_threads, chosen.rank))
    return Plan(wanted, skipped, num_known)


def batches(chosen: Sequence[Chosen], size: int, *, keeps_tasks: bool) -> list[list[Chosen]]:
    """In parts of at most `size`, each for one number of threads.

    Args:
        keeps_tasks: the records of a task come together, as far as they fit.
    """
    found: list[list[Chosen]] = []
    for _, group in groupby(chosen, key=lambda one: one.task.target.num_threads):
        some = list(group)
        found.append([])
        for part in _by_task(some) if keeps_tasks else [[one] for one in some]:
            for start in range(0, len(part), size):
                piece = part[start : start + size]
                if len(found[-1]) + len(piece) > size:
                    found.append([])
                found[-1].extend(piece)
    return found


def why_not_here(target: TargetSpec) -> str | None:
    """Why this process cannot run kernels for a target, None where it can."""
    from tunewright.core.tvm_adapter.graph_build import cpu_feature_names
    from tunewright.core.tvm_adapter.target import available_cpus, parse_target

    num_cpus = len(available_cpus())
    if target.num_threads > num_cpus:
        return f"this process may use {num_cpus} CPUs"
    try:
        # LLVM generates code for some other CPU where it does not know the one that it is asked for.
        parse_target(f"{target.kind} -mcpu={target.mcpu}", num_threads=target.num_threads)
    except ConfigError:
        return "LLVM knows no such CPU for this machine"
    missing = missing_features(required_features(cpu_feature_names(target)))
    return f"this machine lacks {', '.join(missing)}" if missing else None


def _runnable(
    tasks: Iterable[KnownTask], why_not: Callable[[TargetSpec], str | None]
) -> tuple[list[KnownTask], list[SkippedTarget]]:
    by_target: dict[TargetSpec, list[KnownTask]] = {}
    for task in tasks:
        by_target.setdefault(task.target, []).append(task)
    runnable: list[KnownTask] = []
    skipped: list[SkippedTarget] = []
    for target, some in by_target.items():
        reason = why_not(target)
        if reason is None:
            runnable += some
        else:
            skipped.append(SkippedTarget(target, len(some), reason))
    return runnable, skipped


def _wanted(successes: Sequence[StoredSuccess], selection: Selection) -> list[StoredSuccess]:
    """Of one task, fastest first."""
    usable = [one for one in successes if not one.is_in_quarantine or one.may_return]
    if selection.sample_ratio is not None:
        return usable
    if selection.only_unverified:
        # A duplicate is as right as the trial that it repeats, which stands in the log too.
        return [one for one in usable if not one.is_verified and not one.is_duplicate][: selection.num_best]
    if not selection.again:
        usable = [one for one in usable if not (one.is_in_quarantine and one.is_checked)]
    return _best([one for one in usable if one.is_verified], selection.num_best or 1)


def _best(successes: Sequence[StoredSuccess], num_best: int) -> list[StoredSuccess]:
    """The best few, and those that would be among them if this software lifted their quarantine."""
    found: list[StoredSuccess] = []
    num_usable = 0
    for one in successes:
        if num_usable == num_best or len(found) == 2 * num_best:
            break
        num_usable += not one.is_in_quarantine
        found.append(one)
    return found


def _sampled(known: Sequence[_TaskSuccesses], ratio: float, seed: int) -> list[_TaskSuccesses]:
    """A share of all, rounded up.

    Also of those in quarantine, and by a digest of each record's number: neither what a verification changes
    nor trials that are added make it another sample, but for a few.
    """
    ids = sorted(
        (one.record_id for _, successes in known for one in successes),
        key=lambda number: digest(str(seed), str(number)),
    )
    chosen = set(ids[: math.ceil(ratio * len(ids))])
    return [(task, [one for one in some if one.record_id in chosen]) for task, some in known]


def _by_task(chosen: Sequence[Chosen]) -> list[list[Chosen]]:
    groups: dict[TaskKey, list[Chosen]] = {}
    for one in chosen:
        groups.setdefault(one.task.task_key, []).append(one)
    return list(groups.values())
