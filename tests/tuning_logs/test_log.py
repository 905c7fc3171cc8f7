"""What every tuning log promises, in a file and in memory alike."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_samples import MACHINE, START, make_features, make_record, make_session, make_task, success

from tunewright.core.errors import RecordNotFoundError, StoreError
from tunewright.core.types import (
    MAX_MESSAGE_CHARS,
    Candidate,
    CandidateKey,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MachinePeak,
    MeasureFailure,
    MeasureSuccess,
    ModelSnapshot,
    Origin,
    TaskKey,
    TuningRecord,
    TuningTask,
    WorkloadKey,
)
from tunewright.tuning_logs import Race, TuningLog, Verification, trial_facts
from tunewright.tuning_logs.matching import Match, MatchPolicy

TASK = make_task()
UPGRADED = dataclasses.replace(MACHINE, tvm_version="0.28.0")

# What PostgreSQL cannot hold becomes an escape (there is a test of its own).
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
finite_secs = st.floats(0, 1e6, allow_nan=False)
samples = st.lists(st.floats(1e-12, 1e6), max_size=5).map(tuple)
successes = st.builds(
    MeasureSuccess,
    run_secs=samples.filter(len),
    build_secs=finite_secs,
    wall_secs=finite_secs,
    is_verified=st.booleans(),
    steal_ratio=st.floats(0, 1),
    object_key=st.text("0123456789abcdef", max_size=64),
    is_duplicate=st.booleans(),
    yardstick_secs=st.none() | st.floats(1e-9, 1e3),
    is_noisy=st.booleans(),
)
failures = st.builds(
    MeasureFailure,
    kind=st.sampled_from(FailureKind),
    message=texts,
    wall_secs=finite_secs,
    build_secs=finite_secs,
    run_secs=samples,
    object_key=st.text("0123456789abcdef", max_size=64),
)
keys = st.text("0123456789abcdef", min_size=64, max_size=64)
records = st.builds(
    TuningRecord,
    session_id=st.just("session-1"),
    trial_index=st.integers(0, 2**31 - 1),
    candidate=st.builds(
        Candidate,
        task_key=st.just(TASK.key),
        trace_json=texts,
        origin=st.sampled_from(Origin),
        parent_key=st.none() | keys.map(CandidateKey),
    ),
    result=successes | failures,
    evaluator=st.builds(EvaluatorConfig, min_sample_secs=finite_secs, max_samples=st.integers(1, 100)),
    machine=st.builds(
        MachineInfo,
        cpu_model=texts,
        num_cpus=st.integers(1, 512),
        has_smt=st.booleans(),
        governor=texts,
        os_kernel=texts,
        tvm_version=texts,
        tvm_ffi_version=texts,
        llvm_version=texts,
    ),
    strategy=texts,
    seed=st.integers(0, 2**63 - 1),
    finished_at=st.datetimes(
        datetime(1980, 1, 1),
        datetime(2100, 1, 1),
        timezones=st.just(timezone(timedelta(hours=5, minutes=30))),
    ),
    code_version=texts,
    model_id=st.none() | keys,
    predicted_score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


class RecordStoreContract:
    """Subclasses give `log`, a fresh one."""

    numbers = itertools.count()

    @pytest.fixture
    def log(self) -> Iterator[TuningLog]:
        raise NotImplementedError

    @pytest.fixture
    def started(self, log: TuningLog) -> TuningLog:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
        return log

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(record=records, n_stores=st.none() | st.integers(1, 4))
    def test_what_goes_in_comes_out(
        self, started: TuningLog, record: TuningRecord, n_stores: int | None
    ) -> None:
        # Of one candidate only the first record is stored, and examples share the log.
        unique_trace = f"{record.candidate.trace_json} {next(self.numbers)}"
        record = dataclasses.replace(
            record, candidate=dataclasses.replace(record.candidate, trace_json=unique_trace)
        )
        features = None if n_stores is None else make_features(n_stores, n_stores=n_stores)

        [acknowledged] = started.append([(record, features)])
        read = started.record(acknowledged.record_id)

        for trial in (acknowledged, read):
            assert trial.record == record
            assert trial.record.candidate.origin is record.candidate.origin
            assert trial.record.candidate.parent_key == record.candidate.parent_key
            assert (trial.features is None) == (features is None)
            np.testing.assert_array_equal(trial.features, features)
        assert read.record.finished_at.tzinfo is UTC

    def test_values_are_passed_by_value(self, started: TuningLog) -> None:
        features = make_features(1)
        original = features.copy()
        [trial] = started.append([(make_record(TASK, 1), features)])
        features[:] = 0
        assert trial.features is not None
        np.testing.assert_array_equal(trial.features, original)
        assert not trial.features.flags.writeable

    def test_a_message_that_is_not_utf8_is_kept_as_escapes(self, started: TuningLog) -> None:
        failure = MeasureFailure(FailureKind.RUN, "bad byte \udcff", wall_secs=0.1)
        [trial] = started.append([(make_record(TASK, 1, failure), None)])
        assert isinstance(trial.record.result, MeasureFailure)
        assert trial.record.result.message == "bad byte \\udcff"

    def test_a_nul_in_a_message_is_kept_as_an_escape(self, started: TuningLog) -> None:
        failure = MeasureFailure(FailureKind.RUN, "cut \0 off", wall_secs=0.1)
        [trial] = started.append([(make_record(TASK, 1, failure), None)])
        assert isinstance(trial.record.result, MeasureFailure)
        assert trial.record.result.message == "cut \\x00 off"
        assert started.record(trial.record_id) == trial

    def test_the_longest_message_survives(self, started: TuningLog) -> None:
        failure = MeasureFailure(FailureKind.BUILD, "x" * 2 * MAX_MESSAGE_CHARS, wall_secs=0.1)
        [trial] = started.append([(make_record(TASK, 1, failure), None)])
        assert trial.record.result == failure

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=30,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(record=records)
    def test_the_facts_of_a_trial_are_those_of_its_record(
        self, started: TuningLog, record: TuningRecord
    ) -> None:
        unique_trace = f"{record.candidate.trace_json} {next(self.numbers)}"
        candidate = dataclasses.replace(record.candidate, trace_json=unique_trace)
        [stored] = started.append([(dataclasses.replace(record, candidate=candidate), None)])
        *_, facts = started.trial_facts(task_key=TASK.key)

        result = record.result
        is_success = isinstance(result, MeasureSuccess)
        assert (facts.record_id, facts.candidate_key) == (stored.record_id, candidate.key)
        assert (facts.origin, facts.parent_key) == (candidate.origin, candidate.parent_key)
        for name in ("session_id", "task_key", "trial_index", "predicted_score", "machine", "finished_at"):
            assert getattr(facts, name) == getattr(record, name)
        for name in ("strategy", "seed", "model_id", "code_version", "evaluator"):
            assert getattr(facts.setup, name) == getattr(record, name)
        for name in ("run_secs", "build_secs", "wall_secs", "yardstick_secs"):
            assert getattr(facts, name) == getattr(result, name)
        for name in ("is_verified", "is_duplicate", "is_noisy"):
            assert getattr(facts, name) is (is_success and getattr(result, name))
        assert facts.status == ("ok" if is_success else result.kind)
        assert facts.message == (None if is_success else result.message)
        assert facts.steal_ratio == (result.steal_ratio if is_success else None)
        assert facts.ranked_secs == facts.median_secs == record.best_secs
        assert facts.usable_secs == (record.best_secs if facts.is_verified else None)
        assert facts.device_secs == result.wall_secs - result.build_secs

    def test_facts_of_a_task_of_a_session_of_both_and_of_all(
        self, started: TuningLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial_facts, "PAGE_SIZE", 2)
        other = make_task(128)
        started.add_tasks([other])
        started.start_session(make_session(TASK, other, session_id="session-2"))
        owners = [(TASK, "session-1"), (TASK, "session-2"), (other, "session-2"), (TASK, "session-1")] * 2
        trials = [
            started.append([(make_record(task, n, session_id=session_id), None)])[0].record_id
            for n, (task, session_id) in enumerate(owners)
        ]

        def ids(**which: str) -> list[int]:
            return [facts.record_id for facts in started.trial_facts(**which)]

        def expected(*wanted: tuple[TuningTask, str]) -> list[int]:
            return [record_id for record_id, owner in zip(trials, owners, strict=True) if owner in wanted]

        assert ids() == trials
        assert ids(task_key=TASK.key) == expected((TASK, "session-1"), (TASK, "session-2"))
        assert ids(session_id="session-2") == expected((TASK, "session-2"), (other, "session-2"))
        assert ids(session_id="session-2", task_key=TASK.key) == expected((TASK, "session-2"))
        assert ids(session_id="session-3") == ids(task_key="no such task") == []

    def test_facts_know_races_and_quarantine(self, started: TuningLog) -> None:
        slow, wrong = started.append([(make_record(TASK, n, success(0.002)), None) for n in range(2)])
        started.add_race(slow.record_id, (0.004, 0.003, 0.005), START)
        started.mark_unusable(wrong.record_id, "wrong_result")
        raced, quarantined = started.trial_facts(session_id="session-1")
        assert (raced.ranked_secs, raced.usable_secs, raced.median_secs) == (0.004, 0.004, 0.002)
        assert (quarantined.ranked_secs, quarantined.usable_secs) == (0.002, None)
        assert quarantined.is_in_quarantine and not raced.is_in_quarantine

    def test_who_reads_facts_slowly_keeps_no_writer_waiting(
        self, started: TuningLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial_facts, "PAGE_SIZE", 2)
        first = started.append([(make_record(TASK, n), None) for n in range(4)])
        facts = started.trial_facts(task_key=TASK.key)
        read = [next(facts).record_id]
        started.append([(make_record(TASK, n), None) for n in range(4, 6)])
        read += [trial.record_id for trial in facts]
        assert read == [trial.record_id for trial in first]

    def test_append_stores_a_candidate_once(self, started: TuningLog) -> None:
        first = started.append([(make_record(TASK, n), make_features(n)) for n in range(3)])
        # 2 comes again with other results, 3 is new and comes twice.
        again = started.append([(make_record(TASK, n, success(9.0)), None) for n in (2, 3, 3)])

        assert again[0] == first[2]
        assert again[1] == again[2]
        assert [trial.record_id for trial in started.trials(TASK.key)] == [
            t.record_id for t in (*first, again[1])
        ]
        assert started.count_trials("session-1") == {TASK.key: 4}

    def test_another_session_may_measure_the_same_candidate(self, started: TuningLog) -> None:
        started.start_session(make_session(TASK, session_id="session-2"))
        started.append([(make_record(TASK, 1), None), (make_record(TASK, 1, session_id="session-2"), None)])
        assert len(started.trials(TASK.key)) == 2
        assert started.count_trials("session-2") == {TASK.key: 1}
        [only] = started.session_trials("session-2")
        assert only.record.session_id == "session-2"

    def test_a_batch_is_stored_whole_or_not_at_all(self, started: TuningLog) -> None:
        stranger = make_record(make_task(999), 2)
        with pytest.raises(RecordNotFoundError, match=f"no task {stranger.task_key}"):
            started.append([(make_record(TASK, 1), None), (stranger, None)])
        assert started.trials(TASK.key) == []

    def test_unknown_session(self, log: TuningLog) -> None:
        log.add_tasks([TASK])
        with pytest.raises(RecordNotFoundError, match="no session session-1"):
            log.append([(make_record(TASK, 1), None)])
        with pytest.raises(RecordNotFoundError, match="no session session-1"):
            log.add_elapsed("session-1", 1.0)
        assert log.count_trials("session-1") == {}

    def test_a_session_goes_on_where_it_was(self, started: TuningLog) -> None:
        started.append([(make_record(TASK, n), None) for n in range(3)])
        started.add_elapsed("session-1", 10.5)
        started.add_elapsed("session-1", 1.25)

        state = started.start_session(make_session(TASK))

        assert (state.num_trials, state.elapsed_secs, state.is_new) == (3, 11.75, False)
        [summary] = started.sessions()
        assert (summary.num_trials, summary.num_tasks, summary.elapsed_secs) == (3, 1, 11.75)
        assert (summary.target, summary.created_at) == (TASK.target, START)

    def test_a_session_needs_its_tasks(self, log: TuningLog) -> None:
        with pytest.raises(RecordNotFoundError, match="no task"):
            log.start_session(make_session(TASK))
        assert log.sessions() == []

    def test_tasks_and_workloads_come_back(self, log: TuningLog) -> None:
        elsewhere = make_task(mcpu="znver4", num_threads=8)
        log.add_tasks([TASK, elsewhere, TASK])
        log.start_session(make_session(elsewhere, TASK))
        assert list(log.session_weights("session-1").items()) == [(elsewhere.key, 1), (TASK.key, 2)]
        log.add_tasks([elsewhere])
        assert log.task(elsewhere.key) == elsewhere
        assert log.workload(TASK.workload.key).mod_json == TASK.workload.mod_json
        assert [task.task_key for task in log.tasks()] == [TASK.key, elsewhere.key]
        assert [task.task_key for task in log.tasks(key_prefix=elsewhere.key[:8])] == [elsewhere.key]
        assert log.tasks(key_prefix="%") == []
        with pytest.raises(RecordNotFoundError, match="no workload"):
            log.workload(WorkloadKey("0" * 64))
        with pytest.raises(RecordNotFoundError, match="no task"):
            log.task(TaskKey("0" * 64))

    def test_best_is_verified_fastest_first(self, started: TuningLog) -> None:
        results = [
            success(0.004),
            success(0.001, is_verified=False),
            success(0.003, 0.002, 0.0025),
            MeasureFailure(FailureKind.WRONG_RESULT, "max error 3.0", wall_secs=0.1, run_secs=(0.0001,)),
            success(0.003),
        ]
        stored = started.append([(make_record(TASK, n, result), None) for n, result in enumerate(results)])

        ranked = started.best(TASK.key, k=10)

        assert [(trial.secs, trial.is_raced) for trial in ranked] == [
            (0.0025, False),
            (0.003, False),
            (0.004, False),
        ]
        assert ranked[0].trial == stored[2]
        assert started.best(TASK.key) == ranked[:1]

    def test_best_goes_by_the_newest_race(self, started: TuningLog) -> None:
        slow, fast = started.append(
            [(make_record(TASK, 1, success(0.002)), None), (make_record(TASK, 2), None)]
        )
        started.add_race(fast.record_id, [0.0001], START)
        started.add_race(fast.record_id, [0.005, 0.003, 0.004], START + timedelta(seconds=1))

        ranked = started.best(TASK.key, k=2)

        assert [(r.trial.record_id, r.secs, r.is_raced) for r in ranked] == [
            (slow.record_id, 0.002, False),
            (fast.record_id, 0.004, True),
        ]
        assert started.races(fast.record_id)[1] == Race((0.005, 0.003, 0.004), START + timedelta(seconds=1))
        assert started.record(fast.record_id).record.result == fast.record.result

    def test_a_race_can_verify_and_never_takes_that_back(self, started: TuningLog) -> None:
        checked, unchecked = started.append(
            [(make_record(TASK, n, success(0.001 * n, is_verified=n == 1)), None) for n in (1, 2)]
        )
        started.add_race(checked.record_id, [0.003], START)
        started.add_race(unchecked.record_id, [0.002], START)
        assert [r.trial.record_id for r in started.best(TASK.key, k=2)] == [checked.record_id]
        started.add_race(unchecked.record_id, [0.002], START, is_verified=True)
        assert [r.trial.record_id for r in started.best(TASK.key, k=2)] == [
            unchecked.record_id,
            checked.record_id,
        ]

    def test_only_a_timed_record_can_be_raced(self, started: TuningLog) -> None:
        failure = MeasureFailure(FailureKind.RUN, "SIGSEGV", wall_secs=0.1)
        [trial] = started.append([(make_record(TASK, 1, failure), None)])
        with pytest.raises(StoreError, match=r"failed \(run\)"):
            started.add_race(trial.record_id, [0.1], START)
        with pytest.raises(ValueError, match="finite positive"):
            started.add_race(trial.record_id, [math.inf], START)
        with pytest.raises(RecordNotFoundError, match="no record 77"):
            started.add_race(77, [0.1], START)

    def test_a_record_in_quarantine_stays_a_trial_but_is_never_best(self, started: TuningLog) -> None:
        first, second = started.append([(make_record(TASK, n, success(0.001 * n)), None) for n in (1, 2)])
        started.mark_unusable(first.record_id, "does not replay")

        assert [ranked.trial for ranked in started.best(TASK.key, k=2)] == [second]
        started.add_race(first.record_id, [0.0001], START)
        assert [ranked.trial for ranked in started.best(TASK.key, k=2)] == [second]
        assert started.trials(TASK.key) == [first, second]
        assert started.unusable_reason(first.record_id) == "does not replay"
        assert started.unusable_reason(second.record_id) is None
        [summary] = started.tasks()
        assert (summary.num_usable, summary.best_secs) == (1, 0.002)
        with pytest.raises(RecordNotFoundError, match="no record 77"):
            started.mark_unusable(77, "")

    def test_right_outputs_make_an_unverified_record_usable(self, started: TuningLog) -> None:
        [trial] = started.append([(make_record(TASK, 1, success(0.001, is_verified=False)), None)])
        assert started.best(TASK.key) == []

        reason = started.add_verification(trial.record_id, machine=UPGRADED, failure=None, verified_at=START)

        assert reason is None
        assert started.best(TASK.key, match=Match(MatchPolicy.EXACT, MACHINE)) == []
        [ranked] = started.best(TASK.key, match=Match(MatchPolicy.EXACT, UPGRADED))
        assert ranked.trial.record_id == trial.record_id
        assert started.verifications(trial.record_id) == [Verification(UPGRADED, None, None, START)]

    @pytest.mark.parametrize(
        "kind",
        [
            *(FailureKind.WRONG_RESULT, FailureKind.RUN),
            *(FailureKind.REPLAY, FailureKind.INVALID, FailureKind.BUILD),
        ],
    )
    def test_what_is_found_wrong_goes_into_quarantine(self, started: TuningLog, kind: FailureKind) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        failure = MeasureFailure(kind, "no block 'c'", wall_secs=0.1)

        reason = started.add_verification(
            trial.record_id, machine=UPGRADED, failure=failure, verified_at=START
        )

        expected = f"{kind} with TVM 0.28.0, tvm-ffi 0.1.14.post1, LLVM 22: no block 'c'"
        assert reason is not None and reason.endswith(expected)
        assert started.unusable_reason(trial.record_id) == reason
        assert started.best(TASK.key) == []
        assert started.verifications(trial.record_id) == [Verification(UPGRADED, kind, "no block 'c'", START)]

    @pytest.mark.parametrize(
        "kind",
        [
            *(FailureKind.BUILD_TIMEOUT, FailureKind.RUN_TIMEOUT),
            *(FailureKind.OOM, FailureKind.WORKER_LOST, FailureKind.PRUNED),
        ],
    )
    def test_what_proves_nothing_changes_nothing(self, started: TuningLog, kind: FailureKind) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        failure = MeasureFailure(kind, "killed", wall_secs=0.1)
        assert self.verify(started, trial.record_id, UPGRADED, failure) is None
        [ranked] = started.best(TASK.key, match=Match(MatchPolicy.EXACT, MACHINE))
        assert ranked.trial == trial
        assert [one.failure_kind for one in started.verifications(trial.record_id)] == [kind]
        [known] = started.successes(TASK.key, machine=UPGRADED)
        assert not known.is_checked

    @pytest.mark.parametrize(
        ("kinds", "returns"),
        [
            ([FailureKind.REPLAY], True),
            ([FailureKind.BUILD, FailureKind.INVALID], True),
            ([FailureKind.REPLAY, FailureKind.RUN_TIMEOUT], True),
            ([FailureKind.WRONG_RESULT], False),
            ([FailureKind.RUN], False),
            ([FailureKind.WRONG_RESULT, FailureKind.REPLAY], False),
            ([FailureKind.REPLAY, FailureKind.RUN], False),
        ],
    )
    def test_only_what_was_never_seen_to_do_wrong_leaves_its_quarantine(
        self, started: TuningLog, kinds: list[FailureKind], returns: bool
    ) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        for kind in kinds:
            assert self.verify(started, trial.record_id, UPGRADED, MeasureFailure(kind, "", wall_secs=0.1))
        [known] = started.successes(TASK.key, machine=MACHINE)
        assert (known.is_in_quarantine, known.may_return, known.is_checked) == (True, returns, False)

        reason = self.verify(started, trial.record_id, MACHINE, None)

        assert (reason is None) is returns
        assert started.unusable_reason(trial.record_id) == reason
        assert len(started.best(TASK.key)) == returns

    def test_the_quarantine_of_a_race_is_not_lifted_by_a_verification(self, started: TuningLog) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        started.mark_unusable(trial.record_id, "run in its race: SIGSEGV")
        for failure in (MeasureFailure(FailureKind.REPLAY, "", wall_secs=0.1), None):
            reason = self.verify(started, trial.record_id, UPGRADED, failure)
            assert reason == "run in its race: SIGSEGV"
        [known] = started.successes(TASK.key, machine=MACHINE)
        assert (known.is_in_quarantine, known.may_return) == (True, False)

    def test_which_software_has_given_its_verdict(self, started: TuningLog) -> None:
        results = [success(0.003), success(0.001, is_verified=False), success(0.002)]
        slow, unverified, fast = (
            trial.record_id
            for trial in started.append([(make_record(TASK, n, r), None) for n, r in enumerate(results)])
        )
        started.append([(make_record(TASK, 9, MeasureFailure(FailureKind.RUN, "", wall_secs=0.1)), None)])
        started.add_race(slow, [0.0005], START)
        elsewhere = dataclasses.replace(MACHINE, cpu_model="other", os_kernel="7")

        def checked(machine: MachineInfo) -> list[tuple[int, bool]]:
            return [(one.record_id, one.is_checked) for one in started.successes(TASK.key, machine=machine)]

        assert checked(MACHINE) == [(slow, True), (unverified, False), (fast, True)]
        assert checked(elsewhere) == checked(MACHINE)  # the software is the same
        assert checked(UPGRADED) == [(slow, False), (unverified, False), (fast, False)]

        self.verify(started, slow, UPGRADED, None)
        self.verify(started, fast, UPGRADED, MeasureFailure(FailureKind.REPLAY, "", wall_secs=0.1))
        assert checked(UPGRADED) == [(slow, True), (unverified, False), (fast, True)]
        # Asked about again: what the other software took out of use, and what it was the last to find right.
        assert checked(MACHINE) == [(slow, False), (unverified, False), (fast, False)]
        self.verify(started, fast, MACHINE, None)
        assert checked(UPGRADED)[2] == (fast, True)  # no to and fro between the two

    def test_only_a_timed_record_can_be_verified(self, started: TuningLog) -> None:
        failure = MeasureFailure(FailureKind.RUN, "SIGSEGV", wall_secs=0.1)
        [trial] = started.append([(make_record(TASK, 1, failure), None)])
        with pytest.raises(StoreError, match=r"failed \(run\)"):
            self.verify(started, trial.record_id, MACHINE, None)
        with pytest.raises(RecordNotFoundError, match="no record 77"):
            self.verify(started, 77, MACHINE, None)
        assert started.verifications(trial.record_id) == []

    @staticmethod
    def verify(
        log: TuningLog, record_id: int, machine: MachineInfo, failure: MeasureFailure | None
    ) -> str | None:
        return log.add_verification(record_id, machine=machine, failure=failure, verified_at=START)

    def test_the_best_of_all_tasks_for_an_isa(self, log: TuningLog) -> None:
        threads, untried, elsewhere = make_task(num_threads=7), make_task(65), make_task(mcpu="znver4")
        tasks = [TASK, threads, untried, elsewhere]
        log.add_tasks(tasks)
        log.start_session(make_session(*tasks))
        log.append(
            [(make_record(task, n, success(0.01 - n / 1000)), None) for task in tasks[:2] for n in (1, 2)]
        )
        log.append(
            [
                (make_record(elsewhere, 1), None),
                (make_record(untried, 1, success(1, is_verified=False)), None),
            ]
        )

        assert log.best_of_all_tasks(mcpu=TASK.target.mcpu, k=1) == {
            task.key: log.best(task.key, k=1) for task in (TASK, threads)
        }
        assert len(log.best_of_all_tasks(mcpu=TASK.target.mcpu, k=5)[TASK.key]) == 2
        assert log.best_of_all_tasks(mcpu="generic") == {}

    @pytest.mark.parametrize("other", [make_task(mcpu="znver4"), make_task(num_threads=3), make_task(65)])
    def test_a_record_for_another_task_is_never_returned(self, log: TuningLog, other: TuningTask) -> None:
        log.add_tasks([TASK, other])
        log.start_session(make_session(TASK, other))
        log.append([(make_record(other, 1), None)])

        assert log.best(TASK.key) == []
        assert log.trials(TASK.key) == []
        both = log.best_many([TASK.key, other.key], k=3)
        assert [len(both[key]) for key in (TASK.key, other.key)] == [0, 1]
        [miss] = log.near_misses(other.workload.key)
        assert (miss.target, miss.num_trials, miss.num_usable) == (other.target, 1, 1)

    def test_times_of_other_machines_can_be_left_out(self, started: TuningLog) -> None:
        same_hardware = dataclasses.replace(MACHINE, os_kernel="6.2")
        other = dataclasses.replace(MACHINE, cpu_model="Fast CPU")
        machines = (MACHINE, same_hardware, other)
        trials = started.append(
            [(make_record(TASK, n, success(0.1 / (n + 1)), machine=m), None) for n, m in enumerate(machines)]
        )

        assert started.trials(TASK.key, machine_fingerprint=MACHINE.fingerprint) == trials[:2]
        [ranked] = started.best(TASK.key, machine_fingerprint=MACHINE.fingerprint)
        assert ranked.trial == trials[1]
        assert started.best(TASK.key)[0].trial == trials[2]

    def test_features_are_read_where_asked(self, started: TuningLog) -> None:
        started.append([(make_record(TASK, 1), make_features(1)), (make_record(TASK, 2), None)])
        assert [t.features for t in started.trials(TASK.key)] == [None, None]
        for trials in (
            started.trials(TASK.key, with_features=True),
            started.session_trials("session-1", with_features=True),
        ):
            assert trials[0].features is not None
            assert trials[1].features is None

    def test_training_trials_are_the_newest_with_features_oldest_first(self, log: TuningLog) -> None:
        elsewhere = make_task(mcpu="znver4")
        log.add_tasks([TASK, elsewhere])
        log.start_session(make_session(TASK, elsewhere))
        failure = MeasureFailure(FailureKind.RUN, "SIGSEGV", wall_secs=0.1)
        log.append(
            [
                (make_record(TASK, 1), make_features(1)),
                (make_record(TASK, 2, failure), make_features(2)),
                (make_record(elsewhere, 3), make_features(3)),
                (make_record(TASK, 4), None),
            ]
        )

        def numbers(*, mcpu: str | None, limit: int) -> list[int]:
            return [trial.record.trial_index for trial in log.training_trials(mcpu=mcpu, limit=limit)]

        assert numbers(mcpu=None, limit=10) == [1, 2, 3]
        assert numbers(mcpu=None, limit=2) == [2, 3]
        assert numbers(mcpu=TASK.target.mcpu, limit=10) == [1, 2]
        [trial] = log.training_trials(mcpu="znver4", limit=1)
        np.testing.assert_array_equal(trial.features, make_features(3))

    def test_summaries_count_what_happened(self, log: TuningLog) -> None:
        other = make_task(128)
        log.add_tasks([TASK, other])
        log.start_session(make_session(TASK, other))
        results = [
            MeasureFailure(FailureKind.RUN, "", wall_secs=0.1),
            MeasureFailure(FailureKind.RUN, "", wall_secs=0.1),
            MeasureFailure(FailureKind.PRUNED, "", wall_secs=0.1, run_secs=(1.0,)),
            success(0.001, is_verified=False),
            success(0.002),
        ]
        log.append([(make_record(TASK, n, result), None) for n, result in enumerate(results)])

        measured, untouched = log.tasks()

        assert (measured.num_trials, measured.num_failed, measured.num_pruned, measured.num_usable) == (
            5,
            2,
            1,
            1,
        )
        assert measured.best_secs == 0.002
        assert measured.best_gflops == pytest.approx(2 * 64**3 / 0.002 / 1e9)
        assert (measured.name, measured.args, measured.flop) == ("matmul_64", TASK.workload.args, 2.0 * 64**3)
        assert (untouched.num_trials, untouched.best_secs, untouched.best_gflops) == (0, None, None)
        assert log.failure_counts() == {FailureKind.RUN: 2, FailureKind.PRUNED: 1}
        assert log.failure_counts(task_key=other.key) == {}
        assert log.failure_counts(session_id="session-1", task_key=TASK.key) == log.failure_counts()
        assert log.near_misses(other.workload.key) == []

    def test_models(self, log: TuningLog) -> None:
        assert log.models() == []
        older = ModelSnapshot(
            "a" * 64, "xgboost", b"\x00\xff", "features/1", 100, {"rank": 0.5, "recall": 1}, START
        )
        newer = dataclasses.replace(older, model_id="b" * 64, trained_at=START + timedelta(seconds=1))
        log.save_model(newer)
        log.save_model(older)
        log.save_model(newer)
        assert log.models() == [newer, older]

    def test_a_metric_that_is_not_a_number_stays_so(self, log: TuningLog) -> None:
        log.save_model(ModelSnapshot("a", "xgboost", b"", "features/1", 1, {"rank": math.nan}, START))
        [latest] = log.models()
        assert math.isnan(latest.metrics["rank"])

    def test_a_naive_datetime_is_refused(self, started: TuningLog) -> None:
        naive = dataclasses.replace(make_record(TASK, 1), finished_at=datetime(2026, 1, 1))
        with pytest.raises(StoreError, match="has no time zone"):
            started.append([(naive, None)])

    def test_unknown_record(self, log: TuningLog) -> None:
        with pytest.raises(RecordNotFoundError, match="no record 1:"):
            log.record(1)

    def test_the_fastest_that_a_machine_was_seen_to_be_counts(self, log: TuningLog) -> None:
        small, large = 1 << 18, 1 << 28
        first = MachinePeak(MACHINE, TASK.target, 1.2e11, ((small, 8e10), (large, 1.1e10)), START)
        later = START + timedelta(hours=1)
        slow = MachinePeak(MACHINE, TASK.target, 1e11, ((small, 9e10), (large, 1e10)), later)
        other = dataclasses.replace(MACHINE, cpu_model="other")
        for peak in (first, slow, dataclasses.replace(first, machine=other, flop_per_sec=9e12)):
            log.add_peak(peak)
        expected = MachinePeak(MACHINE, TASK.target, 1.2e11, ((small, 9e10), (large, 1.1e10)), later)
        assert log.peak(TASK.target, machine_fingerprint=MACHINE.fingerprint) == expected
        assert log.peak(TASK.target, machine_fingerprint="0" * 16) is None
        threads = dataclasses.replace(TASK.target, num_threads=TASK.target.num_threads + 1)
        assert log.peak(threads, machine_fingerprint=MACHINE.fingerprint) is None


class TestPostgres(RecordStoreContract):
    @pytest.fixture
    def log(self, postgres_url: str) -> Iterator[TuningLog]:
        with TuningLog.open(postgres_url) as log:
            yield log

    def test_what_was_written_is_there_for_the_next_process(
        self, started: TuningLog, postgres_url: str
    ) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        started.close()
        with TuningLog.open(postgres_url, read_only=True) as log:
            assert log.trials(TASK.key) == [trial]


class TestInMemory(RecordStoreContract):
    @pytest.fixture
    def log(self) -> Iterator[TuningLog]:
        with TuningLog.open("sqlite://") as log:
            yield log

    def test_each_is_its_own(self, started: TuningLog) -> None:
        with TuningLog.open("sqlite://") as other:
            assert other.tasks() == []


class TestFile(RecordStoreContract):
    # A name that URLs and SQLite's own URIs would read otherwise.
    path = "sub folder/50%? #1é.db"

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[TuningLog]:
        with TuningLog.open(f"sqlite:///{quote(str(tmp_path / self.path))}") as log:
            yield log

    def test_what_was_written_is_there_for_the_next_process(self, started: TuningLog, tmp_path: Path) -> None:
        [trial] = started.append([(make_record(TASK, 1), None)])
        started.close()
        assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.db")] == [self.path]
        with TuningLog.open(f"sqlite:///{quote(str(tmp_path / self.path))}", read_only=True) as log:
            assert log.trials(TASK.key) == [trial]
