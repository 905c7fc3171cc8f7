"""All about one trial, against what was put into the log."""

from dataclasses import astuple, replace
from datetime import timedelta

import numpy as np
import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.explore.sample_log import RACED_SECS, Sample
from tests.explore.test_schedule_words import ruled
from tests.tuning_logs.log_samples import MACHINE, START, make_record, make_session, make_task, success
from tunewright.core.errors import RecordNotFoundError
from tunewright.core.types import FailureKind, MeasureFailure
from tunewright.explore import OpenLog
from tunewright.explore.trial_view import Spread
from tunewright.tuning_logs import TuningLog


def test_the_times_that_it_ranks_by(log: OpenLog, sample: Sample) -> None:
    raced, noisy, crashed, pruned, *_ = (log.trial(np.int64(one.record_id)) for one in sample.trials)
    assert raced.run_secs == RACED_SECS
    expected = Spread(3, 0.0015, 0.00155, 0.0016, 0.00165, 0.0017)
    assert raced.spread is not None and astuple(raced.spread) == pytest.approx(astuple(expected))
    assert repr(raced) == (
        f"<Trial {raced.record_id} of matmul_64: "
        "1.60 ms (quartiles 1.55 ms to 1.65 ms, n = 3), verified, raced>"
    )
    assert "verified, noisy" in repr(noisy)
    assert crashed.spread is None and repr(crashed).endswith("of matmul_128: run>")
    assert repr(pruned).endswith("of matmul_128: pruned after 90.0 ms>")


def test_its_samples_as_a_frame(log: OpenLog, sample: Sample) -> None:
    frame = log.trial(sample.trials[0].record_id).to_frame()
    assert frame["source"].tolist() == ["trial"] * 3 + ["race 1"] * 3
    assert frame["run_secs"].tolist() == [0.002, 0.001, 0.004, *RACED_SECS]
    assert frame["sample"].tolist() == [0, 1, 2, 0, 1, 2]
    assert frame["measured_at"][5].to_pydatetime() == START + timedelta(minutes=5)
    assert log.trial(sample.trials[2].record_id).to_frame().empty


def test_a_page_for_a_notebook(log: OpenLog, sample: Sample) -> None:
    page = assert_harmless(log.trial(sample.trials[1].record_id)._repr_html_())
    assert "mutation, predicted score 0.75" in page.text
    assert ["trial", "4", "1.00 ms", "1.30 ms", "1.70 ms", "2.25 ms", "3.00 ms"] in page.rows
    assert ["TVM, LLVM", f"{MACHINE.tvm_version}, {MACHINE.llvm_version}"] in page.rows
    assert ["cost model", "mmmmmmmm"] in page.rows
    crashed = assert_harmless(log.trial(sample.trials[2].record_id)._repr_html_())
    assert "Message: SIGSEGV é" in crashed.text


def test_its_schedule_in_words_and_what_became_of_it() -> None:
    task = make_task()
    with TuningLog.open("sqlite://") as log:
        log.add_tasks([task])
        log.start_session(make_session(task))
        record = make_record(task, 0)
        record = replace(record, candidate=replace(record.candidate, trace_json=ruled([64, 16], 2)))
        [stored] = log.append([(record, None)])
        wrong = MeasureFailure(FailureKind.WRONG_RESULT, EVIL, 0.1)
        log.add_verification(stored.record_id, machine=MACHINE, failure=wrong, verified_at=START)
        trial = OpenLog(log, place="in memory").trial(stored.record_id)
        assert trial.words == ["tile i 64x16", "unroll up to 64 steps", "vectorize 16"]
        assert trial.quarantine is not None and trial.quarantine in repr(trial)
        page = assert_harmless(trial._repr_html_())
        assert "tile i 64x16\nunroll up to 64 steps\nvectorize 16" in page.text
        assert f"wrong_result: {EVIL}" in page.rows[-1]


def test_hostile_names_and_messages() -> None:
    task = make_task()
    task = replace(
        task, workload=replace(task.workload, name=EVIL), target=replace(task.target, mcpu="<b>\x1b[2J")
    )
    with TuningLog.open("sqlite://") as log:
        log.add_tasks([task])
        log.start_session(make_session(task))
        machine = replace(MACHINE, cpu_model=EVIL, tvm_version="<i>")
        failed = MeasureFailure(FailureKind.BUILD, f"\x1b[31m{EVIL}", 0.1)
        records = [make_record(task, n, one, machine=machine) for n, one in enumerate((failed, success(1.0)))]
        for stored in log.append([(record, None) for record in records]):
            trial = OpenLog(log, place="in memory").trial(stored.record_id)
            page = assert_harmless(trial._repr_html_())
            assert EVIL in page.text and "\x1b" not in page.text + repr(trial)


def test_no_such_record(log: OpenLog) -> None:
    with pytest.raises(RecordNotFoundError, match="no record 99"):
        log.trial(99)
