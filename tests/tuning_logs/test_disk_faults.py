"""Faults of the disk and sudden death do no harm: nothing acknowledged is lost, nothing is there in part."""

import gzip
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from log_samples import make_session, make_task

from tunewright.tuning_logs import TuningLog

HERE = Path(__file__).parent
BATCH_SIZE, NUM_TRIALS = 5, 15
NUM_KILLS = 50
MAX_WRITES = 120  # some batches
NEVER = 10**9
Runs = list[dict[str, Any]]

pytestmark = pytest.mark.slow


def start(script: str, library: Path, disk: Path, *arguments: str) -> subprocess.Popen[str]:
    """A script beside this file, with the library watching the folder `disk`."""
    return subprocess.Popen(
        [sys.executable, str(HERE / script), str(library), *arguments],
        env={**os.environ, "LD_PRELOAD": str(library), "DISK_FAULTS_FOLDER": str(disk)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`disk_faults.c` built with this machine's C compiler, or the package's that links compiled models."""
    folder = tmp_path_factory.mktemp("disk_faults")
    source, library = HERE / "disk_faults.c", folder / "disk_faults.so"
    own = shutil.which("cc")  # takes 0.1 s; the other compiles its libraries first, which takes 6 s
    compiler = [own] if own else [sys.executable, "-m", "ziglang", "cc"]
    command = [*compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    subprocess.run(command, check=True, env={**os.environ, **caches})
    return library


def runs_with_faults(library: Path, begun: Path, last_step: str, *errors: str, stride: int = 1) -> Runs:
    """What `disk_fault_process.py` prints; see there."""
    arguments = [str(begun), last_step, str(stride), *errors]
    process = start("disk_fault_process.py", library, begun.parent / "disk", *arguments)
    output, messages = process.communicate()
    assert (process.returncode, messages) == (0, "")
    runs: Runs = json.loads(output)
    # Without a single fault, most promises would hold, too.
    assert len(runs) - 1 == -(-runs[0]["num_calls"][last_step] // stride) > 5
    assert all(run["failed_call"] for run in runs[1:])
    seen = sum(bool(run["errors"]) for run in runs)
    assert seen > 0.9 * len(runs), f"only {seen} of {len(runs)} runs saw their fault"
    return runs


def broken_promises(run: dict[str, Any]) -> list[str]:
    """What one run with a fault shows that it must not."""
    # What the matter is, and what to do.
    clear = "is full: free some space", "input/output error): check the disk"
    errors = [f"{kind} in {step}: {text}" for step, kind, text in run["errors"]]
    unclear = [error for error in errors if not any(words in error for words in clear)]
    foreign = [error for error in errors if not error.startswith("StoreError") or "sqlite" in error.lower()]
    promises = {
        f"an error of another kind: {foreign}": not foreign,
        f"an unclear message: {unclear}": not unclear,
        f"does not go on after the fault: {errors}": len(errors) <= 2,
        "a full disk that is not called full": run["error"] != "ENOSPC"
        or run["failed_call"] != "pwrite"
        or "disk is full" in "".join(errors[:1]),
        "trials lost, doubled or out of order": run["found"] == run["acknowledged"] == [*range(NUM_TRIALS)],
        f"on disk after the error: {run['on_disk']}": not errors or is_whole(run),
        "older trials changed": len({*run["older_trials"]}) == 1,
        f"a damaged file: {run['problems']}": not run["problems"],
    }
    return [what for what, holds in promises.items() if not holds]


def is_whole(run: dict[str, Any]) -> bool:
    """On disk is what was acknowledged when the error was seen, and at most the whole batch that failed."""
    num_promised = len(run["promised"])
    return run["on_disk"] in [[*range(num_promised)], [*range(num_promised + BATCH_SIZE)]]


def assert_no_harm(runs: Runs) -> None:
    failed = [
        f"{run['error']} at write {run['fault']}, {run['failed_call']}, {run['recovery']}: {broken}"
        for run in runs
        if (broken := broken_promises(run))
    ]
    assert not failed, f"{len(failed)} of {len(runs)} runs:\n" + "\n".join(failed)


def test_faults_while_trials_are_appended(library: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun.db"
    with TuningLog.open(f"sqlite:///{begun}") as log:
        log.add_tasks([make_task()])
        log.start_session(make_session(make_task(), session_id="session-of-faults"))
    # The third batch writes as the second does: it shows that a log goes on.
    assert_no_harm(runs_with_faults(library, begun, "append 1", "EIO", "ENOSPC"))


def test_faults_while_a_log_is_made_and_a_session_starts(library: Path, tmp_path: Path) -> None:
    assert_no_harm(
        runs_with_faults(library, tmp_path / "none.db", "start_session", "EIO", "ENOSPC", stride=4)
    )


def test_faults_while_an_older_log_is_upgraded(library: Path, tmp_path: Path) -> None:
    begun = tmp_path / "older.db"
    begun.write_bytes(gzip.decompress((HERE / "data" / "schema_0001.db.gz").read_bytes()))
    runs = runs_with_faults(library, begun, "open", "EIO", "ENOSPC", stride=6)
    assert all(run["older_trials"][0] > 0 for run in runs)
    assert_no_harm(runs)


def kill(process: subprocess.Popen[str], *, first_number: int, fault: int, rng: random.Random) -> set[int]:
    """Let a writer begin with a number until it is dead; the trials that it acknowledged.

    Where no write is its last (`fault` is 0), it is killed at some time after some batches.
    """
    assert process.stdin is not None and process.stdout is not None
    print(first_number, fault, file=process.stdin, flush=True)
    acknowledged: set[int] = set()
    pid, num_awaited = 0, NEVER if fault else rng.randrange(4)
    for line in process.stdout:
        word, _, value = line.strip().partition(" ")
        if word == "pid":
            pid = int(value)
        elif word == "ended":
            assert int(value) == signal.SIGKILL
            break
        else:
            num_awaited -= 1
            acknowledged.update(range(int(word), int(word) + BATCH_SIZE))
        if pid and num_awaited <= 0:
            time.sleep(rng.uniform(0, 0.03))  # somewhere inside the opening or one of the next batches
            os.kill(pid, signal.SIGKILL)
            num_awaited = NEVER
    return acknowledged


def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(library: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    path = tmp_path / "disk" / "tuning.db"
    acknowledged: set[int] = set()
    with start("killed_process.py", library, path.parent, str(path), str(BATCH_SIZE)) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        for number in range(1, NUM_KILLS + 1):
            # Every other one in the middle of a write, where a kill at any time hardly ever hits.
            fault = rng.randint(1, MAX_WRITES) if number % 2 else 0
            acknowledged |= kill(process, first_number=number * 100_000, fault=fault, rng=rng)
            with TuningLog.open(f"sqlite:///{path}") as log:
                trials = log.session_trials("session-1", with_features=True)
            found = {trial.record.trial_index for trial in trials}
            assert len(trials) == len(found)
            assert acknowledged <= found
            # At most the batch that was killed before it could be acknowledged, each time.
            assert len(found - acknowledged) in range(0, BATCH_SIZE * number + 1, BATCH_SIZE)
            assert all(trial.features is not None for trial in trials)
            assert integrity(path) == "ok"
    assert len(acknowledged) > BATCH_SIZE * NUM_KILLS / 2
