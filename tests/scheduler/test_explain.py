from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.scheduler.stored import HERE, OLD_TVM, OTHER, TARGET, make_task, partition_of, store, success
from tunewright.cli.match import MatchChoice
from tunewright.core.types import FailureKind, MeasureFailure, TargetSpec
from tunewright.scheduler.explain import coverage_ratio, explain, why_missed
from tunewright.tuning_logs import Match, MatchPolicy, TuningLog

EXACT = Match(MatchPolicy.EXACT, HERE)
COMPATIBLE = Match(MatchPolicy.COMPATIBLE, HERE)
ANY = Match(MatchPolicy.ANY, HERE)


@pytest.fixture
def log() -> Iterator[TuningLog]:
    with TuningLog.open("sqlite://") as opened:
        yield opened


def failure(kind: FailureKind) -> MeasureFailure:
    return MeasureFailure(kind, "no", 0.1)


def test_the_command_line_knows_every_policy_by_its_name() -> None:
    assert [choice.value for choice in MatchChoice] == [policy.value for policy in MatchPolicy]


def test_a_hit_says_how_many_trials_stand_behind_it(log: TuningLog) -> None:
    task = make_task(weight=3)
    _, best = store(log, task, success(2e-3), success(1e-3))
    [one] = explain(partition_of(task), log, COMPATIBLE)
    assert one.record is not None and one.record.trial.record_id == best
    assert (one.record.secs, one.num_trials, one.why) == (1e-3, 2, "2 trials")
    assert one.is_hit and not one.is_remarkable and one.nearest is None


def test_a_record_of_another_machine_is_a_hit_with_a_note_unless_exact(log: TuningLog) -> None:
    task = make_task()
    [number] = store(log, task, success(1e-3), machine=OTHER)
    [one] = explain(partition_of(task), log, COMPATIBLE)
    assert one.is_hit and one.is_remarkable
    assert one.why == "timed on another machine (Other CPU)"
    [one] = explain(partition_of(task), log, EXACT)
    assert (one.is_hit, one.why) == (False, "timed on another machine (Other CPU)")
    assert one.nearest is not None and one.nearest.record_id == number


def test_a_record_of_another_tvm_waits_for_its_verification(log: TuningLog) -> None:
    task = make_task()
    store(log, task, success(1e-3), machine=OLD_TVM)
    expected = "tuned with TVM 0.26.0, not verified with 0.27.0.post1: run tunewright db verify"
    assert why_missed(task, log, COMPATIBLE) == expected
    assert why_missed(task, log, EXACT) == expected
    assert explain(partition_of(task), log, ANY)[0].is_hit


def test_exact_names_the_library_that_differs(log: TuningLog) -> None:
    task = make_task()
    store(log, task, success(1e-3), machine=replace(HERE, llvm_version="21"))
    assert explain(partition_of(task), log, COMPATIBLE)[0].is_hit
    assert (
        why_missed(task, log, EXACT)
        == "tuned with LLVM 21, not verified with LLVM 22: run tunewright db verify"
    )


def test_the_same_workload_on_other_targets(log: TuningLog) -> None:
    task = make_task()
    tried = make_task(target=TargetSpec("alderlake", 2))
    tuned = make_task(target=TargetSpec("znver4", 8))
    store(log, tried, failure(FailureKind.BUILD))
    _, best = store(log, tuned, success(9e-3), success(0.213e-3))
    [one] = explain(partition_of(task), log, ANY)
    assert one.why == (
        "same workload, other target: mcpu=znver4 threads=8 (0.213 ms there); "
        "mcpu=alderlake threads=2 (no verified record)"
    )
    assert one.num_trials == 0
    assert one.nearest is not None
    assert (one.nearest.record_id, one.nearest.target.mcpu) == (best, "znver4")


def test_trials_that_all_failed_are_counted_by_kind(log: TuningLog) -> None:
    task = make_task()
    kinds = [FailureKind.BUILD] * 3 + [FailureKind.RUN, FailureKind.PRUNED]
    store(log, task, *map(failure, kinds))
    assert (
        why_missed(task, log, COMPATIBLE)
        == "none of its 5 trials is a verified success (4 failed: 3 build, 1 run; 1 pruned)"
    )


def test_records_that_nobody_verified_say_what_to_do(log: TuningLog) -> None:
    task = make_task()
    store(log, task, success(1e-3, is_verified=False))
    assert why_missed(task, log) == (
        "its only trial is no verified success (1 not verified: run tunewright db verify)"
    )


def test_quarantine_is_named_with_its_reason(log: TuningLog) -> None:
    task = make_task()
    for number in store(log, task, success(1e-3), success(2e-3)):
        log.mark_unusable(number, "does not replay")
    assert why_missed(task, log, COMPATIBLE) == "in quarantine: does not replay"
    assert log.quarantine_counts(task.key) == {"does not replay": 2}


def test_the_nearest_task_has_the_same_operator_types_and_the_nearest_extents(log: TuningLog) -> None:
    for known in (
        make_task(128),
        make_task(512),
        make_task(250, op="softmax"),
        make_task(256, dtype="int8"),
        make_task(256, op="matmul_add"),
        make_task(256, target=TargetSpec("alderlake", 4)),
    ):
        store(log, known, success(1e-3))
    store(log, make_task(240), failure(FailureKind.BUILD))
    [one] = explain(partition_of(make_task(300)), log, COMPATIBLE)
    assert one.why == "no record for this workload"
    assert one.nearest is not None
    # 300 to 512 is a factor of 1.7, to 128 of 2.3; the nearer 256 is of another CPU.
    assert (one.nearest.name, one.nearest.target) == ("matmul 512x512 -> 512x512", TARGET)
    assert explain(partition_of(make_task(8, op="unheard_of")), log, COMPATIBLE)[0].nearest is None


def test_coverage_is_weighted_by_predicted_time(log: TuningLog) -> None:
    large, small = make_task(512, weight=2), make_task(64, weight=2)
    store(log, large, success(1e-3))
    explained = explain(partition_of(large, small), log, COMPATIBLE)
    assert [one.is_hit for one in explained] == [True, False]
    tasks = partition_of(large, small)
    assert coverage_ratio(explained) == pytest.approx(tasks.share(large))
    assert 0.9 < coverage_ratio(explained) < 1
