"""Bundles: the schedules of a model in one file that can be carried to another log.

A ZIP with `manifest.json` (what is in it, with checksums), `schedules.lock`, `workloads/KEY.json` (canonical
modules) and `records.jsonl` (one record per line). The same content gives the same bytes. A bundle that is
read is not believed: nothing in it names a file, and everything is within limits.
"""

import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import tunewright
from tunewright.core.errors import ConfigError, UntrustedTraceError
from tunewright.core.files import read_limited
from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import MachineInfo, TargetSpec, TaskKey, TuningRecord, WorkloadKey
from tunewright.core.untrusted_json import parse_untrusted
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.record_json import from_plain, to_plain
from tunewright.scheduler.schedule_lock import ScheduleLock, lock_from_bytes, lock_to_text

BUNDLE_FORMAT = "tunewright-schedules/1"
MANIFEST_MEMBER = "manifest.json"
LOCK_MEMBER = "schedules.lock"
RECORDS_MEMBER = "records.jsonl"

MAX_FILE_BYTES = 128 << 20
MAX_TOTAL_BYTES = 512 << 20
MAX_MEMBERS = 4096
# Text of modules shrinks to a fifteenth, like traces in a row to a fiftieth.
MAX_RATIO = 200
_MAX_MODULE_BYTES = 16 << 20
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_LINE_BYTES = 2 << 20
_MAX_DEPTH = 64

_WORKLOAD_MEMBER = re.compile(r"workloads/(w[0-9]{1,4}-[0-9a-f]{64})\.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_REMEDY = "export it again, or carry it again"
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError, TypeError, AttributeError),
)


@dataclass(frozen=True, slots=True)
class BundledWorkload:
    """A workload; `mod_json` is its canonical module, which nobody has looked at yet after reading."""

    key: WorkloadKey
    name: str
    mod_json: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BundledSession:
    """The session that records belong to; `task_weights` of the tasks in the bundle, in the model's order."""

    session_id: str
    model_name: str
    strategy: str
    seed: int
    machine: MachineInfo
    created_at: datetime
    task_weights: tuple[tuple[TaskKey, int], ...]


@dataclass(frozen=True, slots=True)
class ScheduleBundle:
    """Records of one model on one target, with all that a log must know to take them in."""

    lock: ScheduleLock
    workloads: tuple[BundledWorkload, ...]
    sessions: tuple[BundledSession, ...]
    records: tuple[TuningRecord, ...]

    @property
    def target(self) -> TargetSpec:
        return self.lock.target

    def workload_of_tasks(self) -> dict[TaskKey, BundledWorkload]:
        return {TaskKey(digest(known.key, str(self.target))): known for known in self.workloads}


def write_bundle(bundle: ScheduleBundle, path: Path) -> None:
    """Write a bundle; a file that is there is replaced.

    Raises:
        ConfigError: the file cannot be written.
    """
    content = bundle_to_bytes(bundle)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another file with -o") from exc


def bundle_to_bytes(bundle: ScheduleBundle) -> bytes:
    """The ZIP: members sorted by name, without the time of writing."""
    members = {
        LOCK_MEMBER: lock_to_text(bundle.lock),
        RECORDS_MEMBER: "".join(canonical_json(to_plain(record)) + "\n" for record in bundle.records),
    }
    members |= {f"workloads/{known.key}.json": known.mod_json for known in bundle.workloads}
    contents = {name: text.encode() for name, text in sorted(members.items())}
    manifest = {
        "format": BUNDLE_FORMAT,
        "tunewright_version": tunewright.__version__,
        "model_name": bundle.lock.model_name,
        "target": to_plain(bundle.target),
        "members": [
            {"name": name, "sha256": _sha256(content), "size_bytes": len(content)}
            for name, content in contents.items()
        ],
        "sessions": [to_plain(session) for session in bundle.sessions],
        "workloads": [{"key": known.key, "name": known.name} for known in bundle.workloads],
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
    contents[MANIFEST_MEMBER] = text.encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(contents.items()):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(info, content, compresslevel=9)
    return file.getvalue()


def read_bundle(path: Path) -> ScheduleBundle:
    """Read a bundle from anybody. What TVM would have to load is left as text.

    Raises:
        ConfigError: it is missing, damaged, over a limit, of another format version, or contradicts itself.
    """
    content = read_limited(path, MAX_FILE_BYTES, remedy="give a file of db export")
    return bundle_from_bytes(content, name=str(path))


def bundle_from_bytes(content: bytes, *, name: str) -> ScheduleBundle:
    """`read_bundle` of bytes; `name` is what messages call them."""
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB, which no bundle is")
    try:
        members = _read_members(content)
        manifest = _parsed(members.pop(MANIFEST_MEMBER), "the manifest", _MAX_MANIFEST_BYTES)
        _check_format(manifest, name)
        _check_members(manifest, members)
        return _assembled(manifest, members, name)
    except ConfigError:
        raise
    except (_Damage, UntrustedTraceError) as exc:
        raise ConfigError(f"{name} is damaged or no bundle: {exc}; {_REMEDY}") from exc
    except _ZIP_ERRORS as exc:
        raise ConfigError(f"{name} is damaged or no bundle ({type(exc).__name__}: {exc}); {_REMEDY}") from exc


class _Damage(Exception):
    """What is wrong with a bundle."""


def _read_members(content: bytes) -> dict[str, bytes]:
    """All members by name; limits hold before anything is unpacked, and while it is."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise _Damage(f"it has {len(infos)} members, at most {MAX_MEMBERS} are read")
        total = sum(info.file_size for info in infos)
        if total > MAX_TOTAL_BYTES or total > MAX_RATIO * len(content):
            raise _Damage(f"its {len(content)} bytes unpack to {total}, which is more than is read")
        members: dict[str, bytes] = {}
        for info in infos:
            if info.filename in members:
                raise _Damage(f"it has the member {info.filename!a} twice")
            members[info.filename] = _read_member(archive, info)
    if MANIFEST_MEMBER not in members:
        raise _Damage(f"it has no {MANIFEST_MEMBER}")
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = info.filename
    if name not in (MANIFEST_MEMBER, LOCK_MEMBER, RECORDS_MEMBER) and not _WORKLOAD_MEMBER.fullmatch(name):
        raise _Damage(f"it has the member {ascii(name)[:100]}, which no bundle has")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise _Damage(f"{name} is packed in another way than bundles are")
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise _Damage(f"{name} has not the size that stands in the archive")
    return data


def _check_format(manifest: Any, name: str) -> None:
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != BUNDLE_FORMAT:
        raise ConfigError(
            f"{name} has format {ascii(version)[:100]}, this program reads {BUNDLE_FORMAT!r}; {_REMEDY}"
        )


def _check_members(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    listed = {entry["name"]: entry for entry in manifest["members"]}
    if set(listed) != set(members) or len(listed) != len(manifest["members"]):
        raise _Damage("its members are not those of its manifest")
    for name, content in members.items():
        if listed[name]["size_bytes"] != len(content) or listed[name]["sha256"] != _sha256(content):
            raise _Damage(f"the checksum of {name} is not that of the manifest")


def _assembled(manifest: Mapping[str, Any], members: Mapping[str, bytes], name: str) -> ScheduleBundle:
    lock = lock_from_bytes(members[LOCK_MEMBER], name=f"{LOCK_MEMBER} of {name}")
    bundle = ScheduleBundle(
        lock=lock,
        workloads=tuple(_workload(plain, members) for plain in manifest["workloads"]),
        sessions=tuple(from_plain(BundledSession, plain) for plain in manifest["sessions"]),
        records=tuple(_records(members[RECORDS_MEMBER])),
    )
    if len({known.key for known in bundle.workloads}) != len(members) - 2:
        raise _Damage("its workloads are not those of its manifest")
    if (manifest["model_name"], manifest["target"]) != (lock.model_name, to_plain(lock.target)):
        raise _Damage(f"{LOCK_MEMBER} is of another model or target than the manifest")
    _check_references(bundle)
    return bundle


def _workload(plain: Mapping[str, Any], members: Mapping[str, bytes]) -> BundledWorkload:
    known = from_plain(BundledWorkload, {**plain, "mod_json": ""})
    content = members[f"workloads/{known.key}.json"]
    _parsed(content, "a workload", _MAX_MODULE_BYTES)
    return BundledWorkload(known.key, known.name, content.decode())


def _records(content: bytes) -> Iterator[TuningRecord]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line:
            what = f"line {number} of {RECORDS_MEMBER}"
            try:
                yield from_plain(TuningRecord, _parsed(line, what, _MAX_LINE_BYTES))
            except ValueError as exc:
                raise _Damage(f"{what}: {exc}") from exc


def _check_references(bundle: ScheduleBundle) -> None:
    """Every record has its workload and its session; the lock names records that are there."""
    tasks, sessions = bundle.workload_of_tasks(), {session.session_id for session in bundle.sessions}
    if len(sessions) != len(bundle.sessions):
        raise _Damage("it has a session twice")
    for session in bundle.sessions:
        _check_session(session, tasks)
    candidates = set()
    for record in bundle.records:
        if record.task_key not in tasks:
            raise _Damage("a record is of a task that is not there, or of another target")
        if record.session_id not in sessions:
            raise _Damage("a record is of a session that is not there")
        candidates.add(record.candidate.key)
    for locked in bundle.lock.tasks:
        if locked.source is KernelSource.RECORD and locked.candidate not in candidates:
            raise _Damage(f"{LOCK_MEMBER} names a candidate that has no record")


def _check_session(session: BundledSession, tasks: Mapping[TaskKey, BundledWorkload]) -> None:
    if not re.fullmatch(r"[!-~]{1,128}", session.session_id):
        raise _Damage("the id of a session is none")
    keys = [key for key, _ in session.task_weights]
    if len(set(keys)) != len(keys) or not set(keys) <= tasks.keys():
        raise _Damage("a session has tasks that are not there")
    if not all(weight > 0 for _, weight in session.task_weights):
        raise _Damage("a session calls a task less than once")


def _parsed(content: bytes, what: str, max_bytes: int) -> Any:
    return parse_untrusted(content.decode(), what, max_bytes=max_bytes, max_depth=_MAX_DEPTH)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
