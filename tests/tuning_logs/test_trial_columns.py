"""Trials as arrays, against the same trials one by one, in both databases."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_samples import MACHINE, START, make_record, make_session, make_task, success

from tunewright.core.log_url import file_url
from tunewright.core.trial_columns import FAILURE_KINDS, ORIGINS, SUCCEEDED, TrialColumns
from tunewright.core.types import FailureKind, MeasureFailure, TuningRecord
from tunewright.tuning_logs import TuningLog, trial_columns
from tunewright.tuning_logs.trial_columns import as_columns

TASK, OTHER = make_task(64), make_task(128)
ABROAD = replace(MACHINE, cpu_model="Other CPU")


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TuningLog]:
    """Two sessions that ran at the same time, and one on another machine."""
    is_file = request.param == "sqlite"
    url = file_url(tmp_path / "tuning.db") if is_file else request.getfixturevalue("postgres_url")
    with TuningLog.open(url) as opened:
        opened.add_tasks([TASK, OTHER])
        for session_id in ("session-1", "session-2"):
            opened.start_session(make_session(TASK, OTHER, session_id=session_id))
        opened.start_session(make_session(TASK, session_id="abroad", machine=ABROAD))
        for number in range(12):
            opened.append([(record, None) for record in make_batch(number)])
        raced, quarantined, *_ = opened.session_trials("session-1")
        opened.add_race(raced.record_id, (0.5, 0.75, 0.625), START)
        opened.mark_unusable(quarantined.record_id, "wrong_result")
        yield opened


def make_batch(number: int) -> tuple[TuningRecord, ...]:
    pruned = MeasureFailure(FailureKind.PRUNED, "slow", 0.4, 0.3, run_secs=(0.09,), yardstick_secs=0.6)
    failed = MeasureFailure(FailureKind.BUILD, "no", 0.1)
    results = (success(0.25 + number, 4.0, 0.5), pruned, failed, success(2.0, is_verified=False))
    first = make_record(TASK, number, results[number % 4])
    scored = replace(
        make_record(OTHER, number, results[(number + 1) % 4], session_id="session-2"),
        model_id=f"{number % 2}" * 64,
        predicted_score=number / 8,
    )
    scored = replace(scored, candidate=replace(scored.candidate, origin=ORIGINS[number % len(ORIGINS)]))
    elsewhere = replace(make_record(TASK, number, session_id="abroad"), machine=ABROAD)
    return first, scored, elsewhere


def assert_same(columns: TrialColumns, expected: TrialColumns) -> None:
    assert len(columns) == len(expected)
    for one in fields(TrialColumns)[2:]:
        found, wanted = getattr(columns, one.name), getattr(expected, one.name)
        assert found.dtype == wanted.dtype, one.name
        if one.name == "task":
            found, wanted = np.array(columns.task_keys)[found], np.array(expected.task_keys)[wanted]
        if one.name == "model":
            found = np.array(columns.model_ids, dtype=object)[found]
            wanted = np.array(expected.model_ids, dtype=object)[wanted]
        np.testing.assert_array_equal(found, wanted, err_msg=one.name)


@pytest.mark.parametrize(("page_size", "max_spread"), [(10_000, 8), (5, 8), (10_000, 0)])
def test_columns_are_the_facts_however_they_are_read(
    log: TuningLog, monkeypatch: pytest.MonkeyPatch, page_size: int, max_spread: int
) -> None:
    monkeypatch.setattr(trial_columns, "PAGE_SIZE", page_size)
    monkeypatch.setattr(trial_columns, "_MAX_SPREAD", max_spread)
    for selection in ({}, {"session_id": "session-2"}, {"session_id": "none"}):
        expected = as_columns(log.trial_facts(**selection))
        assert_same(log.trial_columns(**selection), expected)
    assert len(log.trial_columns()) == 36


def test_what_each_column_says(log: TuningLog) -> None:
    columns = log.trial_columns(session_id="session-1")
    assert columns.task_keys == (TASK.key,)
    # The first was raced; the fifth is a success too; the second is in quarantine.
    np.testing.assert_array_equal(columns.usable_secs[:5], [0.625, np.nan, np.nan, np.nan, 4.0])
    np.testing.assert_array_equal(columns.sample_secs[:5], [0.5, 0.09, np.nan, 2.0, 4.0])
    assert columns.is_in_quarantine.tolist()[:3] == [False, True, False]
    kinds = [None if code == SUCCEEDED else FAILURE_KINDS[code] for code in columns.failure[:4]]
    assert kinds == [None, FailureKind.PRUNED, FailureKind.BUILD, None]
    moments = [(START + timedelta(seconds=number)).replace(tzinfo=None) for number in range(12)]
    assert columns.finished_at.tolist() == moments
    scored = log.trial_columns(session_id="session-2")
    np.testing.assert_array_equal(scored.predicted_score, np.arange(12) / 8)
    assert [scored.model_ids[code] for code in scored.model[:2]] == ["0" * 64, "1" * 64]
    assert [ORIGINS[code] for code in scored.origin] == [ORIGINS[n % len(ORIGINS)] for n in range(12)]


def test_a_selection_is_all_that_is_given(log: TuningLog) -> None:
    every = log.trial_columns()
    usable = log.trial_columns(is_usable_only=True)
    np.testing.assert_array_equal(usable.record_id, every.record_id[np.isfinite(every.usable_secs)])
    here = log.trial_columns(machine_fingerprint=MACHINE.fingerprint, task_keys=[TASK.key])
    np.testing.assert_array_equal(here.record_id, log.trial_columns(session_id="session-1").record_id)
    limit = int(here.record_id[5])
    early = log.trial_columns(session_id="session-1", before_record_id=limit)
    np.testing.assert_array_equal(early.record_id, here.record_id[:5])
    assert len(log.trial_columns(task_keys=[])) == 0


def test_rows_and_joined_columns_keep_their_names(log: TuningLog) -> None:
    one, other = log.trial_columns(session_id="session-1"), log.trial_columns(session_id="session-2")
    facts = [*log.trial_facts(session_id="session-2"), *log.trial_facts(session_id="session-1")]
    assert_same(other.followed_by(one), as_columns(facts))
    empty = as_columns([])
    assert_same(empty.followed_by(one), one)
    assert_same(one.followed_by(empty), one)
    chosen = other.followed_by(one).rows(np.array([1, 13]))
    assert_same(chosen, as_columns([facts[1], facts[13]]))
    assert as_columns(one) is one


def test_a_trial_that_comes_while_the_pages_are_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = file_url(tmp_path / "tuning.db")
    monkeypatch.setattr(trial_columns, "PAGE_SIZE", 2)
    with TuningLog.open(url) as writer, TuningLog.open(url, read_only=True) as reader:
        writer.add_tasks([TASK])
        writer.start_session(make_session(TASK))
        before = writer.append([(make_record(TASK, number), None) for number in range(4)])
        real_page, coming = trial_columns._page, iter(range(4, 6))

        def page_and_append(rows: Sequence[Any]) -> dict[str, Any]:
            for number in coming:
                [late] = writer.append([(make_record(TASK, number), None)])
                writer.add_race(late.record_id, (1.0,), START)
            return real_page(rows)

        monkeypatch.setattr(trial_columns, "_page", page_and_append)
        columns = reader.trial_columns(session_id="session-1")
        assert columns.record_id.tolist() == [trial.record_id for trial in before]
        assert len(reader.trial_columns(session_id="session-1")) == 6
