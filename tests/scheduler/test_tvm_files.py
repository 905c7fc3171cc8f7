"""Whatever happened to the files, every line that is whole is read, and nothing else is believed."""

import base64
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scheduler import tvm_work_dir
from tunewright.core.errors import ConfigError
from tunewright.core.types import TargetSpec
from tunewright.scheduler import tvm_files
from tunewright.scheduler.tvm_files import (
    RECORD_FILE,
    WORKLOAD_FILE,
    BadLine,
    RecordLine,
    WorkloadFile,
    read_records,
    read_workloads,
)

TARGET = {"keys": ["cpu"], "kind": "llvm", "mcpu": "sapphirerapids", "num-cores": 3, "tag": ""}
TRACE = [[["EnterPostproc", [], [], []]], []]
ARGS = [["TENSOR", "float32", [4, 4]]]


def read(folder: Path) -> tuple[WorkloadFile, list[RecordLine | BadLine]]:
    workloads = read_workloads(folder / WORKLOAD_FILE)
    return workloads, list(read_records(folder / RECORD_FILE, num_workloads=workloads.num_indices))


def read_text(folder: Path, text: str | bytes, *, num_workloads: int = 1) -> list[RecordLine | BadLine]:
    path = folder / RECORD_FILE
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path, num_workloads=num_workloads))


def record_text(**parts: object) -> str:
    """A good line, but for `parts`."""
    fields = {"index": 0, "trace": TRACE, "secs": [0.25], "target": TARGET, "args": ARGS} | parts
    index, *rest = fields.values()
    return json.dumps([index, rest])


def test_a_real_work_directory_is_read_completely(tmp_path: Path) -> None:
    workloads, records = read(tvm_work_dir.unpack(tmp_path))
    assert list(workloads.workloads) == [0, 1, 2]
    assert (workloads.num_indices, workloads.bad_lines) == (3, ())
    assert all("s_tir.SBlock" in line.mod_json for line in workloads.workloads.values())
    assert len(records) == tvm_work_dir.NUM_RECORDS
    lines = [line for line in records if isinstance(line, RecordLine)]
    assert len(lines) == tvm_work_dir.NUM_RECORDS
    assert sum(line.is_failure for line in lines) == tvm_work_dir.NUM_FAILURES
    assert {line.target for line in lines} == {TargetSpec("sapphirerapids", 3)}
    for line, (index, [trace, secs, _, args]) in zip(lines, tvm_work_dir.records(tmp_path), strict=True):
        assert (line.workload_index, json.loads(line.trace_json)) == (index, trace)
        assert json.loads(line.args_json) == args
        assert list(line.run_secs) == ([] if secs == [1e10] else secs)
    assert [line.line_number for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"index": 1}, "workload index out of range"),
        ({"index": -1}, "workload index out of range"),
        ({"index": True}, "wrong shape"),
        ({"index": "0"}, "wrong shape"),
        ({"trace": [[]]}, "wrong shape"),
        ({"trace": [["EnterPostproc"], []]}, "wrong shape"),
        ({"trace": [TRACE[0], [[1, 5]]]}, "wrong shape"),  # a decision of an instruction that is not there
        ({"trace": [TRACE[0], [[-1, 5]]]}, "wrong shape"),
        ({"trace": [TRACE[0], [[0, 1e400]]]}, "not a number"),
        ({"secs": []}, "no run time"),
        ({"secs": None}, "no run time"),
        ({"secs": [0.0]}, "impossible run time"),
        ({"secs": [0.1, -0.1]}, "impossible run time"),
        ({"secs": ["0.1"]}, "impossible run time"),
        ({"secs": [float("nan")]}, "not a number"),
        ({"secs": [float("inf")]}, "not a number"),
        ({"args": "none"}, "wrong shape"),
        ({"target": "llvm"}, "wrong shape"),
        ({"target": {**TARGET, "kind": "cuda"}}, "target is no CPU"),
        ({"target": {"kind": "llvm", "num-cores": 3}}, "target without mcpu"),
        ({"target": {"kind": "llvm", "mcpu": "skylake"}}, "target without num-cores"),
        ({"target": {**TARGET, "num-cores": 0}}, "target without num-cores"),
        ({"target": {**TARGET, "mcpu": "\ud800"}}, "target with impossible names"),
        ({"target": {**TARGET, "mattr": [7]}}, "target with impossible names"),
        ({"target": {**TARGET, "fast-math": 1}}, "target with other options"),
    ],
)
def test_a_bad_line_costs_itself_and_says_why(parts: dict[str, object], reason: str, tmp_path: Path) -> None:
    good = record_text()
    before, bad, after = read_text(tmp_path, f"{good}\n{record_text(**parts)}\n{good}\n")
    assert isinstance(before, RecordLine) and isinstance(after, RecordLine)
    assert replace(after, line_number=1) == before
    assert isinstance(bad, BadLine)
    assert (bad.line_number, bad.reason) == (2, reason)


@pytest.mark.parametrize(
    ("secs", "expected"),
    [([1e10], ()), ([1e9], ()), ([0.5, 1e10], ()), ([10**400], ()), ([2, 0.5], (2.0, 0.5))],
)
def test_absurd_seconds_are_a_failure(secs: list[float], expected: tuple[float, ...], tmp_path: Path) -> None:
    (line,) = read_text(tmp_path, record_text(secs=secs))
    assert isinstance(line, RecordLine) and line.run_secs == expected


def test_lines_that_are_no_records(tmp_path: Path) -> None:
    good = record_text().encode()
    nested = b"[" * 100_000 + b"]" * 100_000
    lines = read_text(tmp_path, b"\n".join([b"", good, b"{}", b'"x"', nested, b"\xff\xfe", good[:-20]]))
    assert [line.reason if isinstance(line, BadLine) else "" for line in lines] == [
        *("", "wrong shape", "wrong shape", "not JSON", "torn", "torn")
    ]
    assert [line.line_number for line in lines] == [2, 3, 4, 5, 6, 7]  # an empty line counts


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = record_text()
    monkeypatch.setattr(tvm_files, "MAX_LINE_BYTES", len(good) + 10)
    long = record_text(args=ARGS * 50)
    for text, expected in (
        (f"{good}\n{long}\n{good}", ["", "too long", ""]),
        (f"{long}", ["too long"]),
        (f"{good}\n{good[:-1]}{' ' * 10}]\n{good}", ["", "too long", ""]),
    ):
        lines = read_text(tmp_path, text)
        assert [line.reason if isinstance(line, BadLine) else "" for line in lines] == expected


def test_a_file_that_grows_is_read_to_where_it_was(tmp_path: Path) -> None:
    good = record_text() + "\n"
    read_text(tmp_path, good * 3)
    for end, num_good, num_bad in ((len(good) * 2, 2, 0), (len(good) * 2 + 5, 2, 1), (0, 0, 0)):
        lines = list(read_records(tmp_path / RECORD_FILE, num_workloads=1, end=end))
        num_read = sum(isinstance(line, RecordLine) for line in lines)
        assert (num_read, len(lines) - num_read) == (num_good, num_bad)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["1", 5]', "wrong shape"),
        ('["one", ""]', "wrong shape"),
        ('["1", "not base64"]', "module is damaged"),
        ('["1", ""]', "module is damaged"),
        ('["1", ""', "torn"),
        (json.dumps(["1", base64.b64encode(b"\x03" + bytes(7) + b"{}").decode()]), "module is damaged"),
        (json.dumps(["1", base64.b64encode(b"\x02" + bytes(7) + b"{}").decode()]), "module is damaged"),
        (json.dumps(["1", base64.b64encode(b"\x02" + bytes(7) + b"{[").decode()]), "module is damaged"),
    ],
)
def test_a_damaged_workload_keeps_its_place(line: str, reason: str, tmp_path: Path) -> None:
    tvm_work_dir.unpack(tmp_path)
    first, _, third = tvm_work_dir.workloads(tmp_path)
    tvm_work_dir.write_workloads(tmp_path, [first, line, third])
    read_back = read_workloads(tmp_path / WORKLOAD_FILE)
    assert list(read_back.workloads) == [0, 2]
    assert read_back.num_indices == 3
    assert [(bad.line_number, bad.reason) for bad in read_back.bad_lines] == [(2, reason)]


@pytest.mark.parametrize("flipped", [b"\n", b"J"], ids=["lines joined", "a line split"])
def test_workloads_keep_their_numbers_where_a_bit_makes_or_takes_a_line_end(
    flipped: bytes, tmp_path: Path
) -> None:
    path = tvm_work_dir.unpack(tmp_path) / WORKLOAD_FILE
    whole = path.read_bytes()
    third = read_workloads(path).workloads[2]
    place = whole.index(flipped)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
    read_back = read_workloads(path)
    assert read_back.num_indices == 3
    assert read_back.workloads[2].mod_json == third.mod_json
    assert 0 not in read_back.workloads


def test_missing_files_are_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="work directory of a MetaSchedule tuning"):
        read_workloads(tmp_path / WORKLOAD_FILE)
    with pytest.raises(ConfigError, match="No such file"):
        list(read_records(tmp_path / RECORD_FILE, num_workloads=1))
    with pytest.raises(ConfigError, match="Is a directory"):
        read_workloads(tmp_path)


# ---- a thousand damages


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(data: bytes, rng: random.Random) -> bytes:
    # Now and then where it hurts most: a line's end, or a letter that becomes one.
    pattern = rng.choice([rb"\n", rb"[J*]|\n", rb".", rb"."])
    place = rng.choice([match.start() for match in re.finditer(pattern, data)])
    bit = rng.randrange(8)
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def _put_nan(data: bytes, rng: random.Random) -> bytes:
    numbers = [match.span() for match in re.finditer(rb"(?<=[\[,])\d+(\.\d+)?(e-?\d+)?(?=[,\]])", data)]
    if not numbers:
        return data[:-2] + b",NaN]\n"
    first, end = rng.choice(numbers)
    return data[:first] + rng.choice([b"NaN", b"-Infinity", b"1e999"]) + data[end:]


def _put_index(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    row = rng.randrange(len(lines) - 1)
    _, _, rest = lines[row].partition(b",")
    lines[row] = rng.choice([b"[-1", b"[3", b"[99", b"[1e2", b"[null", b"[1" + b"0" * 30]) + b"," + rest
    return b"\n".join(lines)


def _swap(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"".join(lines)


def _lose(data: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(data))
    return data[:first] + data[first + rng.randrange(1, 5000) :]


def _blank(data: bytes, rng: random.Random) -> bytes:
    """A block of the disk that was never written."""
    first = rng.randrange(len(data))
    return data[:first] + bytes(min(512, len(data) - first)) + data[first + 512 :]


DAMAGES = (_cut, _flip, _flip, _put_nan, _put_index, _swap, _duplicate, _lose, _blank, _flip)
# What may change how many lines stand before another one.
MOVES_LINES = (_swap, _duplicate, _lose, _blank, _put_index)


@pytest.mark.slow
@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda damage: damage.__name__)
def test_every_line_that_a_damage_spares_is_kept(
    damage: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    tvm_work_dir.unpack(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in (WORKLOAD_FILE, RECORD_FILE)}
    workloads, records = read(tmp_path)
    known_workloads = dict(zip(whole[WORKLOAD_FILE].splitlines(), workloads.workloads.items(), strict=True))
    known_records = dict(zip(whole[RECORD_FILE].splitlines(), records, strict=True))
    for seed in range(100 * DAMAGES.count(damage)):
        rng = random.Random(f"{damage.__name__}{seed}")
        name = rng.choice([WORKLOAD_FILE, RECORD_FILE]) if damage is not _put_index else RECORD_FILE
        (tmp_path / name).write_bytes(damage(whole[name], rng))
        read_back, lines = read(tmp_path)
        _check_workloads(tmp_path, read_back, known_workloads, is_in_place=damage not in MOVES_LINES)
        _check_records(tmp_path, lines, known_records, read_back.num_indices)
        (tmp_path / name).write_bytes(whole[name])


def _check_workloads(
    folder: Path, read_back: WorkloadFile, known: dict[bytes, tuple[int, object]], *, is_in_place: bool
) -> None:
    by_number = {line.line_number: (index, line) for index, line in read_back.workloads.items()}
    for number, text in enumerate((folder / WORKLOAD_FILE).read_bytes().split(b"\n"), 1):
        if text in known:
            old_index, old = known[text]
            index, line = by_number[number]
            assert replace(line, line_number=0) == replace(old, line_number=0)  # type: ignore[type-var]
            assert index == old_index or not is_in_place


def _check_records(
    folder: Path,
    lines: list[RecordLine | BadLine],
    known: dict[bytes, RecordLine | BadLine],
    num_workloads: int,
) -> None:
    by_number = {line.line_number: line for line in lines}
    for number, text in enumerate((folder / RECORD_FILE).read_bytes().split(b"\n"), 1):
        if (old := known.get(text)) is None:
            continue
        line = by_number[number]
        assert isinstance(old, RecordLine)
        if old.workload_index < num_workloads:
            assert replace(line, line_number=0) == replace(old, line_number=0)
        else:
            assert isinstance(line, BadLine)
