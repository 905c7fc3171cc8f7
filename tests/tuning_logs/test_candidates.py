"""Looking candidates up by key, and what is in quarantine."""

import pytest
from log_samples import make_record, make_session, make_task, success

from tunewright.core.types import FailureKind, MeasureFailure
from tunewright.tuning_logs import TuningLog


def test_in_a_file() -> None:
    check_trials_of_a_candidate("sqlite://")


@pytest.mark.slow
def test_on_a_server(postgres_url: str) -> None:
    check_trials_of_a_candidate(postgres_url)


def check_trials_of_a_candidate(url: str) -> None:
    """Those that may be used come first."""
    task, other = make_task(64), make_task(128)
    with TuningLog.open(url) as log:
        log.add_tasks([task, other])
        for session_id in ("a", "b", "c"):
            log.start_session(make_session(task, other, session_id=session_id))
        failed = make_record(task, 1, MeasureFailure(FailureKind.RUN, "no", 0.1), session_id="a")
        slow = make_record(task, 1, success(0.003), session_id="b")
        unverified = make_record(task, 1, success(0.001, is_verified=False), session_id="c")
        decoy = make_record(task, 2, success(0.0001), session_id="a")
        ids = [
            trial.record_id for trial in log.append([(r, None) for r in (failed, slow, unverified, decoy)])
        ]
        wanted = {task.key: slow.candidate.key, other.key: make_record(other, 1).candidate.key}
        found = log.trials_of_candidates(wanted)
        assert found[other.key] == []
        assert found[task.key][0].trial.record_id == ids[1]
        assert {one.trial.record_id: one.secs for one in found[task.key]} == {
            ids[0]: None,
            ids[1]: 0.003,
            ids[2]: 0.001,
        }
        assert found[task.key][0].trial.record == slow
        log.mark_unusable(ids[1], "does not replay")
        reasons = {
            one.trial.record_id: one.unusable_reason for one in log.trials_of_candidates(wanted)[task.key]
        }
        assert reasons == {ids[0]: None, ids[1]: "does not replay", ids[2]: None}
        assert log.quarantine_counts(task.key) == {"does not replay": 1}
        assert log.quarantine_counts(other.key) == {}
