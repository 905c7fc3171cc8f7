"""Whose records a lookup may use: the target always, machine and software by policy, record by record."""

import dataclasses
from collections.abc import Iterator

import pytest
from log_samples import MACHINE, START, make_record, make_session, make_task, success

from tunewright.core.types import MachineInfo
from tunewright.tuning_logs import Match, MatchPolicy, TuningLog

TASK = make_task()
ELSEWHERE = dataclasses.replace(MACHINE, cpu_model="Fast CPU")
PATCHED = dataclasses.replace(MACHINE, tvm_version="0.27.1")
OLDER = dataclasses.replace(MACHINE, tvm_version="0.26.0")
OTHER_LLVM = dataclasses.replace(MACHINE, llvm_version="23")
OLDER_ELSEWHERE = dataclasses.replace(ELSEWHERE, tvm_version="0.26.0")
NEW_KERNEL = dataclasses.replace(MACHINE, os_kernel="7.0")
# From the slowest here to the fastest far away: by time alone, the least alike would win.
MACHINES = [MACHINE, NEW_KERNEL, OTHER_LLVM, PATCHED, ELSEWHERE, OLDER, OLDER_ELSEWHERE]


@pytest.fixture(params=["memory", "server"])
def log(request: pytest.FixtureRequest) -> Iterator[TuningLog]:
    url = "sqlite://" if request.param == "memory" else request.getfixturevalue("postgres_url")
    with TuningLog.open(url) as log:
        log.add_tasks([TASK])
        log.start_session(make_session(TASK))
        yield log


@pytest.fixture
def filled(log: TuningLog) -> TuningLog:
    log.append(
        [
            (make_record(TASK, n, success((len(MACHINES) - n) / 1000), machine=machine), None)
            for n, machine in enumerate(MACHINES)
        ]
    )
    return log


def machines(log: TuningLog, policy: MatchPolicy, *, k: int = 10) -> list[MachineInfo]:
    match = Match(policy, MACHINE)
    assert log.best(TASK, k=k, match=match) == log.best_many([TASK.key], k, match=match)[TASK.key]
    return [ranked.trial.record.machine for ranked in log.best(TASK, k=k, match=match)]


def test_exact_wants_the_same_hardware_and_software(filled: TuningLog) -> None:
    assert machines(filled, MatchPolicy.EXACT) == [NEW_KERNEL, MACHINE]


def test_compatible_wants_the_release_series_and_prefers_what_is_more_alike(filled: TuningLog) -> None:
    assert machines(filled, MatchPolicy.COMPATIBLE) == [NEW_KERNEL, MACHINE, PATCHED, OTHER_LLVM, ELSEWHERE]


def test_any_takes_the_rest_last(filled: TuningLog) -> None:
    found = machines(filled, MatchPolicy.ANY)
    assert found[:5] == machines(filled, MatchPolicy.COMPATIBLE)
    assert found[5:] == [OLDER_ELSEWHERE, OLDER]


def test_k_counts_over_all_tiers(filled: TuningLog) -> None:
    assert machines(filled, MatchPolicy.ANY, k=3) == [NEW_KERNEL, MACHINE, PATCHED]
    assert machines(filled, MatchPolicy.COMPATIBLE, k=1) == [NEW_KERNEL]


def test_without_a_match_the_fastest_wins(filled: TuningLog) -> None:
    assert [r.trial.record.machine for r in filled.best(TASK, k=10)] == MACHINES[::-1]


def test_one_record_that_does_not_match_hides_no_other(log: TuningLog) -> None:
    log.append([(make_record(TASK, n, success(0.001), machine=OLDER), None) for n in range(40)])
    log.append([(make_record(TASK, 99, success(0.5)), None)])
    assert machines(log, MatchPolicy.EXACT) == [MACHINE]


def test_another_target_never_matches(filled: TuningLog) -> None:
    for other in (make_task(mcpu="znver4"), make_task(num_threads=3)):
        assert filled.best(other, k=10, match=Match(MatchPolicy.ANY, MACHINE)) == []


def test_a_race_does_not_change_whose_record_it_is(log: TuningLog) -> None:
    [trial] = log.append([(make_record(TASK, 1, success(0.1, is_verified=False), machine=OLDER), None)])
    log.add_race(trial.record_id, [0.1], START, is_verified=True)
    assert machines(log, MatchPolicy.COMPATIBLE) == []
    assert machines(log, MatchPolicy.ANY) == [OLDER]
