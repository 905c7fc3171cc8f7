"""From a real log to what is drawn: against what was put into it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.plots.tuned_log import (
    CONV,
    MACHINE,
    MATMUL,
    OTHER_MACHINE,
    START,
    WEIGHTS,
    add_session,
    failure,
    make_task,
    success,
)
from tunewright.core.errors import ConfigError
from tunewright.core.log_url import file_url
from tunewright.core.types import MachinePeak, TaskKey
from tunewright.plots import (
    Gains,
    SessionData,
    TaskPair,
    TaskShare,
    group_runs,
    read_coverage,
    read_history,
    read_pairs,
    read_roofline,
    read_session,
)
from tunewright.plots.log_data import FAILED, HAS_RECORD, IN_QUARANTINE, UNTRIED, UNVERIFIED
from tunewright.tuning_logs import TuningLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TuningLog]:
    with TuningLog.open(file_url(tmp_path / "tuning.db")) as tuning_log:
        yield tuning_log


def read(log: TuningLog, session_id: str) -> SessionData:
    return read_session(log, next(one for one in log.sessions() if one.session_id == session_id))


@pytest.fixture
def two_sessions(log: TuningLog) -> TuningLog:
    """The newer one leans on what the older one knows of the conv."""
    add_session(log, "old", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, success(0.125))])
    add_session(
        log,
        "new",
        [(MATMUL, failure()), (MATMUL, success(0.0625)), (MATMUL, success(0.03125))],
        begin=START + timedelta(hours=1),
    )
    return log


def test_a_session_begins_with_what_its_machine_knew(two_sessions: TuningLog) -> None:
    add_session(two_sessions, "abroad", [(CONV, success(1e-3))], machine=OTHER_MACHINE)
    add_session(two_sessions, "later", [(CONV, success(2e-3))])
    stranger = make_task("pool 8x8 -> 8x8")
    add_session(
        two_sessions, "stranger", [(stranger, success(1.0))], tasks=[stranger], weights={stranger.key: 1}
    )
    new = read(two_sessions, "new")
    assert [new.trials.task_keys[code] for code in new.trials.task] == [MATMUL.key] * 3
    assert new.known.usable_secs.tolist() == [0.5, 0.25, 0.125]
    assert new.weights == WEIGHTS
    assert new.names == {CONV.key: CONV.workload.name, MATMUL.key: MATMUL.workload.name}
    assert len(read(two_sessions, "old").known) == 0


def test_curves_shares_and_gains(two_sessions: TuningLog) -> None:
    new = read(two_sessions, "new")
    np.testing.assert_array_equal(new.best_so_far().latency_secs, [0.875, 0.8125, 0.78125])
    np.testing.assert_array_equal(new.best_so_far().wall_secs, [1, 2, 3])
    assert np.isnan(new.best_so_far(is_alone=True).latency_secs).all()
    np.testing.assert_array_equal(new.best_so_far(MATMUL.key).latency_secs, [0.125, 0.0625, 0.03125])
    assert new.shares() == [
        TaskShare(CONV.workload.name, 3, 0.5, 0.25),
        TaskShare(MATMUL.workload.name, 1, 0.125, 0.03125),
    ]
    assert new.gains_by_task().steps == ((CONV.workload.name, 0.75), (MATMUL.workload.name, 0.09375))
    assert new.gains_by_origin() == Gains(1.625, 0.78125, (("random points", 0.84375),))
    assert {name: counts.sum() for name, counts in new.outcomes().counts.items()} == {
        "verified": 2,
        "build": 1,
    }


def test_a_session_that_still_runs_is_read_as_far_as_it_is(two_sessions: TuningLog, tmp_path: Path) -> None:
    with TuningLog.open(file_url(tmp_path / "tuning.db"), read_only=True) as watched:
        before = read(watched, "new")
        add_session(two_sessions, "new", [(MATMUL, success(0.5))] * 4)
        after = read(watched, "new")
    assert (len(before.trials), len(after.trials)) == (3, 4)


def test_a_session_without_trials(log: TuningLog) -> None:
    add_session(log, "none", [])
    data = read(log, "none")
    assert len(data.trials) == len(data.known) == 0
    assert data.shares() == []
    assert data.outcomes().num_trials == 0


def test_seeds_of_one_setting_are_a_group_and_labels_say_what_tells_groups_apart(log: TuningLog) -> None:
    for number, (strategy, model, machine) in enumerate(
        [
            ("evolutionary", "net.onnx", MACHINE),
            ("evolutionary", "net.onnx", MACHINE),
            ("random", "net.onnx", MACHINE),
        ]
    ):
        add_session(log, f"s{number}", [], strategy=strategy, model_name=model, machine=machine, seed=number)
    groups = group_runs(log.sessions())
    assert {label: [one.seed for one in members] for label, members in groups.items()} == {
        "evolutionary": [0, 1],
        "random": [2],
    }
    add_session(log, "s3", [], strategy="random", model_name="big.onnx", machine=OTHER_MACHINE)
    assert list(group_runs(log.sessions())) == [
        f"evolutionary, net.onnx, {MACHINE.fingerprint[:8]}",
        f"random, net.onnx, {MACHINE.fingerprint[:8]}",
        f"random, big.onnx, {OTHER_MACHINE.fingerprint[:8]}",
    ]
    assert group_runs([]) == {}


def test_pairs_have_the_samples_that_the_best_records_rank_by(log: TuningLog) -> None:
    add_session(log, "a", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, success(0.1))])
    [raced, *_] = add_session(log, "b", [(CONV, success(0.125)), (MATMUL, success(0.01, is_verified=False))])
    log.add_race(raced.record_id, (0.2, 0.21, 0.22), START)
    a, b = log.sessions()
    assert read_pairs(log, a, b) == [TaskPair(CONV.workload.name, 3, (0.25,), (0.2, 0.21, 0.22))]
    add_session(log, "c", [(CONV, success(0.125))], machine=OTHER_MACHINE)
    with pytest.raises(ConfigError, match=r"were timed on different machines .* do not compare"):
        read_pairs(log, a, log.sessions()[-1])


def test_the_roofline_is_of_the_session_s_machine(two_sessions: TuningLog) -> None:
    new = read(two_sessions, "new")
    with pytest.raises(ConfigError, match="measure them there with `tunewright machine peak`"):
        read_roofline(two_sessions, new)
    peak = MachinePeak(MACHINE, CONV.target, 1e9, ((1024, 1e9),), START)
    two_sessions.add_peak(peak)
    two_sessions.add_peak(replace(peak, machine=OTHER_MACHINE, flop_per_sec=9e9))
    limits = read_roofline(two_sessions, new)
    assert limits.peak_gflops == 1.0
    # 3 x 0.25 s of the conv are more than 0.03 s of the product.
    assert [point.name for point in limits.points] == [CONV.workload.name, MATMUL.workload.name]
    assert [point.gflops for point in limits.points] == pytest.approx([1024 / 0.25e9, 1024 / 0.03125e9])
    assert limits.points[0].flop_per_byte == pytest.approx(1024 / (3 * 256))


def test_history_goes_over_all_sessions_of_the_machine(two_sessions: TuningLog) -> None:
    add_session(two_sessions, "abroad", [(CONV, success(1e-3))], machine=OTHER_MACHINE)
    conv, matmul = read_history(two_sessions, read(two_sessions, "new"))
    np.testing.assert_array_equal(conv.best_secs, [0.5, 0.25])
    np.testing.assert_array_equal(matmul.best_secs, [0.125, 0.0625, 0.03125])
    assert [moment - START for moment in matmul.found_at] == [
        timedelta(seconds=3),
        timedelta(hours=1, seconds=2),
        timedelta(hours=1, seconds=3),
    ]


def test_coverage_of_each_model_once(log: TuningLog) -> None:
    tasks = [
        make_task(f"{state} 8x8 -> 8x8") for state in ("record", "wrong", "unverified", "failed", "untried")
    ]
    record, wrong, unverified, failed, _ = tasks
    weights = {task.key: weight for weight, task in enumerate(tasks, start=1)}
    trials = add_session(
        log,
        "first",
        [
            (record, success(1.0)),
            (wrong, success(1.0)),
            (unverified, success(1.0, is_verified=False)),
            (failed, failure()),
        ],
        tasks=tasks,
        weights=weights,
    )
    log.mark_unusable(trials[1].record_id, "wrong_result")
    add_session(log, "again", [], tasks=tasks, weights=weights, seed=8)
    add_session(log, "small", [], tasks=tasks[:1], weights={record.key: 9}, model_name="small.onnx")
    net, small = read_coverage(log, log.sessions())
    assert (net.name, net.num_tasks, small.name, small.num_tasks) == ("net.onnx", 5, "small.onnx", 1)
    assert net.shares == pytest.approx(
        {HAS_RECORD: 1 / 15, IN_QUARANTINE: 2 / 15, UNVERIFIED: 3 / 15, FAILED: 4 / 15, UNTRIED: 5 / 15}
    )
    assert small.shares[HAS_RECORD] == 1.0
    assert read_coverage(log, []) == []


def test_a_task_of_a_session_that_is_unknown_has_an_empty_curve(two_sessions: TuningLog) -> None:
    curve = read(two_sessions, "new").best_so_far(TaskKey("none"))
    assert curve.trials.shape == (0,)
