import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import dense_net
from tests.scheduler.in_process import record, replay, sampled_trace
from tests.scheduler.stored import TARGET
from tunewright.core.errors import ConfigError, CoverageError
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import CandidateKey, TargetSpec, TaskKey
from tunewright.scheduler.importer import ImportedModel, import_model
from tunewright.scheduler.kernel_choice import Variant, choose_kernels
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.partition import Partition, partition
from tunewright.scheduler.schedule_lock import (
    LockedTask,
    ScheduleLock,
    lock_from_bytes,
    lock_to_text,
    locked_kernels,
    make_lock,
    read_lock,
    write_lock,
)
from tunewright.scheduler.stitch import CompileOptions, compile_model
from tunewright.tuning_logs import TuningLog

A, B, C = (TaskKey(char * 64) for char in "abc")
LOCK = ScheduleLock(
    "net",
    TARGET,
    (
        LockedTask(
            "conv2d 8x8 -> 8x8",
            A,
            KernelSource.RECORD,
            CandidateKey("1" * 64),
            secs=0.000152,
            machine="This CPU",
            tvm_version="0.27.0.post1",
            llvm_version="22",
            tunewright_version="0.1.0",
            record_id=118,
        ),
        LockedTask("dense 4 -> 4", B, KernelSource.DEFAULT, CandidateKey("2" * 64)),
        LockedTask("odd 4 -> 4", C, KernelSource.UNSCHEDULED, None),
    ),
)
TEXT = f"""\
# The schedule of every kernel of a model. Written by tunewright; keep it beside the model.
# tunewright compile MODEL -o DIR --locked FILE takes exactly these, or fails.

format = "tunewright-lock/1"
model = "net"

[target]
kind = "llvm"
mcpu = "znver5"
threads = 4

[[task]]
name = "conv2d 8x8 -> 8x8"
task = "{A}"
schedule = "record"
candidate = "{"1" * 64}"  # trial 118
seconds = 0.000152  # 0.152 ms
machine = "This CPU"
tvm = "0.27.0.post1"
llvm = "22"
tunewright = "0.1.0"

[[task]]
name = "dense 4 -> 4"
task = "{B}"
schedule = "default"
candidate = "{"2" * 64}"

[[task]]
name = "odd 4 -> 4"
task = "{C}"
schedule = "unscheduled"
"""


def without_ids(lock: ScheduleLock) -> ScheduleLock:
    return replace(lock, tasks=tuple(replace(task, record_id=None) for task in lock.tasks))


def test_the_text_is_for_people_and_comes_back() -> None:
    assert lock_to_text(LOCK) == TEXT
    assert lock_from_bytes(TEXT.encode(), name="it") == without_ids(LOCK)


@given(st.text(), st.floats(1e-12, 1e6), st.lists(st.text(), max_size=3))
def test_any_name_comes_back_as_it_was(name: str, secs: float, mattr: list[str]) -> None:
    target = TargetSpec(name, 3, tuple(mattr))
    task = replace(LOCK.tasks[0], name=name, machine=name, secs=secs)
    lock = ScheduleLock(name, target, (task,))
    assert lock_from_bytes(lock_to_text(lock).encode(), name="it") == without_ids(lock)


def test_a_name_that_is_no_text_is_written_as_something_that_is() -> None:
    text = lock_to_text(replace(LOCK, model_name="a\udce9"))
    assert tomllib.loads(text)["model"] == "a\\udce9"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"tunewright-lock/1"', '"tunewright-lock/2"', "has format 'tunewright-lock/2', this program reads"),
        ("threads = 4", "threads = 0", "num_threads is 0"),
        ("threads = 4", 'threads = "4"', "no whole number"),
        ("threads = 4", "threads = ", "is no TOML"),
        (f'task = "{B}"', f'task = "{A}"', "a task is named twice"),
        (f'task = "{B}"', 'task = "b"', "no SHA-256"),
        ('schedule = "default"', 'schedule = "guess"', "is not a valid KernelSource"),
        ('schedule = "unscheduled"', 'schedule = "default"', "a default schedule lacks a candidate"),
        ("seconds = 0.000152", "seconds = nan", "seconds is nan"),
        ('name = "odd 4 -> 4"', "name = 4", "name is no text"),
    ],
)
def test_a_damaged_lock_says_what_is_wrong(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(ConfigError, match=message):
        lock_from_bytes(TEXT.replace(old, new).encode(), name="it")


@pytest.mark.parametrize("content", [b"\xff", b"a = " + b"[" * 100_000, b"#" * (4 << 20) + b"##"])
def test_what_is_no_lock_at_all(content: bytes) -> None:
    with pytest.raises(ConfigError, match="--write-lock"):
        lock_from_bytes(content, name="it")


def test_a_missing_lock(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.lock cannot be read .*--write-lock"):
        read_lock(tmp_path / "none.lock")


# ---- with a model


class Tuned:
    """A small model, its tasks, a log with a record for each, and the lock of them."""

    def __init__(self, folder: Path, log: TuningLog) -> None:
        self.model: ImportedModel = import_model(
            dense_net(folder / "m.onnx"), target=host_target(num_threads=1)
        )
        self.tasks: Partition = partition(self.model)
        self.log = log
        self.traces = [sampled_trace(task) for task in self.tasks.tasks]
        for index, (task, trace) in enumerate(zip(self.tasks.tasks, self.traces, strict=True)):
            record(log, task, trace, 1e-4 * (index + 1), trial_index=index)
        self.lock = self.written(log)

    def written(self, log: TuningLog | None, variant: Variant = Variant.TUNED) -> ScheduleLock:
        choices = choose_kernels(self.tasks.tasks, variant=variant, log=log, replay=replay)
        return make_lock(self.model.name, self.tasks, choices)

    def locked(self, lock: ScheduleLock, log: TuningLog | None) -> list[CandidateKey | None]:
        choices = locked_kernels(self.tasks.tasks, lock, log=log, replay=replay)
        assert [choice.task for choice in choices] == list(self.tasks.tasks)
        return [choice.candidate_key for choice in choices]


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    return Tuned(tmp_path, TuningLog.open("sqlite://"))


@pytest.mark.tvm
@pytest.mark.slow
def test_a_lock_is_kept_though_the_log_has_learnt_of_something_faster(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "schedules.lock"
    write_lock(tuned.lock, path)
    assert [task.task_key for task in tuned.lock.tasks] == list(dict.fromkeys(tuned.tasks.functions.values()))
    expected = {task.task_key: task.candidate for task in tuned.lock.tasks}
    for index, task in enumerate(tuned.tasks.tasks):
        faster = sampled_trace(task).replace("]]]", "]]]", 1)
        record(tuned.log, task, faster + " ", 1e-9, trial_index=10 + index)
    report = compile_model(
        tuned.model,
        tmp_path / "out",
        log=tuned.log,
        replay=replay,
        options=CompileOptions(lock=read_lock(path), is_strict=True),
    )
    assert {choice.task.key: choice.candidate_key for choice in report.choices} == expected
    assert report.coverage_ratio == pytest.approx(1.0)
    free = choose_kernels(tuned.tasks.tasks, variant=Variant.TUNED, log=tuned.log, replay=replay)
    assert {choice.task.key: choice.candidate_key for choice in free} != expected


@pytest.mark.tvm
@pytest.mark.slow
def test_default_schedules_are_locked_too(tuned: Tuned) -> None:
    lock = tuned.written(None)
    assert {task.source for task in lock.tasks} == {KernelSource.DEFAULT}
    expected = {task.task_key: task.candidate for task in lock.tasks}
    assert tuned.locked(lock, None) == [expected[task.key] for task in tuned.tasks.tasks]
    changed = replace(lock, tasks=(replace(lock.tasks[0], candidate=CandidateKey("0" * 64)), lock.tasks[1]))
    with pytest.raises(CoverageError, match="the default schedule is another one in this version"):
        tuned.locked(changed, None)
    plain = tuned.written(None, Variant.UNSCHEDULED)
    assert tuned.locked(plain, None) == [None, None]


@pytest.mark.tvm
@pytest.mark.slow
def test_a_lock_that_cannot_be_met_names_each_task_and_the_remedy(tuned: Tuned) -> None:
    first, second = tuned.lock.tasks
    for lock, log, message in (
        (replace(tuned.lock, tasks=(first,)), tuned.log, "1 of 2 tasks.*does not name this task"),
        (tuned.lock, None, "(?s)2 of 2 tasks.*is not in the tuning log: import the bundle"),
        (
            replace(tuned.lock, tasks=(replace(first, candidate=CandidateKey("0" * 64)), second)),
            tuned.log,
            "candidate 00000000 is not in the tuning log",
        ),
    ):
        with pytest.raises(CoverageError, match=f"(?s){message.removeprefix('(?s)')}"):
            tuned.locked(lock, log)
    tuned.log.mark_unusable(1, "failed in its race")
    with pytest.raises(CoverageError, match=r"\(record 1\) is in quarantine: failed in its race"):
        tuned.locked(tuned.lock, tuned.log)


@pytest.mark.tvm
@pytest.mark.slow
def test_a_locked_candidate_that_no_longer_replays_is_an_error(tuned: Tuned) -> None:
    task = tuned.tasks.tasks[0]
    broken = '[[["GetSBlock",[],["no_such_block","main"],["b0"]]],[]]'
    record(tuned.log, task, broken, 1e-9, trial_index=7)
    ranked = tuned.log.best(task)[0].trial
    lock = replace(
        tuned.lock,
        tasks=tuple(
            replace(locked, candidate=ranked.record.candidate.key) if locked.task_key == task.key else locked
            for locked in tuned.lock.tasks
        ),
    )
    with pytest.raises(CoverageError, match=rf"\(record {ranked.record_id}\) no longer replays: .*; write"):
        tuned.locked(lock, tuned.log)


@pytest.mark.tvm
@pytest.mark.slow
def test_a_lock_for_another_target_says_which_options_it_wants(tuned: Tuned) -> None:
    lock = replace(tuned.lock, target=TargetSpec("znver4", 8, ("+avx2",)))
    with pytest.raises(ConfigError, match=r'--target "llvm -mcpu=znver4 -mattr=\+avx2" --threads 8'):
        tuned.locked(lock, tuned.log)


@pytest.mark.tvm
@pytest.mark.slow
def test_other_weights_and_names_meet_the_lock_and_write_the_same(tuned: Tuned, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    again = dense_net(tmp_path / "again" / "m.onnx", seed=9, prefix="renamed/")
    model = import_model(again, target=tuned.model.target)
    tasks = partition(model)
    choices = locked_kernels(tasks.tasks, tuned.lock, log=tuned.log, replay=replay)
    assert lock_to_text(make_lock(model.name, tasks, choices)) == lock_to_text(tuned.lock)
