"""Merging: nothing is lost, twice is as once, and which log takes over which makes no difference."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from log_samples import MACHINE, START, make_features, make_record, make_session, make_task, success

from tunewright.core.types import FailureKind, MachinePeak, MeasureFailure, ModelSnapshot
from tunewright.tuning_logs import TuningLog

TASKS = [make_task(size) for size in (32, 64, 128)]
OTHER_MACHINE = dataclasses.replace(MACHINE, cpu_model="Other CPU")
RESULTS = [
    success(0.003, 0.002),
    success(0.001, is_verified=False),
    MeasureFailure(FailureKind.RUN, "SIGSEGV", wall_secs=0.1),
    MeasureFailure(FailureKind.PRUNED, "", wall_secs=0.1, run_secs=(0.5,)),
]
Opener = Callable[[], TuningLog]


@pytest.fixture
def new_log() -> Iterator[Opener]:
    """Opens logs in memory and closes them in the end."""
    opened: list[TuningLog] = []

    def open_one() -> TuningLog:
        opened.append(TuningLog.open("sqlite://"))
        return opened[-1]

    yield open_one
    for log in opened:
        log.close()


def fill(log: TuningLog, rng: random.Random) -> None:
    """Some sessions with trials, races, quarantines, peaks and models; what two logs draw overlaps."""
    for number in rng.sample(range(4), 3):
        session_id = f"session-{number}"
        tasks = TASKS[: 1 + number % 3]
        log.add_tasks(tasks)
        info = make_session(*tasks, session_id=session_id)
        log.start_session(dataclasses.replace(info, created_at=START + timedelta(hours=rng.randrange(3))))
        log.add_elapsed(session_id, rng.randrange(1, 5))
        for trial in rng.sample(range(12), 8):
            task = tasks[trial % len(tasks)]
            record = make_record(task, trial, rng.choice(RESULTS), session_id=session_id)
            if rng.random() < 0.3:  # measured again elsewhere: another time, maybe another machine
                later = record.finished_at + timedelta(seconds=rng.randrange(3))
                machine = rng.choice([MACHINE, OTHER_MACHINE])
                record = dataclasses.replace(record, finished_at=later, machine=machine)
            features = make_features(trial) if rng.random() < 0.7 else None
            [stored] = log.append([(record, features)])
            if record.best_secs is not None and rng.random() < 0.4:
                raced_at = START + timedelta(minutes=rng.randrange(5))
                log.add_race(stored.record_id, [rng.choice([0.001, 0.002])], raced_at, is_verified=True)
            if rng.random() < 0.2:
                log.mark_unusable(stored.record_id, rng.choice(["does not replay", "wrong"]))
    rate = rng.choice([1e11, 2e11])
    log.add_peak(MachinePeak(MACHINE, TASKS[0].target, rate, ((1, 1e9),), START + timedelta(seconds=rate)))
    log.save_model(
        ModelSnapshot(rng.choice("ab") * 64, "xgboost", b"ubj", "features/1", 6, {"rank": 0.5}, START)
    )


def content(log: TuningLog) -> dict[str, Any]:
    """Everything that a log holds, without the numbers of its rows."""
    tasks = {summary.task_key: log.task(summary.task_key) for summary in log.tasks()}
    trials = {}
    for key in tasks:
        ranked = {ranked.trial.record_id: (ranked.secs, ranked.is_raced) for ranked in log.best(key, k=1000)}
        for trial in log.trials(key, with_features=True):
            record, record_id = trial.record, trial.record_id
            features = None if trial.features is None else trial.features.tobytes()
            trials[record.session_id, record.candidate.key] = (
                record,
                record.candidate.origin,
                features,
                log.races(record_id),
                log.unusable_reason(record_id),
                ranked.get(record_id),
            )
    sessions = {summary.session_id: summary for summary in log.sessions()}
    weights = {session_id: log.session_weights(session_id) for session_id in sessions}
    peak = log.peak(TASKS[0].target, machine_fingerprint=MACHINE.fingerprint)
    models = {model.model_id: model for model in log.models()}
    return {"tasks": tasks, "trials": trials, "sessions": sessions, "weights": weights} | {
        "peak": peak,
        "models": models,
    }


@pytest.mark.parametrize("seed", range(8))
def test_merging_is_idempotent_and_commutative(new_log: Opener, seed: int) -> None:
    first, second = new_log(), new_log()
    rng = random.Random(seed)
    fill(first, rng)
    fill(second, rng)
    before = content(second)
    one, other = new_log(), new_log()

    one.merge_from(first)
    one.merge_from(second)
    other.merge_from(second)
    other.merge_from(first)

    assert content(one) == content(other)
    assert content(second) == before
    merged = content(one)
    again = one.merge_from(second)
    assert content(one) == merged
    assert (again.num_trials, again.num_sessions, again.num_tasks) == (0, 0, 0)
    assert again.num_known == len(content(second)["trials"])
    keys = content(first)["trials"].keys() | content(second)["trials"].keys()
    assert merged["trials"].keys() == keys


def test_into_an_empty_log_everything_comes_over(new_log: Opener) -> None:
    source, target = new_log(), new_log()
    fill(source, random.Random(99))
    report = target.merge_from(source)
    assert content(target) == content(source)
    num_trials = len(content(source)["trials"])
    assert (report.num_trials, report.num_known, report.num_sessions) == (num_trials, 0, 3)


def test_the_earlier_measurement_of_a_candidate_stays(new_log: Opener) -> None:
    logs = [new_log(), new_log()]
    for number, log in enumerate(logs):
        log.add_tasks(TASKS[:1])
        log.start_session(make_session(TASKS[0]))
        record = make_record(TASKS[0], 1, success(0.001 * (2 - number)))
        finished_at = START + timedelta(hours=number)
        [stored] = log.append([(dataclasses.replace(record, finished_at=finished_at), None)])
        log.add_race(stored.record_id, [0.01 * (number + 1)], START + timedelta(days=number))

    logs[1].merge_from(logs[0])

    [ranked] = logs[1].best(TASKS[0], k=5)
    assert ranked.trial.record.best_secs == 0.002
    assert (ranked.secs, ranked.is_raced) == (0.02, True)
    assert [race.run_secs for race in logs[1].races(ranked.trial.record_id)] == [(0.01,), (0.02,)]


def test_a_large_log_comes_over_page_by_page(new_log: Opener) -> None:
    source, target = new_log(), new_log()
    source.add_tasks(TASKS[:1])
    source.start_session(make_session(TASKS[0]))
    source.append([(make_record(TASKS[0], n), make_features(n)) for n in range(1203)])
    seen: list[int] = []
    report = target.merge_from(source, on_page=seen.append)
    assert (report.num_trials, seen) == (1203, [500, 1000, 1203])
    assert target.trials(TASKS[0].key) == source.trials(TASKS[0].key)


def test_between_engines(new_log: Opener, postgres_url: str) -> None:
    source, back = new_log(), new_log()
    fill(source, random.Random(7))
    with TuningLog.open(postgres_url) as server:
        server.merge_from(source)
        assert content(server) == content(source)
        back.merge_from(server)
    assert content(back) == content(source)
