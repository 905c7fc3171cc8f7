"""The benchmark of the tuning log counts right, whatever the speed."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from log_load.load import Plan, run
from log_load.report import growth, markdown
from log_load.results import Lookups, Results
from log_load.source import SAMPLE, SourceTask, read_log, read_sample, write_sample
from log_load.synthesis import Synthesis, Trial

from tunewright.core.types import MeasureSuccess
from tunewright.tuning_logs import TuningLog

TINY = Plan(
    sizes=(60, 400),
    num_tasks=9,
    tasks_per_model=4,
    ingest_batches={4: 3, 16: 2},
    num_producers=3,
    rows_per_producer=40,
    producer_batch=7,
    num_lookups=30,
    num_model_lookups=5,
)


@pytest.fixture(scope="module")
def sample() -> list[SourceTask]:
    return read_sample()


def synthesis(sample: list[SourceTask], *, seed: int = 1, num_tasks: int = 30) -> Synthesis:
    return Synthesis(sample, num_tasks=num_tasks, tasks_per_model=12, seed=seed)


def empty_results() -> Results:
    return Results(
        machine={"fingerprint": "f", "cpu_model": "CPU", "num_cpus": 4},
        database="SQLite 3",
        source="the sample",
        seed=1,
        num_tasks=TINY.num_tasks,
        feature_share=0.0,
        started_at="2026-01-01T00:00:00+00:00",
        load_before=(0.0, 0.0, 0.0),
        cpus=(0,),
        versions={},
    )


def packed_chars(traces: Iterable[str]) -> float:
    sizes = [len(zlib.compress(trace.encode())) for trace in traces]
    return sum(sizes) / len(sizes)


def test_the_sample_is_small_and_holds_well_tuned_tasks() -> None:
    assert SAMPLE.stat().st_size <= 40_000
    for task in read_sample():
        assert len(task.trials) >= 8
        assert any(trial.features is not None for trial in task.trials)
        assert any(isinstance(t.record.result, MeasureSuccess) for t in task.trials)


@pytest.mark.slow
def test_a_sample_of_a_log_comes_back(sample: list[SourceTask], tmp_path: Path) -> None:
    first = synthesis(sample, num_tasks=1)
    with TuningLog.open(f"sqlite:///{tmp_path}/tuned.db") as log:
        log.add_tasks(first.tasks)
        for session in first.sessions():
            log.start_session(session)
        stored = log.append(list(islice(first.trials(), 20)))
    (read,) = read_log(tmp_path / "tuned.db")
    write_sample([read], tmp_path / "sample", num_tasks=5, trials_per_task=10)
    (sampled,) = read_sample(tmp_path / "sample")
    assert len(read.trials) == 20 and len(sampled.trials) == 10
    traces = [trial.record.candidate.trace_json for trial in sampled.trials]
    assert traces == [trial.record.candidate.trace_json for trial in stored[::2]]
    assert sampled.task.workload.mod_json == first.tasks[0].workload.mod_json


def test_a_log_without_a_tuned_task_is_refused(tmp_path: Path) -> None:
    with TuningLog.open(f"sqlite:///{tmp_path}/empty.db"):
        pass
    with pytest.raises(ValueError, match=r"empty\.db has no task with 16 trials"):
        read_log(tmp_path / "empty.db")


def test_synthetic_tasks_differ_and_have_their_own_shapes(sample: list[SourceTask]) -> None:
    tasks = synthesis(sample).tasks
    assert len({task.key for task in tasks}) == len({task.workload.mod_json for task in tasks}) == 30
    assert tasks[0].workload.args == sample[0].task.workload.args
    assert tasks[len(sample)].workload.args != sample[0].task.workload.args


@pytest.mark.slow
def test_synthetic_trials_differ_and_pack_like_real_ones(sample: list[SourceTask]) -> None:
    trials = list(islice(synthesis(sample).trials(), 1500))
    traces = [record.candidate.trace_json for record, _ in trials]
    assert len({(record.task_key, record.candidate.key) for record, _ in trials}) == 1500
    for trace in traces[:200]:
        _, decisions = json.loads(trace)
        assert all(isinstance(index, int) for index, _ in decisions)
    real = [trial.record.candidate.trace_json for task in sample for trial in task.trials]
    assert packed_chars(traces) == pytest.approx(packed_chars(real), rel=0.1)
    with_features = sum(features is not None for _, features in trials) / 1500
    real_features = [trial.features is not None for task in sample for trial in task.trials]
    assert with_features == pytest.approx(sum(real_features) / len(real_features), abs=0.1)


def test_the_same_seed_gives_the_same_trials(sample: list[SourceTask]) -> None:
    def keys(trials: Iterable[Trial]) -> list[str]:
        return [record.candidate.key for record, _ in islice(trials, 50)]

    first, again = synthesis(sample), synthesis(sample)
    assert keys(first.trials()) == keys(again.trials())
    assert keys(first.trials()) != keys(synthesis(sample, seed=2).trials())
    session = first.session(0, name="producer-1")
    streams = [keys(first.trials_of_session(session, stream=stream)) for stream in (1, 2)]
    assert streams[0] != streams[1]


def test_a_plan_that_overlaps_is_refused() -> None:
    with pytest.raises(ValueError, match="take larger ones"):
        replace(TINY, rows_per_producer=400)
    for plan in (Plan.quick(), *map(Plan.for_trials, (30_000, 100_000, 1_000_000))):
        assert plan.num_tasks >= 2 * plan.tasks_per_model
    assert Plan.for_trials(1_000_000).sizes == (10_000, 100_000, 1_000_000)


@pytest.mark.slow
def test_everything_is_counted_and_nothing_is_lost(sample: list[SourceTask], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuning.db"
    results = empty_results()
    plan_synthesis = Synthesis(sample, num_tasks=9, tasks_per_model=4, seed=1)
    run(url, plan_synthesis, TINY, results, say=lambda _: None)

    (producers,) = results.producers
    assert (producers.num_stored, producers.num_missing, producers.num_doubled) == (60, 0, 0)
    assert (producers.errors, len(producers.append_secs)) == ((), 3 * 6)
    found = [(lookup.num_stored, len(lookup.one_secs), lookup.num_wrong) for lookup in results.lookups]
    assert found == [(60, 30, 0), (400, 30, 0)]
    ingests = [(i.num_stored, i.batch_size, i.with_features, len(i.append_secs)) for i in results.ingests]
    assert ingests == [
        *((0, size, True, number) for size, number in TINY.ingest_batches.items()),
        *((400, size, True, number) for size, number in TINY.ingest_batches.items()),
        *((444, size, False, number) for size, number in TINY.ingest_batches.items()),
    ]
    assert [filling.num_trials for filling in results.fillings] == [60 - 44, 400 - 60 - 120]
    empty, full = results.sizes
    assert (empty.num_stored, full.num_stored) == (0, 400) and full.num_bytes > empty.num_bytes > 0

    with TuningLog.open(url, read_only=True) as log:
        assert sum(session.num_trials for session in log.sessions()) == 400 + 2 * 44
    with pytest.raises(ValueError, match="holds something already"):
        run(url, plan_synthesis, TINY, empty_results(), say=lambda _: None)

    text = markdown(results)
    assert "0 missing, 0 doubled" in text and "Errors seen: none." in text
    results.save(tmp_path / "results.json")
    assert len(json.loads((tmp_path / "results.json").read_text())["lookups"][1]["one_secs"]) == 30


def test_growth_is_that_of_the_percentiles() -> None:
    small = Lookups(10, 1, 60, tuple([1.0] * 98 + [2.0] * 2), (1.0, 1.0), 0)
    large = replace(small, num_stored=1000, one_secs=tuple([1.5] * 98 + [8.0] * 2), model_secs=(3.0, 3.0))
    (_, median, tail), (what, *of_models) = growth([small, large])
    assert (median, tail, of_models) == (1.5, 4.0, [3.0, 3.0])
    assert what == "a model of 60 tasks"
