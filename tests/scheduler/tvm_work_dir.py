"""A real MetaSchedule work directory: three workloads of a tuned SqueezeNet, 21 records, two failures.

Written by TVM 0.27.0.post1 (LLVM, "sapphirerapids", 3 threads): a pooling, a convolution, a softmax.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

from tunewright.scheduler.tvm_files import RECORD_FILE, WORKLOAD_FILE

NUM_WORKLOADS = 3
NUM_RECORDS = 21
NUM_FAILURES = 2


def unpack(folder: Path) -> Path:
    """The two files in `folder`."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(Path(__file__).parent / "data" / "metaschedule.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def records(folder: Path) -> list[Any]:
    """The lines of the record file, parsed."""
    return [json.loads(line) for line in (folder / RECORD_FILE).read_text().splitlines()]


def write_records(folder: Path, records: list[Any]) -> None:
    (folder / RECORD_FILE).write_text("".join(json.dumps(record) + "\n" for record in records))


def workloads(folder: Path) -> list[str]:
    """The lines of the workload file."""
    return (folder / WORKLOAD_FILE).read_text().splitlines()


def write_workloads(folder: Path, lines: list[str]) -> None:
    (folder / WORKLOAD_FILE).write_text("".join(line + "\n" for line in lines))
