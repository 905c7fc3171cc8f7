import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.scheduler import in_process
from tests.scheduler.stored import HERE, OTHER, make_task, partition_of, store, success
from tunewright.core.errors import ConfigError, TunewrightError
from tunewright.core.keys import digest
from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    Workload,
    WorkloadKey,
)
from tunewright.scheduler.kernel_choice import KernelChoice
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.schedule_bundle import (
    ScheduleBundle,
    bundle_from_bytes,
    bundle_to_bytes,
    read_bundle,
    write_bundle,
)
from tunewright.scheduler.schedule_transfer import ImportReport, check_bundle, make_bundle, store_bundle
from tunewright.tuning_logs import Match, MatchPolicy, TuningLog

TASKS = (make_task(64, weight=3), make_task(128), make_task(256))


@dataclass(frozen=True)
class Failure:
    message: str


def allow(text: str) -> None:
    pass


def canonicalise(modules: Sequence[tuple[str, str]]) -> list[Workload | Failure]:
    """Key and arguments from the text of `stored.make_task`."""
    found: list[Workload | Failure] = []
    for mod_json, name in modules:
        ((op, (size, dtype)),) = json.loads(mod_json).items()
        workload = make_task(size, op=op, dtype=dtype).workload
        key = WorkloadKey(f"w1-{digest(mod_json)}")
        found.append(replace(workload, name=name, key=key, mod_json=mod_json))
    return found


def replay(items: Sequence[tuple[str, str]]) -> list[str | Failure]:
    return ["{}" for _ in items]


@pytest.fixture
def log() -> Iterator[TuningLog]:
    """Three tasks, of which the last has no record that could be exported; two machines."""
    with TuningLog.open("sqlite://") as opened:
        store(opened, TASKS[0], success(3e-3), success(1e-3), success(2e-3))
        store(opened, TASKS[1], success(1 / 3), machine=OTHER)
        store(opened, TASKS[2], MeasureFailure(FailureKind.RUN, "no", 0.1))
        yield opened


def bundle_of(log: TuningLog, *, k: int = 1, match: Match | None = None) -> ScheduleBundle:
    best = log.best_many([task.key for task in TASKS], match=match)
    choices = []
    for task in TASKS:
        record = next(iter(best[task.key]), None)
        source = KernelSource.RECORD if record else KernelSource.UNSCHEDULED
        key = record.trial.record.candidate.key if record else None
        choices.append(KernelChoice(task, source, None, record, candidate_key=key))
    return make_bundle("net", partition_of(*TASKS), choices, log, match=match, k=k)


def take_in(
    bundle: ScheduleBundle,
    log: TuningLog,
    *,
    check_module: Callable[[str], None] = allow,
    check_trace: Callable[[str], None] = allow,
    replay: Callable[[Sequence[tuple[str, str]]], Sequence[str | Failure]] = replay,
) -> ImportReport:
    checked = check_bundle(
        bundle,
        check_module=check_module,
        check_trace=check_trace,
        canonicalise=canonicalise,
        replay=replay,
    )
    return store_bundle(checked, log)


def repacked(content: bytes, change: Callable[[dict[str, bytes]], None], *, is_signed: bool = True) -> bytes:
    """The bundle with other members; `is_signed`: its manifest is made to agree with them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if is_signed:
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = [
            {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for name, data in members.items()
            if name != "manifest.json"
        ]
        members["manifest.json"] = json.dumps(manifest).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def in_member(name: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert old.encode() in members[name]
        members[name] = members[name].replace(old.encode(), new.encode(), 1)

    return change


def test_everything_of_a_record_comes_back_but_the_verdict(log: TuningLog, tmp_path: Path) -> None:
    bundle = bundle_of(log, k=9)
    assert len(bundle.records) == 4 and len(bundle.workloads) == 2
    write_bundle(bundle, tmp_path / "net.twb")
    read = read_bundle(tmp_path / "net.twb")
    assert read.records == bundle.records and read.sessions == bundle.sessions
    with TuningLog.open("sqlite://") as other:
        assert take_in(read, other) == ImportReport(num_stored=4, num_known=0, left_out=())
        assert other.best_many([task.key for task in TASKS]) == {task.key: [] for task in TASKS}
        for task in TASKS[:2]:
            theirs = [trial.record for trial in log.trials(task.key)]
            ours = [trial.record for trial in other.trials(task.key)]
            unverified = [
                replace(record, result=replace(record.result, is_verified=False))
                for record in theirs
                if isinstance(record.result, MeasureSuccess)
            ]
            assert sorted(ours, key=lambda r: r.trial_index) == unverified
            assert other.task(task.key).workload.mod_json == task.workload.mod_json
        assert [session.session_id for session in other.sessions()] == [
            session.session_id for session in log.sessions()
        ][:2]
        assert take_in(read, other) == ImportReport(num_stored=0, num_known=4, left_out=())


def test_the_log_that_a_bundle_came_from_keeps_its_verdicts(log: TuningLog) -> None:
    before = log.best_many([task.key for task in TASKS], k=9)
    assert take_in(bundle_of(log, k=9), log).num_known == 4
    assert log.best_many([task.key for task in TASKS], k=9) == before


def test_the_same_records_give_the_same_bytes(log: TuningLog) -> None:
    content = bundle_to_bytes(bundle_of(log))
    assert content == bundle_to_bytes(bundle_of(log))
    # What is lost is the number that the record has in this log, a comment of the lock.
    read = bundle_from_bytes(content, name="it")
    assert bundle_from_bytes(bundle_to_bytes(read), name="it") == read
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == sorted(archive.namelist())


def test_the_policy_and_k_say_what_is_exported(log: TuningLog) -> None:
    assert [r.result.run_secs[1] for r in bundle_of(log, k=2).records] == [1e-3, 2e-3, 1 / 3]
    exact = bundle_of(log, match=Match(MatchPolicy.EXACT, HERE))
    assert {record.task_key for record in exact.records} == {TASKS[0].key}
    assert [task.source for task in exact.lock.tasks] == ["record", "unscheduled", "unscheduled"]
    with (
        TuningLog.open("sqlite://") as empty,
        pytest.raises(ConfigError, match="the log has no record of net to export"),
    ):
        bundle_of(empty)


def test_a_record_that_does_not_replay_is_left_out_and_told(log: TuningLog) -> None:
    def first_fails(items: Sequence[tuple[str, str]]) -> list[str | Failure]:
        return [Failure("no such block"), *["{}" for _ in items[1:]]]

    with TuningLog.open("sqlite://") as other:
        report = take_in(bundle_of(log), other, replay=first_fails)
        assert report.num_stored == 1
        assert report.left_out == (f"a record of {TASKS[0].workload.name} does not replay: no such block",)


@pytest.mark.parametrize("refused", ["check_module", "check_trace"])
def test_what_is_refused_stores_nothing(refused: str, log: TuningLog) -> None:
    def refuse(text: str) -> None:
        raise TunewrightError("it links a file")

    with TuningLog.open("sqlite://") as other:
        with pytest.raises(ConfigError, match="in the bundle is refused, and nothing was stored: it links"):
            if refused == "check_module":
                take_in(bundle_of(log), other, check_module=refuse)
            else:
                take_in(bundle_of(log), other, check_trace=refuse)
        assert other.tasks() == [] and other.sessions() == []


def test_a_module_under_another_key_stores_nothing(log: TuningLog) -> None:
    bundle = bundle_of(log)
    first, second = bundle.workloads
    forged = replace(bundle, workloads=(replace(first, mod_json=second.mod_json), second))
    with TuningLog.open("sqlite://") as other:
        with pytest.raises(ConfigError, match="is not the one that its key names"):
            take_in(forged, other)
        assert other.tasks() == []


KEY = TASKS[0].workload.key
RECORDS = "records.jsonl"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_member(RECORDS, '"seed":1', '"seed":NaN'), "holds NaN, which is no number"),
        (in_member(RECORDS, '"seed":1', '"seed":1e999'), "which is not finite"),
        (in_member(RECORDS, '"seed":1', '"seed":1.0'), r"record.seed is of type float|seed is of type float"),
        (in_member(RECORDS, '"seed":1', '"seed":true'), "seed is of type bool"),
        (in_member(RECORDS, '"seed":1', '"seed":99999999999999999999'), "out of range"),
        (in_member(RECORDS, '"trial_index":', '"trial_index":1111111111'), "out of range"),
        (in_member(RECORDS, '"seed":1', '"seed":1,"more":2'), "has other fields than expected: 'more'"),
        (in_member(RECORDS, '"seed":1,', ""), "has other fields than expected: 'seed'"),
        (in_member(RECORDS, '"seed":1', '"seed":' + "[" * 99 + "]" * 99), "nested deeper than"),
        (in_member(RECORDS, '"origin":"random"', '"origin":"magic"'), "'magic' is not a valid Origin"),
        (in_member(RECORDS, '"run_secs":[', '"run_secs":[-1.0,'), "run_secs is"),
        (in_member(RECORDS, "2026-01-02", "0001-01-01"), "no moment"),
        (in_member(RECORDS, "+00:00", ""), "no moment"),
        (
            in_member(RECORDS, '"trace_json":"', '"trace_json":"\\ud800'),
            "trace_json is longer .* or cannot be printed",
        ),
        (in_member(RECORDS, '"strategy":"', '"strategy":"\\u0000'), "cannot be printed"),
        (in_member(RECORDS, f'"task_key":"{TASKS[0].key}"', f'"task_key":"{"0" * 64}"'), "not there"),
        (in_member(RECORDS, '"session_id":"', '"session_id":"x'), "a session that is not there"),
        (in_member("schedules.lock", "threads = 4", "threads = 5"), "of another model or target"),
        (in_member("schedules.lock", 'candidate = "', 'candidate = "0'), "no SHA-256"),
        (in_member("manifest.json", '"session_id": "', '"session_id": "a b'), "the id of a session is none"),
        (
            in_member("manifest.json", "tunewright-schedules/1", "tunewright-schedules/2"),
            "this program reads",
        ),
        (in_member("manifest.json", '"name": "matmul', '"name": "\\u001bmatmul'), "cannot be printed"),
        (lambda members: members.pop("schedules.lock"), "KeyError"),
        (lambda members: members.pop(f"workloads/{KEY}.json"), "KeyError"),
        (lambda members: members.update({f"workloads/w1-{'0' * 64}.json": b"{}"}), "its workloads are not"),
        (lambda members: members.update({"../../etc/passwd": b""}), "which no bundle has"),
        (lambda members: members.update({"/tmp/x": b""}), "which no bundle has"),
        (lambda members: members.update({f"workloads/{KEY}.json": b"no"}), "is not JSON"),
        (lambda members: members.update({RECORDS: b" " * (64 << 20)}), "unpack to"),
    ],
)
def test_a_forged_bundle_is_refused(
    change: Callable[[dict[str, bytes]], None], message: str, log: TuningLog
) -> None:
    content = repacked(bundle_to_bytes(bundle_of(log, k=9)), change)
    with pytest.raises(ConfigError, match=message):
        bundle_from_bytes(content, name="it")


@pytest.mark.parametrize("field", ["members", "sessions", "workloads", "target", "model_name"])
@pytest.mark.parametrize("value", [None, 5, "x", [5], [[]], {}, [{}], [{"name": []}]])
def test_a_manifest_of_another_structure(field: str, value: object, log: TuningLog) -> None:
    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        manifest[field] = value
        members["manifest.json"] = json.dumps(manifest).encode()

    content = repacked(bundle_to_bytes(bundle_of(log)), change, is_signed=False)
    with pytest.raises(ConfigError):
        bundle_from_bytes(content, name="it")


def test_a_checksum_that_does_not_hold(log: TuningLog) -> None:
    change = in_member(RECORDS, '"seed":1', '"seed":2')
    content = repacked(bundle_to_bytes(bundle_of(log)), change, is_signed=False)
    with pytest.raises(ConfigError, match=r"the checksum of records\.jsonl is not that of the manifest"):
        bundle_from_bytes(content, name="it")


def test_too_many_members_and_members_that_come_twice(log: TuningLog) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(5000):
            archive.writestr(f"workloads/w1-{number:064x}.json", b"")
    with pytest.raises(ConfigError, match="it has 5000 members, at most 4096"):
        bundle_from_bytes(file.getvalue(), name="it")
    content = io.BytesIO(bundle_to_bytes(bundle_of(log)))
    with (
        zipfile.ZipFile(content, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(ConfigError, match=r"it has the member 'manifest\.json' twice"):
        bundle_from_bytes(content.getvalue(), name="it")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + b"\0" * 18, b"[]", b"\x7fELF"])
def test_what_is_no_bundle_at_all(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.twb"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.twb is damaged or no bundle"):
        read_bundle(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_bundle(tmp_path / "none.twb")


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One of: flipped bits, a cut, a hole, a doubled piece, bytes of chance."""
    data = bytearray(content)
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    match int(rng.integers(5)):
        case 0:
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        case 1:
            del data[start:]
        case 2:
            del data[start : start + length]
        case 3:
            data[start:start] = data[start : start + length]
        case _:
            data[start : start + length] = rng.bytes(length)
    return bytes(data)


@pytest.mark.slow
def test_damage_gives_an_error_or_a_whole_import(log: TuningLog) -> None:
    rng = np.random.default_rng(0)
    content = bundle_to_bytes(bundle_of(log, k=9))
    whole = bundle_from_bytes(content, name="it")
    num_refused = 0
    for _ in range(200):
        try:
            read = bundle_from_bytes(damaged(content, rng), name="it")
        except ConfigError as exc:
            num_refused += 1
            assert "\n" not in str(exc)
            continue
        assert read == whole
    assert 150 < num_refused < 200


@pytest.mark.slow
def test_damage_of_what_is_inside_gives_an_error_or_a_valid_bundle(log: TuningLog) -> None:
    """Also where somebody has made the checksums agree again."""
    rng = np.random.default_rng(1)
    content = bundle_to_bytes(bundle_of(log, k=9))
    outcomes = {"refused": 0, "read": 0}
    for _ in range(200):

        def change(members: dict[str, bytes]) -> None:
            name = sorted(members)[int(rng.integers(len(members)))]
            members[name] = damaged(members[name], rng)

        try:
            forged = repacked(content, change)
        except (ValueError, LookupError, TypeError):  # the manifest is no JSON any more
            continue
        try:
            read = bundle_from_bytes(forged, name="it")
        except ConfigError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert bundle_from_bytes(bundle_to_bytes(read), name="it").records == read.records
    assert outcomes["refused"] > 100 and outcomes["read"] > 0


# ---- with real workloads


@pytest.mark.tvm
@pytest.mark.slow
def test_a_canonical_module_is_recognised_and_its_schedule_replays(tmp_path: Path) -> None:
    from tests.models import dense_net
    from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.kernel_choice import Variant, choose_kernels
    from tunewright.scheduler.partition import partition

    def recognise(modules: Sequence[tuple[str, str]]) -> list[Workload | Failure]:
        return [canonical_workload(load_module(text)["main"], name=name) for text, name in modules]

    model = import_model(dense_net(tmp_path / "m.onnx"), target=host_target(num_threads=1))
    tasks = partition(model)
    with TuningLog.open("sqlite://") as log, TuningLog.open("sqlite://") as other:
        for index, task in enumerate(tasks.tasks):
            in_process.record(log, task, in_process.sampled_trace(task), 1e-5, trial_index=index)
        choices = choose_kernels(tasks.tasks, variant=Variant.TUNED, log=log, replay=in_process.replay)
        content = bundle_to_bytes(make_bundle(model.name, tasks, choices, log))
        checked = check_bundle(
            bundle_from_bytes(content, name="it"),
            check_module=allow,
            check_trace=allow,
            canonicalise=recognise,
            replay=in_process.replay,
        )
        report = store_bundle(checked, other)
        assert report == ImportReport(num_stored=2, num_known=0, left_out=())
        for task in tasks.tasks:
            assert other.task(task.key).workload.mod_json == task.workload.mod_json
            assert other.task(task.key).workload == task.workload
