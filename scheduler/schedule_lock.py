"""Lock files: which candidate each task of a model takes, as text that people read and keep in git.

A lock names candidates; their traces stay in the log, or travel in a bundle (`schedule_bundle`).
"""

import json
import logging
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.core.errors import ConfigError, CoverageError
from tunewright.core.files import read_limited
from tunewright.core.keys import short_key
from tunewright.core.types import (
    CandidateKey,
    MeasureSuccess,
    RecordedTrial,
    TargetSpec,
    TaskKey,
    TuningTask,
)
from tunewright.scheduler.explain import describe_target, ms_text
from tunewright.scheduler.kernel_choice import KernelChoice, Replayer, default_candidate
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.partition import Partition
from tunewright.scheduler.schedule_log import RankedRecord, ScheduleLog, StoredCandidate

logger = logging.getLogger(__name__)

LOCK_FORMAT = "tunewright-lock/1"
MAX_LOCK_BYTES = 4 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEADER = """\
# The schedule of every kernel of a model. Written by tunewright; keep it beside the model.
# tunewright compile MODEL -o DIR --locked FILE takes exactly these, or fails.
"""
_REMEDY = "write it again: tunewright compile MODEL -o DIR --write-lock FILE"


@dataclass(frozen=True, slots=True)
class LockedTask:
    """What one task takes.

    `candidate` is None where `source` is UNSCHEDULED. Of a RECORD, `secs` per call were measured on `machine`
    with these versions; `record_id` is its number in the log that the lock was written from, and is not read
    back.
    """

    name: str
    task_key: TaskKey
    source: KernelSource
    candidate: CandidateKey | None
    secs: float | None = None
    machine: str = ""
    tvm_version: str = ""
    llvm_version: str = ""
    tunewright_version: str = ""
    record_id: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduleLock:
    """The schedules of a model, in the order in which the model calls its kernels."""

    model_name: str
    target: TargetSpec
    tasks: tuple[LockedTask, ...]


def make_lock(model_name: str, tasks: Partition, choices: Iterable[KernelChoice]) -> ScheduleLock:
    """The lock of what was chosen for all tasks of a model, of which there is at least one.

    Raises:
        ConfigError: the model has no task.
    """
    by_key = {choice.task.key: choice for choice in choices}
    if not by_key:
        raise ConfigError(f"{model_name} has no task that can be tuned: there is nothing to lock")
    ordered = [by_key[key] for key in dict.fromkeys(tasks.functions.values())]
    return ScheduleLock(model_name, ordered[0].task.target, tuple(map(_locked, ordered)))


def lock_to_text(lock: ScheduleLock) -> str:
    """TOML, the same text for the same lock."""
    target = lock.target
    lines = [
        _HEADER,
        f"format = {_toml(LOCK_FORMAT)}",
        f"model = {_toml(lock.model_name)}",
        "",
        "[target]",
        f"kind = {_toml(target.kind)}",
        f"mcpu = {_toml(target.mcpu)}",
        f"threads = {target.num_threads}",
    ]
    if target.mattr:
        lines.append(f"mattr = [{', '.join(map(_toml, target.mattr))}]")
    for task in lock.tasks:
        lines += ["", "[[task]]", *_task_lines(task)]
    return "\n".join(lines) + "\n"


def write_lock(lock: ScheduleLock, path: Path) -> None:
    """Write a lock file; one that is there is replaced.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lock_to_text(lock), encoding="utf-8", newline="\n")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another file") from exc


def read_lock(path: Path) -> ScheduleLock:
    """Read a lock file.

    Raises:
        ConfigError: it is missing, damaged, or of another format version.
    """
    content = read_limited(path, MAX_LOCK_BYTES, remedy=_REMEDY)
    return lock_from_bytes(content, name=f"the lock file {path}")


def lock_from_bytes(content: bytes, *, name: str) -> ScheduleLock:
    """Parse the text of a lock; `name` is what messages call it.

    Raises:
        ConfigError: it is damaged, or of another format version.
    """
    if len(content) > MAX_LOCK_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_LOCK_BYTES >> 20} MiB, which no lock is; {_REMEDY}")
    try:
        fields = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{name} is no TOML ({exc}); {_REMEDY}") from exc
    version = fields.get("format")
    if version != LOCK_FORMAT:
        raise ConfigError(f"{name} has format {version!r}, this program reads {LOCK_FORMAT!r}; {_REMEDY}")
    try:
        return _from_toml(fields)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{name} is damaged ({type(exc).__name__}: {exc}); {_REMEDY}") from exc


def locked_kernels(
    tasks: Sequence[TuningTask], lock: ScheduleLock, *, log: ScheduleLog | None, replay: Replayer
) -> list[KernelChoice]:
    """Exactly the schedules of the lock, in the order of `tasks`; what the lock has beyond them is left out.

    A record must be a verified success of this log, for another log's verdict is no evidence here.

    Raises:
        ConfigError: the lock is for another target.
        CoverageError: the lock does not name a task, or what it names is not in the log, is not usable, or
            does not replay.
    """
    for task in tasks:
        if task.target != lock.target:
            raise ConfigError(
                f"the lock is for {describe_target(lock.target)}, the model was imported for "
                f"{describe_target(task.target)}: pass {_target_options(lock.target)}, or write a new lock"
            )
    wanted = {locked.task_key: locked for locked in lock.tasks}
    if unused := wanted.keys() - {task.key for task in tasks}:
        logger.warning("the lock names %d tasks that the model does not have", len(unused))
    problems: list[str] = []
    ready: list[KernelChoice] = []
    traces: list[str | None] = []
    stored = _stored(wanted, tasks, log)
    for task in tasks:
        try:
            choice, trace_json = _resolve(task, wanted.get(task.key), stored.get(task.key, ()))
        except _UnmetError as exc:
            problems.append(f"{task.workload.name}: {exc}")
            continue
        ready.append(choice)
        traces.append(trace_json)
    _raise_unmet(problems, len(tasks))
    return list(_replayed(ready, traces, replay))


class _UnmetError(Exception):
    """Why a task cannot take what the lock says."""


def _stored(
    wanted: Mapping[TaskKey, LockedTask], tasks: Sequence[TuningTask], log: ScheduleLog | None
) -> Mapping[TaskKey, Sequence[StoredCandidate]]:
    candidates = {
        task.key: locked.candidate
        for task in tasks
        if (locked := wanted.get(task.key)) and locked.source is KernelSource.RECORD and locked.candidate
    }
    return log.trials_of_candidates(candidates) if log is not None else {}


def _resolve(
    task: TuningTask, locked: LockedTask | None, stored: Sequence[StoredCandidate]
) -> tuple[KernelChoice, str | None]:
    """The choice, its module still missing, and the trace that gives it."""
    if locked is None:
        raise _UnmetError("the lock does not name this task: write a new lock")
    if locked.source is KernelSource.UNSCHEDULED:
        return KernelChoice(task, KernelSource.UNSCHEDULED, None, miss="the lock says so"), None
    if locked.source is KernelSource.DEFAULT:
        candidate = default_candidate(task)
        if candidate.key != locked.candidate:
            raise _UnmetError("the default schedule is another one in this version: write a new lock")
        choice = KernelChoice(
            task, KernelSource.DEFAULT, None, miss="the lock says so", candidate_key=candidate.key
        )
        return choice, candidate.trace_json
    record = _usable(locked, stored)
    candidate = record.trial.record.candidate
    choice = KernelChoice(task, KernelSource.RECORD, None, record, candidate_key=candidate.key)
    return choice, candidate.trace_json


@dataclass(frozen=True, slots=True)
class _LockedRecord:
    """A record of the log that the lock named; satisfies `RankedRecord`."""

    trial: RecordedTrial
    secs: float


def _usable(locked: LockedTask, stored: Sequence[StoredCandidate]) -> RankedRecord:
    candidate = f"candidate {short_key(locked.candidate or '')}"
    if not stored:
        raise _UnmetError(
            f"{candidate} is not in the tuning log: import the bundle that has it "
            "(tunewright db import FILE), or write a new lock"
        )
    # Those that may be used come first.
    first = stored[0]
    number = first.trial.record_id
    if first.unusable_reason is not None:
        raise _UnmetError(
            f"{candidate} (record {number}) is in quarantine: {first.unusable_reason}; write a new lock"
        )
    result = first.trial.record.result
    if first.secs is None:
        raise _UnmetError(f"{candidate} (record {number}) failed when it was measured; write a new lock")
    if not (isinstance(result, MeasureSuccess) and result.is_verified):
        raise _UnmetError(
            f"{candidate} (record {number}) has not been verified here: run tunewright db verify"
        )
    return _LockedRecord(first.trial, first.secs)


def _replayed(
    choices: Sequence[KernelChoice], traces: Sequence[str | None], replay: Replayer
) -> Iterator[KernelChoice]:
    pairs = [(choice, trace) for choice, trace in zip(choices, traces, strict=True) if trace is not None]
    results = replay([(choice.task.workload.mod_json, trace) for choice, trace in pairs]) if pairs else ()
    answers = {choice.task.key: result for (choice, _), result in zip(pairs, results, strict=True)}
    problems = []
    for choice in choices:
        answer = answers.get(choice.task.key)
        if answer is not None and not isinstance(answer, str):
            what = "the default schedule"
            if choice.record is not None:
                key, number = short_key(choice.candidate_key or ""), choice.record.trial.record_id
                what = f"candidate {key} (record {number})"
            problems.append(
                f"{choice.task.workload.name}: {what} no longer replays: {answer.message}; write a new lock"
            )
    _raise_unmet(problems, len(choices))
    for choice in choices:
        answer = answers.get(choice.task.key)
        module = answer if isinstance(answer, str) else None
        yield KernelChoice(
            choice.task, choice.source, module, choice.record, choice.miss, choice.candidate_key
        )


def _raise_unmet(problems: Sequence[str], num_tasks: int) -> None:
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CoverageError(
            f"the lock cannot be met for {len(problems)} of {num_tasks} tasks; nothing else is taken:{lines}"
        )


def _locked(choice: KernelChoice) -> LockedTask:
    task, record = choice.task, choice.record
    if record is None:
        return LockedTask(task.workload.name, task.key, choice.source, choice.candidate_key)
    stored = record.trial.record
    return LockedTask(
        name=task.workload.name,
        task_key=task.key,
        source=choice.source,
        candidate=choice.candidate_key,
        secs=record.secs,
        machine=stored.machine.cpu_model,
        tvm_version=stored.machine.tvm_version,
        llvm_version=stored.machine.llvm_version,
        tunewright_version=stored.code_version,
        record_id=record.trial.record_id,
    )


def _task_lines(task: LockedTask) -> Iterator[str]:
    yield f"name = {_toml(task.name)}"
    yield f"task = {_toml(task.task_key)}"
    yield f"schedule = {_toml(task.source.value)}"
    if task.candidate is not None:
        number = "" if task.record_id is None else f"  # trial {task.record_id}"
        yield f"candidate = {_toml(task.candidate)}{number}"
    if task.secs is not None:
        yield f"seconds = {task.secs!r}  # {ms_text(task.secs)}"
        yield f"machine = {_toml(task.machine)}"
        yield f"tvm = {_toml(task.tvm_version)}"
        yield f"llvm = {_toml(task.llvm_version)}"
        yield f"tunewright = {_toml(task.tunewright_version)}"


def _toml(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for surrogates, which neither text may hold."""
    storable = text.encode(errors="backslashreplace").decode()
    return json.dumps(storable, ensure_ascii=False).replace("\x7f", "\\u007f")


def _from_toml(fields: Mapping[str, Any]) -> ScheduleLock:
    target = fields["target"]
    if type(target["threads"]) is not int:
        raise TypeError("target.threads is no whole number")
    mattr = target.get("mattr", [])
    if not isinstance(mattr, list):
        raise TypeError("target.mattr is no list")
    tasks = tuple(map(_locked_from_toml, fields["task"]))
    if len({task.task_key for task in tasks}) != len(tasks):
        raise ValueError("a task is named twice")
    return ScheduleLock(
        model_name=_text(fields["model"], "model"),
        target=TargetSpec(
            mcpu=_text(target["mcpu"], "target.mcpu"),
            num_threads=target["threads"],
            mattr=tuple(_text(feature, "target.mattr") for feature in mattr),
            kind=_text(target["kind"], "target.kind"),
        ),
        tasks=tasks,
    )


def _locked_from_toml(fields: Mapping[str, Any]) -> LockedTask:
    source = KernelSource(fields["schedule"])
    candidate = fields.get("candidate")
    if (candidate is None) != (source is KernelSource.UNSCHEDULED):
        raise ValueError(f"a {source} schedule {'lacks' if candidate is None else 'has'} a candidate")
    secs = fields.get("seconds")
    if secs is not None and not (type(secs) is float and math.isfinite(secs) and secs > 0):
        raise ValueError(f"seconds is {secs!r}")
    return LockedTask(
        name=_text(fields["name"], "name"),
        task_key=TaskKey(_digest(fields["task"], "task")),
        source=source,
        candidate=None if candidate is None else CandidateKey(_digest(candidate, "candidate")),
        secs=secs,
        machine=_text(fields.get("machine", ""), "machine"),
        tvm_version=_text(fields.get("tvm", ""), "tvm"),
        llvm_version=_text(fields.get("llvm", ""), "llvm"),
        tunewright_version=_text(fields.get("tunewright", ""), "tunewright"),
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _digest(value: object, name: str) -> str:
    text = _text(value, name)
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{name} is no SHA-256 of 64 hex digits")
    return text


def _target_options(target: TargetSpec) -> str:
    # Quoted as a shell wants it: a target with features is several words.
    features = f" -mattr={','.join(target.mattr)}" if target.mattr else ""
    text = f'"llvm -mcpu={target.mcpu}{features}"' if features else target.mcpu
    return f"--target {text} --threads {target.num_threads}"
