"""TVM's own database as files: two of them, one JSON value per line. Read without TVM, whatever their state.

`database_workload.json`: `[structural hash, base64 of the module]`; its n-th line is workload n.
`database_tuning_record.json`: `[n, [trace, run seconds, target, argument shapes]]`. TVM writes 1e10 or 1e9
seconds for a candidate that failed, and refuses both files for one bad line; here a bad line costs itself.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tunewright.core.errors import ConfigError
from tunewright.core.keys import canonical_json
from tunewright.core.types import TargetSpec

WORKLOAD_FILE = "database_workload.json"
RECORD_FILE = "database_tuning_record.json"
#: The longest line that is read. One of a convolution takes 70 KB.
MAX_LINE_BYTES = 32 << 20
#: A module is stored with its length in front, little-endian.
SIZE_PREFIX_BYTES = 8

_FAILED_SECS = 1e9
_MAX_THREADS = 4096
# What a target may say beside what a `TargetSpec` holds, without the code being another's.
_INERT_TARGET_ATTRS = frozenset({"keys", "tag", "host", "mtriple", "device", "model"})
_TARGET_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_WORKLOAD_START = re.compile(rb'\["\d+"')


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is left out. `reason` is one of few, `detail` says more. Lines count from 1."""

    line_number: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadLine:
    """A workload; `mod_json` is its module as TVM's JSON, not yet looked at by TVM."""

    line_number: int
    structural_hash: int
    mod_json: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkloadFile:
    """`workloads` by the index that records name; `num_indices` counts those of damaged lines too."""

    workloads: Mapping[int, WorkloadLine]
    num_indices: int
    bad_lines: tuple[BadLine, ...]


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A measured candidate; `trace_json` is canonical JSON.

    `run_secs`: seconds per call of each sample, finite and positive; empty where the candidate failed.
    `args_json`: canonical JSON of the arguments' types and shapes as TVM states them, "" where it does not.
    """

    line_number: int
    workload_index: int
    trace_json: str = field(repr=False)
    run_secs: tuple[float, ...]
    target: TargetSpec
    args_json: str = field(repr=False)

    @property
    def is_failure(self) -> bool:
        return not self.run_secs


class _Bad(Exception):
    """Why a line is bad."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail[:200]


def read_workloads(path: Path) -> WorkloadFile:
    """Read a workload file; damaged lines become `bad_lines`.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    workloads: dict[int, WorkloadLine] = {}
    bad_lines: list[BadLine] = []
    index = 0
    is_open = False  # the line before is the beginning of this one
    for line_number, line in _lines(path, end=None):
        if line is not None and is_open and not line.startswith(b'["'):
            bad_lines.append(BadLine(line_number, "torn", "the rest of the line before"))
            is_open = not line.endswith(b"]")
            continue
        is_open = line is not None and line.startswith(b"[") and not line.endswith(b"]")
        try:
            workloads[index] = _workload(line_number, line)
        except _Bad as bad:
            bad_lines.append(BadLine(line_number, bad.reason, bad.detail))
        # Records name workloads by position: two lines that were joined count as two.
        index += max(1, len(_WORKLOAD_START.findall(line or b"")))
    return WorkloadFile(workloads, index, tuple(bad_lines))


def read_records(path: Path, *, num_workloads: int, end: int | None = None) -> Iterator[RecordLine | BadLine]:
    """Read a record file, line by line.

    Args:
        num_workloads: `WorkloadFile.num_indices` of the workload file beside it.
        end: read so many bytes only, where the file may be growing.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    for line_number, line in _lines(path, end=end):
        try:
            yield _record(line_number, line, num_workloads)
        except _Bad as bad:
            yield BadLine(line_number, bad.reason, bad.detail)


def unreadable(path: Path, exc: OSError) -> ConfigError:
    """What people are told of a file that cannot be opened."""
    return ConfigError(
        f"{path} cannot be read ({exc.strerror}): name the work directory of a MetaSchedule tuning, "
        f"which holds {WORKLOAD_FILE} and {RECORD_FILE}"
    )


def _lines(path: Path, *, end: int | None) -> Iterator[tuple[int, bytes | None]]:
    """Stripped lines with their numbers, None for one that is too long; empty lines are left out."""
    left = end if end is not None else 1 << 62
    try:
        with path.open("rb") as file:
            line_number = 0
            while data := file.readline(min(left, MAX_LINE_BYTES)):
                left -= len(data)
                line_number += 1
                is_long = len(data) >= MAX_LINE_BYTES
                while is_long and not data.endswith(b"\n"):
                    data = file.readline(min(left, MAX_LINE_BYTES))
                    left -= len(data)
                    if not data:
                        break
                if is_long:
                    yield line_number, None
                elif stripped := data.strip():
                    yield line_number, stripped
    except OSError as exc:
        raise unreadable(path, exc) from exc


def _workload(line_number: int, line: bytes | None) -> WorkloadLine:
    match _parse(line):
        case [str(hash_text), str(module_text)]:
            pass
        case _:
            raise _Bad("wrong shape", "expected [structural hash, module]")
    if not re.fullmatch(r"-?[0-9]{1,20}", hash_text):
        raise _Bad("wrong shape", f"the structural hash is {hash_text[:40]!r}")
    try:
        data = base64.b64decode(module_text, validate=True)
        mod_json = data[SIZE_PREFIX_BYTES:].decode()
    except ValueError as exc:
        raise _Bad("module is damaged", str(exc)) from exc
    if int.from_bytes(data[:SIZE_PREFIX_BYTES], "little") != len(data) - SIZE_PREFIX_BYTES:
        raise _Bad("module is damaged", "its length is not the one that stands in front of it")
    try:
        graph = _parse(mod_json.encode())
    except _Bad as bad:
        raise _Bad("module is damaged", bad.detail) from bad
    match graph:
        case {"nodes": list(), "root_index": int()}:
            return WorkloadLine(line_number, int(hash_text) % 2**64, mod_json)
    raise _Bad("module is damaged", "it is no graph of TVM")


def _record(line_number: int, line: bytes | None, num_workloads: int) -> RecordLine:
    match _parse(line):
        case [int(index), [trace, run_secs, dict(target), (list() | None) as args]] if type(index) is int:
            pass
        case _:
            raise _Bad("wrong shape", "expected [workload, [trace, run seconds, target, arguments]]")
    if not 0 <= index < num_workloads:
        raise _Bad("workload index out of range", f"{index} of {num_workloads}")
    if not _is_trace(trace):
        raise _Bad("wrong shape", "the trace is not [instructions, decisions]")
    return RecordLine(
        line_number=line_number,
        workload_index=index,
        trace_json=_canonical(trace),
        run_secs=_run_secs(run_secs),
        target=_target(target),
        args_json=_canonical(args) if args is not None else "",
    )


def _parse(line: bytes | None) -> Any:
    if line is None:
        raise _Bad("too long", f"more than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        is_whole = line[:1] in (b"[", b"{") and line[-1:] in (b"]", b"}")
        raise _Bad("not JSON" if is_whole else "torn", str(exc)) from exc


def _canonical(value: Any) -> str:
    try:
        return canonical_json(value)
    except (ValueError, RecursionError) as exc:  # 1e999 is read as infinity
        raise _Bad("not a number", str(exc)) from exc


def _refuse_constant(text: str) -> NoReturn:
    raise _Bad("not a number", text)


def _is_trace(trace: Any) -> bool:
    """Whether it has a trace's shape; TVM does not check where decisions point."""
    match trace:
        case [list(instructions), list(decisions)]:
            return all(map(_is_instruction, instructions)) and all(
                isinstance(decision, list)
                and len(decision) == 2
                and type(decision[0]) is int
                and 0 <= decision[0] < len(instructions)
                for decision in decisions
            )
    return False


def _is_instruction(instruction: Any) -> bool:
    match instruction:
        case [str(), list(), list(), list(outputs)]:
            return all(isinstance(output, str) for output in outputs)
    return False


def _run_secs(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise _Bad("no run time")
    if not all(type(secs) in (int, float) for secs in value):
        raise _Bad("impossible run time", str(value))
    if any(secs >= _FAILED_SECS for secs in value):
        return ()
    if not all(secs > 0 for secs in value):
        raise _Bad("impossible run time", str(value))
    return tuple(map(float, value))


def _target(attrs: Mapping[str, Any]) -> TargetSpec:
    kind, mcpu, num_threads = attrs.get("kind"), attrs.get("mcpu"), attrs.get("num-cores")
    if kind != "llvm":
        raise _Bad("target is no CPU", f"kind {kind!r}")
    if not isinstance(mcpu, str) or not mcpu:
        raise _Bad("target without mcpu")
    if type(num_threads) is not int or not 1 <= num_threads <= _MAX_THREADS:
        raise _Bad("target without num-cores", f"num-cores is {num_threads!r}")
    mattr = attrs.get("mattr") or []
    features = mattr.split(",") if isinstance(mattr, str) else mattr
    if not isinstance(features, list) or not all(
        isinstance(name, str) and _TARGET_NAME.fullmatch(name) for name in (mcpu, *features)
    ):
        raise _Bad("target with impossible names", f"mcpu {mcpu!r}, mattr {mattr!r}")
    others = sorted(attrs.keys() - _INERT_TARGET_ATTRS - {"kind", "mcpu", "num-cores", "mattr"})
    if others:
        raise _Bad("target with other options", ", ".join(others))
    return TargetSpec(mcpu=mcpu, num_threads=num_threads, mattr=tuple(sorted(features)))
