"""The log as a whole: counted, pruned, copied; in a file and on a server."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from log_samples import MACHINE, START, make_features, make_record, make_session, make_task, success

from tunewright.core.errors import ConfigError, StoreError
from tunewright.core.types import FailureKind, MeasureFailure, ModelSnapshot
from tunewright.tuning_logs import TuningLog

TASK, OTHER = make_task(64), make_task(128)
FAILURE = MeasureFailure(FailureKind.RUN, "SIGSEGV", wall_secs=0.25, build_secs=0.2)


@pytest.fixture(params=["file", "server"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TuningLog]:
    url = f"sqlite:///{tmp_path}/tuning.db"
    with TuningLog.open(url if request.param == "file" else request.getfixturevalue("postgres_url")) as log:
        log.add_tasks([TASK, OTHER])
        log.start_session(make_session(TASK, OTHER))
        results = [success(0.003), success(0.001, is_verified=False), success(0.002), FAILURE]
        log.append([(make_record(TASK, n, result), make_features(n)) for n, result in enumerate(results)])
        log.append([(make_record(OTHER, 0), None)])
        yield log


def model(number: int) -> ModelSnapshot:
    trained_at = START + timedelta(hours=number)
    return ModelSnapshot(f"{number}" * 64, "xgboost", b"ubj", "features/1", 6, {}, trained_at)


def test_stats_count_everything(log: TuningLog) -> None:
    log.mark_unusable(1, "does not replay")
    log.save_model(model(1))
    stats = log.stats()
    assert (stats.num_tasks, stats.num_workloads, stats.num_targets, stats.num_machines) == (2, 2, 1, 1)
    assert (stats.num_sessions, stats.num_trials, stats.num_usable, stats.num_quarantined) == (1, 5, 2, 1)
    assert (stats.num_models, dict(stats.failures)) == (1, {FailureKind.RUN: 1})
    assert stats.build_secs == pytest.approx(4 * 0.3 + 0.2)
    assert stats.device_secs == pytest.approx(4 * 0.2 + 0.05)
    assert (stats.first_at, stats.last_at) == (START, START + timedelta(seconds=3))
    assert stats.size_bytes > 10_000
    assert stats.engine.split()[0] in ("SQLite", "PostgreSQL")


def test_pruning_keeps_the_fastest_usable_first(log: TuningLog) -> None:
    [*_, raced] = log.trials(TASK.key)[:3]
    log.add_race(raced.record_id, [0.002], START)
    for number in (1, 2):
        log.save_model(model(number))

    planned = log.prune(num_kept=2, is_dry_run=True)
    assert len(log.trials(TASK.key)) == 4
    report = log.prune(num_kept=2)

    assert planned == report
    assert (report.num_trials, report.num_kept, report.num_models) == (2, 3, 1)
    kept = log.trials(TASK.key, with_features=True)
    assert [trial.record.best_secs for trial in kept] == [0.003, 0.002]
    assert all(trial.features is not None for trial in kept)
    assert log.races(raced.record_id)
    assert [snapshot.model_id for snapshot in log.models()] == ["2" * 64]
    assert len(log.trials(OTHER.key)) == 1


def test_the_number_of_a_pruned_trial_is_not_given_again(log: TuningLog) -> None:
    last = log.append([(make_record(TASK, 9, FAILURE), None)])[0].record_id
    log.prune(num_kept=1)
    [new] = log.append([(make_record(TASK, 10), None)])
    assert new.record_id > last


def test_a_copy_is_a_log_of_its_own(log: TuningLog, tmp_path: Path) -> None:
    copy = tmp_path / "copy 1.db"
    log.back_up(copy)
    log.append([(make_record(TASK, 7), None)])
    assert not list(tmp_path.glob("*.part*"))
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with TuningLog.open(f"sqlite:///{copy}") as copied:
        assert [t.record for t in copied.trials(TASK.key)] == [t.record for t in log.trials(TASK.key)[:4]]
    with pytest.raises(ConfigError, match=r"copy 1\.db exists: name a file that does not"):
        log.back_up(copy)


def test_a_copy_that_cannot_be_written(log: TuningLog, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="copy"):
        log.back_up(Path("/proc/copy.db"))  # where nobody can write
    assert not list(tmp_path.glob("*.part"))


def test_machines_are_listed_with_their_software(log: TuningLog) -> None:
    newer = dataclasses.replace(MACHINE, tvm_version="0.28.0")
    log.append([(make_record(TASK, 8, machine=newer), None)])
    assert log.machines() == [MACHINE, newer]
