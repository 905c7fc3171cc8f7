"""From the entries of a suite to pairs that can be timed, and items that cannot, with the reason."""

import filecmp
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tunewright.core.errors import EnvironmentProblem
from tunewright.core.keys import digest, short_key
from tunewright.core.log_url import log_url, shown_place
from tunewright.core.types import Candidate, MeasureSuccess, RecordedTrial, TaskKey, TuningTask
from tunewright.gate.baselines import LOCK_SUFFIX, Base, BaseOf, named_base
from tunewright.gate.measure import KernelPair, ModelPair, Pair
from tunewright.gate.results import SideFacts
from tunewright.gate.statistics import Verdict
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite
from tunewright.scheduler.kernel_choice import default_candidate
from tunewright.scheduler.manifest import LIBRARY_FILE, PARAMS_FILE, KernelSource, read_manifest
from tunewright.scheduler.schedule_lock import ScheduleLock, read_lock
from tunewright.tuning_logs import Match, MatchPolicy, StoredCandidate, TuningLog


@dataclass(frozen=True, slots=True)
class GateItem:
    """One row of the gate. `pair` is None where there is nothing to time: `verdict` and `reason` say why."""

    name: str
    min_effect_ratio: float
    weight: int
    base: SideFacts | None
    head: SideFacts | None
    pair: Pair | None
    verdict: Verdict | None = None
    reason: str = ""


def suite_items(suite: Suite, base_of: BaseOf = named_base, *, only_head: bool = False) -> list[GateItem]:
    """The items of a suite, in its order.

    Args:
        base_of: where the base of an entry is.
        only_head: both sides are head, for a calibration.

    Raises:
        ConfigError: an entry has no base, or a side cannot be read.
        EnvironmentProblem: a side was made for another CPU.
    """
    items: list[GateItem] = []
    for model in suite.models:
        base = Base(str(model.head), str(model.head)) if only_head else base_of(model)
        items.append(model_item(model, base, is_alike=only_head))
    for entry in suite.kernels:
        is_alone = len(suite.kernels) + len(suite.models) == 1
        base = None if only_head else base_of(entry)
        items += _kernel_items(entry, "" if is_alone else f"{entry.name}: ", base, is_alike=only_head)
    return items


def model_item(entry: ModelEntry, base: Base | None, *, is_alike: bool = False) -> GateItem:
    """Two directories of compiled models; the same bytes are not timed, but for a calibration.

    Raises:
        ConfigError: one of them is none.
    """
    name, head, effect = entry.name, entry.head, entry.min_effect_ratio
    head_facts = _model_facts(head, str(head))
    if base is None:
        return GateItem(name, effect, 0, None, head_facts, None, Verdict.MISSING, "base has no such model")
    base_folder = Path(base.place)
    sides = _model_facts(base_folder, base.shown), head_facts
    files = (LIBRARY_FILE, PARAMS_FILE)
    if not is_alike and all(_same_bytes(base_folder / file, head / file) for file in files):
        reason = "both sides are the same code and weights, byte for byte: not timed"
        return GateItem(name, effect, 0, *sides, None, Verdict.SAME, reason)
    return GateItem(name, effect, 0, *sides, ModelPair(name, base_folder, head))


def _model_facts(folder: Path, shown: str) -> SideFacts:
    manifest = read_manifest(folder)
    schedules = digest(*(kernel.candidate_key or str(kernel.source) for kernel in manifest.kernels))
    machine = manifest.machine
    return SideFacts(
        shown, schedules, "", machine.tvm_version, machine.llvm_version, manifest.tunewright_version
    )


def _same_bytes(base: Path, head: Path) -> bool:
    return base.is_file() and head.is_file() and filecmp.cmp(base, head, shallow=False)


@dataclass(frozen=True, slots=True)
class _Schedule:
    """What a side takes for one task. `candidate` is None where it takes none."""

    name: str
    candidate: Candidate | None
    facts: SideFacts
    problem: str = ""


@dataclass(slots=True)
class _Kernels:
    """Schedules of a side by task; `tasks` and `weights` of those that its log knows."""

    source: str
    schedules: dict[TaskKey, _Schedule] = field(default_factory=dict)
    tasks: dict[TaskKey, TuningTask] = field(default_factory=dict)
    weights: dict[TaskKey, int] = field(default_factory=dict)


def _kernel_items(
    entry: KernelsEntry, prefix: str, found: Base | None, *, is_alike: bool
) -> Iterator[GateItem]:
    """Args: found: the base, None where it has nothing of the entry; of no account if both are head."""
    head = _side(entry.head, entry.head, entry)
    base = head if is_alike else _side(found.place, found.shown, entry) if found else _Kernels("")
    schedules = {**base.schedules, **head.schedules}
    counts = Counter(one.name for one in schedules.values())
    for key in dict.fromkeys((*head.schedules, *base.schedules)):
        sides = base.schedules.get(key), head.schedules.get(key)
        # Names come from files: nothing of them can take over a terminal.
        name = "".join(char if char.isprintable() else "?" for char in schedules[key].name)
        if entry.tasks and not any(fnmatchcase(name, pattern) for pattern in entry.tasks):
            continue
        if counts[name] > 1:  # for several numbers of threads
            name = f"{name} ({short_key(key)})"
        task = head.tasks.get(key) or base.tasks.get(key)
        weight = head.weights.get(key) or base.weights.get(key) or 1
        yield _kernel_item(entry, f"{prefix}{name}", task, weight, *sides, is_alike=is_alike)


def _kernel_item(
    entry: KernelsEntry,
    name: str,
    task: TuningTask | None,
    weight: int,
    base: _Schedule | None,
    head: _Schedule | None,
    *,
    is_alike: bool,
) -> GateItem:
    facts = base.facts if base else None, head.facts if head else None
    verdict, reason = None, ""
    if base is None or head is None:
        verdict, reason = Verdict.MISSING, f"{'base' if base is None else 'head'} has no such task"
    elif problem := base.problem or head.problem:
        side = "base" if base.problem else "head"
        verdict, reason = Verdict.ERROR, f"{side}: {problem}"
    elif base.candidate is None or head.candidate is None:
        verdict, reason = Verdict.MISSING, "unscheduled: there is nothing to build by itself"
    elif base.candidate.key == head.candidate.key and not is_alike:
        verdict, reason = Verdict.SAME, "both sides are the same schedule: not timed"
    elif task is not None:
        _check_cpu(task)
        pair = KernelPair(name, task, base.candidate, head.candidate)
        return GateItem(name, entry.min_effect_ratio, weight, *facts, pair)
    else:
        verdict, reason = Verdict.ERROR, "no log knows the task"
    return GateItem(name, entry.min_effect_ratio, weight, *facts, None, verdict, reason)


def _side(source: str, shown: str, entry: KernelsEntry) -> _Kernels:
    lock = read_lock(Path(source)) if source.endswith(LOCK_SUFFIX) else None
    place = log_url(entry.log if lock is not None else source)
    with TuningLog.open(place, read_only=True) as log:
        if lock is not None:
            kernels = _locked(lock, log, shown)
        else:
            kernels = _champions(log, shown if shown != source else shown_place(place))
        for summary in log.sessions():
            kernels.weights.update(log.session_weights(summary.session_id))
    return kernels


def _champions(log: TuningLog, source: str) -> _Kernels:
    """What `compile` would take for every task for this machine's CPU."""
    from tunewright.core.tvm_adapter.target import host_target, machine_info

    kernels = _Kernels(source)
    here = host_target(1).mcpu
    keys = [summary.task_key for summary in log.tasks() if summary.target.mcpu == here]
    match = Match(MatchPolicy.COMPATIBLE, machine_info())
    for key, ranked in log.best_many(keys, match=match).items():
        if not ranked:
            continue
        kernels.tasks[key] = task = log.task(key)
        trial = ranked[0].trial
        kernels.schedules[key] = _Schedule(task.workload.name, trial.record.candidate, _facts(trial, source))
    return kernels


def _locked(lock: ScheduleLock, log: TuningLog, source: str) -> _Kernels:
    kernels = _Kernels(source)
    known = {summary.task_key for summary in log.tasks()}
    wanted = {task.task_key: task.candidate for task in lock.tasks if task.candidate is not None}
    stored = log.trials_of_candidates(wanted)
    for locked in lock.tasks:
        key = locked.task_key
        if key in known:
            kernels.tasks[key] = log.task(key)
        # Whatever built them when they were recorded, here both sides are built by this TVM.
        facts = SideFacts(source, locked.candidate or "", str(locked.source))
        candidate, problem = None, ""
        if locked.source is KernelSource.RECORD:
            candidate = _usable(stored[key])
            if candidate is None:
                problem = f"the log has no verified trial of candidate {short_key(facts.schedule)}"
        elif locked.source is KernelSource.DEFAULT and key in kernels.tasks:
            candidate = default_candidate(kernels.tasks[key])
            if candidate.key != locked.candidate:
                problem = "the default schedule is another one in this version: write a new lock"
        elif locked.source is KernelSource.DEFAULT:
            problem = "the log does not know the task"
        kernels.schedules[key] = _Schedule(locked.name, candidate, facts, problem)
    return kernels


def _usable(stored: Sequence[StoredCandidate]) -> Candidate | None:
    """Only what was verified here may run."""
    for one in stored:
        record = one.trial.record
        is_verified = isinstance(record.result, MeasureSuccess) and record.result.is_verified
        if is_verified and one.unusable_reason is None:
            return record.candidate
    return None


def _facts(trial: RecordedTrial, source: str) -> SideFacts:
    return SideFacts(source, trial.record.candidate.key, f"trial {trial.record_id}")


def _check_cpu(task: TuningTask) -> None:
    from tunewright.core.tvm_adapter.target import host_target

    here = host_target(1).mcpu
    if task.target.mcpu != here:
        raise EnvironmentProblem(
            f"{task.workload.name} is scheduled for {task.target.mcpu}, this machine is {here}: "
            "run the gate on the hardware that the schedules are for"
        )
