"""Export the best records of the log as a database that TVM's own MetaSchedule loads."""

import base64
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.core.errors import ConfigError
from tunewright.core.keys import canonical_json
from tunewright.core.types import TaskKey, TuningTask
from tunewright.scheduler.tvm_files import RECORD_FILE, SIZE_PREFIX_BYTES, WORKLOAD_FILE
from tunewright.tuning_logs import RankedTrial, TuningLog
from tunewright.workers.exchange import Exchange, Refusal
from tunewright.workers.pool import Pool

_KEYS_PER_QUERY = 500
# TVM knows none of our intrinsics, and its own only once they are imported.
_TENSORISED = "uses instructions that TVM does not know"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written; `left_out` counts records that TVM could not load, by reason."""

    folder: Path
    num_workloads: int
    num_records: int
    left_out: Mapping[str, int]


def export_tvm_database(
    log: TuningLog,
    folder: Path,
    pool: Pool,
    *,
    task_keys: Sequence[TaskKey] | None = None,
    k: int = 1,
    is_replacing: bool = False,
) -> ExportReport:
    """Write the `k` best verified records of each task, or of some, into two files in `folder`.

    Workloads are the canonical ones, times the raw samples. TVM replays every record when it opens the files
    and fails on the first that does not, so each is replayed in a child before and left out if it fails.

    Args:
        is_replacing: whether a database in `folder` may be replaced.

    Raises:
        ConfigError: there is no record to export, the tasks have several targets, or the folder cannot be
            written or has a database.
        RecordNotFoundError: a key of `task_keys` is unknown.
        EnvironmentProblem: no child can be started here.
    """
    if not is_replacing:
        _check_vacant(folder)
    left_out: Counter[str] = Counter()
    pairs = [pair for pair in _best(log, task_keys, k) if _is_loadable(pair, left_out)]
    with Exchange(pool) as exchange:
        described = exchange.describe([(task.workload.mod_json, _trace(ranked)) for task, ranked in pairs])
    indices: dict[TaskKey, int] = {}
    workload_lines: list[str] = []
    record_lines: list[str] = []
    for (task, ranked), kernel in zip(pairs, described, strict=True):
        if isinstance(kernel, Refusal):
            left_out[kernel.reason] += 1
            continue
        if task.key not in indices:
            indices[task.key] = len(workload_lines)
            workload_lines.append(_workload_line(task, kernel.structural_hash))
        record_lines.append(_record_line(indices[task.key], task, ranked, kernel.args_json))
    _write(folder, workload_lines, record_lines)
    return ExportReport(folder, len(workload_lines), len(record_lines), dict(left_out))


def _best(
    log: TuningLog, task_keys: Sequence[TaskKey] | None, k: int
) -> Iterator[tuple[TuningTask, RankedTrial]]:
    """The records to export with their tasks, all of one target."""
    if task_keys is None:
        task_keys = [task.task_key for task in log.tasks() if task.num_usable]
    tasks = [log.task(key) for key in dict.fromkeys(task_keys)]
    targets = sorted({str(task.target) for task in tasks})
    if len(targets) > 1:
        # TVM looks records up by workload alone, so a schedule of another target could be applied.
        raise ConfigError(f"the tasks have {len(targets)} targets ({', '.join(targets)}): export one of them")
    found: dict[TaskKey, list[RankedTrial]] = {}
    for first in range(0, len(tasks), _KEYS_PER_QUERY):
        found |= log.best_many([task.key for task in tasks[first : first + _KEYS_PER_QUERY]], k=k)
    if not any(found.values()):
        raise ConfigError("the log has no verified record of these tasks: tune them first")
    for task in tasks:
        for ranked in found[task.key]:
            yield task, ranked


def _trace(ranked: RankedTrial) -> str:
    return ranked.trial.record.candidate.trace_json


def _is_loadable(pair: tuple[TuningTask, RankedTrial], left_out: Counter[str]) -> bool:
    instructions, _ = json.loads(_trace(pair[1]))
    if any(instruction[0] == "Tensorize" for instruction in instructions):
        left_out[_TENSORISED] += 1
        return False
    return True


def _workload_line(task: TuningTask, structural_hash: int) -> str:
    module = task.workload.mod_json.encode()
    data = len(module).to_bytes(SIZE_PREFIX_BYTES, "little") + module
    return canonical_json([str(structural_hash), base64.b64encode(data).decode()])


def _record_line(index: int, task: TuningTask, ranked: RankedTrial, args_json: str) -> str:
    trace, run_secs = json.loads(_trace(ranked)), ranked.trial.record.result.run_secs
    return canonical_json([index, [trace, run_secs, task.target.to_dict(), json.loads(args_json)]])


def _check_vacant(folder: Path) -> None:
    for name in (WORKLOAD_FILE, RECORD_FILE):
        if (folder / name).exists():
            raise ConfigError(f"{folder / name} exists: name another folder, or remove the database there")


def _write(folder: Path, workload_lines: Sequence[str], record_lines: Sequence[str]) -> None:
    """Put both files in place; at no moment do records stand beside workloads that are not theirs."""
    scratch: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for lines in (workload_lines, record_lines):
            scratch.append(_write_scratch(folder, lines))
        (folder / RECORD_FILE).unlink(missing_ok=True)
        scratch[0].replace(folder / WORKLOAD_FILE)
        scratch[1].replace(folder / RECORD_FILE)
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be written ({exc.strerror}): name another folder") from exc
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)


def _write_scratch(folder: Path, lines: Sequence[str]) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, prefix=".database-", delete=False, encoding="ascii"
    ) as file:
        path = Path(file.name)
        try:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
            path.chmod(0o644)
        except BaseException:
            path.unlink()
            raise
    return path
