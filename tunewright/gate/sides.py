"""From the entries of a suite to pairs that can be timed, and items that cannot, with the reason."""

import filecmp
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.core.keys import digest, short_key
from tunewright.core.log_url import log_url, shown_place
from tunewright.core.types import Candidate, MeasureSuccess, RecordedTrial, TaskKey, TuningTask
from tunewright.gate.measure import KernelPair, ModelPair, Pair
from tunewright.gate.results import SideFacts
from tunewright.gate.statistics import Verdict
from tunewright.gate.suite import KernelsEntry, ModelEntry, Suite
from tunewright.scheduler.kernel_choice import default_candidate
from tunewright.scheduler.manifest import LIBRARY_FILE, PARAMS_FILE, KernelSource, read_manifest
from tunewright.scheduler.schedule_lock import ScheduleLock, lock_from_bytes, read_lock
from tunewright.tuning_logs import Match, MatchPolicy, StoredCandidate, TuningLog

LOCK_SUFFIX = ".lock"


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


def suite_items(suite: Suite, *, baseline: str | None, only_head: bool = False) -> list[GateItem]:
    """The items of a suite, in its order.

    Args:
        baseline: takes the place of every entry's base: a folder with the models' directories and lock files,
            or (for lock files) a git revision.
        only_head: both sides are head, for a calibration.

    Raises:
        ConfigError: an entry has no base, or a side cannot be read.
        EnvironmentProblem: a side was made for another CPU.
    """
    items: list[GateItem] = []
    for model in suite.models:
        base = model.head if only_head else _model_base(model, baseline)
        items.append(model_item(model.name, base, model.head, model.min_effect_ratio, is_alike=only_head))
    for entry in suite.kernels:
        is_alone = len(suite.kernels) + len(suite.models) == 1
        items += _kernel_items(entry, "" if is_alone else f"{entry.name}: ", baseline, is_alike=only_head)
    return items


def model_item(
    name: str, base: Path, head: Path, min_effect_ratio: float, *, is_alike: bool = False
) -> GateItem:
    """Two directories of compiled models; the same bytes are not timed, but for a calibration.

    Raises:
        ConfigError: one of them is none.
    """
    sides = _model_facts(base), _model_facts(head)
    pair: Pair | None = ModelPair(name, base, head)
    files = (LIBRARY_FILE, PARAMS_FILE)
    if not is_alike and all(_same_bytes(base / file, head / file) for file in files):
        reason = "both sides are the same code and weights, byte for byte: not timed"
        return GateItem(name, min_effect_ratio, 0, *sides, None, Verdict.SAME, reason)
    return GateItem(name, min_effect_ratio, 0, *sides, pair)


def _model_base(model: ModelEntry, baseline: str | None) -> Path:
    if baseline is None:
        if model.base is None:
            raise ConfigError(
                f"model {model.name!r} has no base: name one, or pass --baseline (pytest: --gate-baseline)"
            )
        return model.base
    folder = Path(baseline)
    if not folder.is_dir():
        raise ConfigError(
            f"{baseline} is no folder: the base of {model.name!r} must be a directory of a compiled model, "
            "which no git revision holds; compile the base and pass --baseline FOLDER"
        )
    nested = folder / model.head.name
    return nested if nested.is_dir() else folder


def _model_facts(folder: Path) -> SideFacts:
    manifest = read_manifest(folder)
    schedules = digest(*(kernel.candidate_key or str(kernel.source) for kernel in manifest.kernels))
    machine = manifest.machine
    return SideFacts(
        str(folder), schedules, "", machine.tvm_version, machine.llvm_version, manifest.tunewright_version
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
    entry: KernelsEntry, prefix: str, baseline: str | None, *, is_alike: bool
) -> Iterator[GateItem]:
    head = _side(entry.head, entry, None)
    base = head if is_alike else _base_side(entry, baseline)
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


def _base_side(entry: KernelsEntry, baseline: str | None) -> _Kernels:
    if baseline is None:
        if entry.base is None:
            raise ConfigError(
                f"{entry.name!r} has no base: name one, or pass --baseline (pytest: --gate-baseline)"
            )
        return _side(entry.base, entry, None)
    head = Path(entry.head)
    if Path(baseline).is_dir():
        return _side(str(Path(baseline) / head.name), entry, None)
    if Path(baseline).is_file() or "://" in baseline:
        return _side(baseline, entry, None)
    if head.suffix != LOCK_SUFFIX:
        raise ConfigError(
            f"{baseline} is no folder and no file: a git revision can be the base of a lock file only, "
            f"and {entry.head} is a log"
        )
    content = _file_of_revision(baseline, head)
    source = f"{head.name} of {baseline}"
    return _side(source, entry, lock_from_bytes(content, name=source))


def _file_of_revision(revision: str, path: Path) -> bytes:
    """Raises: ConfigError: git does not know the revision, or it has no such file."""
    if revision.startswith("-"):
        raise ConfigError(f"{revision!r} is no git revision")
    command = ["git", "-C", str(path.parent), "show", f"{revision}:./{path.name}"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as exc:
        raise EnvironmentProblem(f"git cannot be run ({exc.strerror}): give a file as --baseline") from exc
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ConfigError(
            f"{revision} is no folder, no file, and no revision of git with {path.name}: {' '.join(reason)}"
        )
    return done.stdout


def _side(source: str, entry: KernelsEntry, lock: ScheduleLock | None) -> _Kernels:
    """Args: lock: where it has been read already."""
    if lock is None and source.endswith(LOCK_SUFFIX):
        lock = read_lock(Path(source))
    place = log_url(entry.log if lock is not None else source)
    with TuningLog.open(place, read_only=True) as log:
        shown = source if lock is not None else shown_place(place)
        kernels = _locked(lock, log, shown) if lock is not None else _champions(log, shown)
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
