"""Verifying stored records: with simulated verdicts, and with real kernels that are right, wrong or crash."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.workers.processes import left_processes, marked_environment
from tests.workers.workloads import QUICK, default_trace_json, matmul_task
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
    Origin,
    SessionInfo,
    TargetSpec,
    TensorSpec,
    TuningRecord,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.scheduler.session import RACE_ROUNDS
from tunewright.scheduler.verify_choice import Selection, choose
from tunewright.scheduler.verify_log import BATCH_SIZE, Timed, Verdict, Verified, verify_records
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, SimulatedMeasurer, WorkerConfig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MACHINE = SimulatedMeasurer().machine
STREAMED_BYTES = 12 << 20
OTHER_SOFTWARE = replace(MACHINE, tvm_version="0.26")


class Clock:
    """A second later with every look."""

    def __init__(self) -> None:
        self.now_is = NOW

    def now(self) -> datetime:
        self.now_is += timedelta(seconds=1)
        return self.now_is

    def monotonic(self) -> float:
        raise AssertionError("nothing is timed")


@dataclass
class Oracle:
    """A simulated verifier that finds those wrong whose trace it is told."""

    failures: Mapping[str, FailureKind] = field(default_factory=dict)
    race_failures: Mapping[str, FailureKind] = field(default_factory=dict)
    uncomparable: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    rehearsed: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    machine: MachineInfo = MACHINE
    batches: list[list[str]] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    evaluators: list[EvaluatorConfig] = field(default_factory=list)

    @contextmanager
    def made(self, num_threads: int) -> Iterator["Oracle"]:
        self.threads.append(num_threads)
        yield self

    def rehearse(self, inputs: Sequence[MeasureInput]) -> list[MeasureFailure | None]:
        self.rehearsed += [one.candidate.trace_json for one in inputs]
        return [
            MeasureFailure(FailureKind.REPLAY, "refused", 0.0)
            if one.candidate.trace_json in self.refused
            else None
            for one in inputs
        ]

    def verify(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        self.before()
        self.batches.append([one.candidate.trace_json for one in inputs])
        return [self._result(one, self.failures, 1) for one in inputs]

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        self.evaluators += [one.evaluator for one in inputs]
        return [self._result(one, self.race_failures, rounds) for one in inputs]

    def _result(
        self, one: MeasureInput, failures: Mapping[str, FailureKind], num_samples: int
    ) -> MeasureResult:
        trace = one.candidate.trace_json
        if trace in failures:
            return MeasureFailure(failures[trace], f"{trace} is bad", wall_secs=0.1)
        is_verified = trace not in self.uncomparable
        return MeasureSuccess((0.5,) * num_samples, 0.1, 0.1, is_verified)


def make_task(name: str, num_threads: int = 1) -> TuningTask:
    args = (TensorSpec((4, 4), "float32"),)
    workload = Workload(name, WorkloadKey(name), mod_json="{}", args=args, flop=1e6)
    return TuningTask(workload, TargetSpec("simulated", num_threads))


def store(
    log: TuningLog,
    traces: Mapping[str, float],
    task: TuningTask,
    *,
    machine: MachineInfo = OTHER_SOFTWARE,
    is_verified: bool = True,
) -> list[int]:
    """Records of a task with these seconds; their ids."""
    session_id = f"{task.workload.name}-{is_verified}"
    log.add_tasks([task])
    log.start_session(SessionInfo(session_id, "m", task.target, "random", 0, machine, {task.key: 1}, NOW))
    records = [
        TuningRecord(
            session_id=session_id,
            trial_index=index,
            candidate=Candidate(task.key, trace, Origin.RANDOM),
            result=MeasureSuccess((secs,), 0.1, 0.2, is_verified),
            evaluator=replace(QUICK, streamed_bytes=STREAMED_BYTES),
            machine=machine,
            strategy="random",
            seed=0,
            finished_at=NOW,
            code_version="test",
        )
        for index, (trace, secs) in enumerate(traces.items())
    ]
    return [trial.record_id for trial in log.append([(record, None) for record in records])]


def verify(
    log: TuningLog,
    verifier: Oracle | LocalMeasurer,
    selection: Selection | None = None,
    *,
    remeasure: bool = False,
    on_batch: Callable[[Sequence[Verified]], None] = lambda batch: None,
) -> dict[int, Verified]:
    """Choose and verify; what came out, by record."""
    found: dict[int, Verified] = {}

    def collect(batch: Sequence[Verified]) -> None:
        found.update((one.chosen.record_id, one) for one in batch)
        on_batch(batch)

    plan = choose(
        log, log.tasks(), selection or Selection(), machine=verifier.machine, why_not=lambda target: None
    )
    verify_records(
        plan.chosen,
        log=log,
        make_verifier=verifier.made if isinstance(verifier, Oracle) else lambda n: nullcontext(verifier),
        remeasure=remeasure,
        clock=Clock(),
        on_batch=collect,
    )
    return found


@pytest.fixture
def log() -> Iterator[TuningLog]:
    with TuningLog.open("sqlite://") as log:
        yield log


def test_each_verdict_is_recorded_and_asked_for_once(log: TuningLog) -> None:
    task = make_task("a")
    right, replay, crash, slow, alone = store(
        log, {"right": 0.1, "replay": 0.2, "crash": 0.3, "slow": 0.4, "alone": 0.5}, task
    )
    oracle = Oracle(
        failures={
            "replay": FailureKind.REPLAY,
            "crash": FailureKind.RUN,
            "slow": FailureKind.RUN_TIMEOUT,
        },
        uncomparable=frozenset({"alone"}),
    )

    found = verify(log, oracle, Selection(9))

    assert {number: one.verdict for number, one in found.items()} == {
        right: Verdict.RIGHT,
        replay: Verdict.QUARANTINED,
        crash: Verdict.QUARANTINED,
        slow: Verdict.UNKNOWN,
        alone: Verdict.UNKNOWN,
    }
    assert found[replay].reason == log.unusable_reason(replay)
    assert "replay is bad" in (found[replay].reason or "")
    assert "nothing to compare with" in (found[alone].reason or "")
    assert [ranked.trial.record_id for ranked in log.best(task, k=9)] == [right, slow, alone]
    assert [one.failure_kind for one in log.verifications(slow)] == [FailureKind.RUN_TIMEOUT]
    assert log.verifications(alone) == []
    # What has a verdict is known, what has none is tried again.
    assert set(verify(log, oracle, Selection(9))) == {slow, alone}
    assert set(verify(log, oracle, Selection(9, again=True))) == {right, replay, slow, alone}


def test_an_imported_log_becomes_usable(log: TuningLog) -> None:
    a, b = make_task("a"), make_task("b")
    first, second = store(log, {"a1": 0.1, "a2": 0.2}, a, is_verified=False)
    (third,) = store(log, {"b1": 0.3}, b, is_verified=False)
    assert verify(log, Oracle()) == {}
    oracle = Oracle({"a1": FailureKind.WRONG_RESULT})

    verify(log, oracle, Selection(only_unverified=True))

    assert oracle.batches == [["a1", "b1", "a2"]]
    assert [one.trial.record_id for one in log.best(a, k=9)] == [second]
    assert [one.trial.record_id for one in log.best(b, k=9)] == [third]
    assert "wrong_result" in (log.unusable_reason(first) or "")


def test_what_other_software_could_not_replay_comes_back(log: TuningLog) -> None:
    task = make_task("a")
    fast, _ = store(log, {"fast": 0.1, "slow": 0.2}, task, machine=MACHINE)
    newer = Oracle({"fast": FailureKind.REPLAY}, machine=replace(MACHINE, tvm_version="0.28"))
    verify(log, newer)
    assert log.best(task)[0].secs == 0.2

    found = verify(log, Oracle())

    assert found[fast].verdict is Verdict.RIGHT
    assert log.best(task)[0].trial.record_id == fast


def test_an_interrupt_keeps_the_batches_before_it(log: TuningLog) -> None:
    traces = {f"t{n:02}": 0.01 * (n + 1) for n in range(2 * BATCH_SIZE + 1)}
    store(log, traces, make_task("a"))
    oracle = Oracle()

    def interrupt() -> None:
        if len(oracle.batches) == 2:
            raise KeyboardInterrupt

    oracle.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        verify(log, oracle, Selection(sample_ratio=1.0))
    assert [len(batch) for batch in oracle.batches] == [BATCH_SIZE] * 2

    oracle.before = lambda: None
    rest = verify(log, oracle, Selection(sample_ratio=1.0))
    assert [len(batch) for batch in oracle.batches] == [BATCH_SIZE, BATCH_SIZE, 1]
    assert len(rest) == 1
    assert sorted(trace for batch in oracle.batches for trace in batch) == sorted(traces)


def test_one_verifier_for_each_number_of_threads(log: TuningLog) -> None:
    for number, num_threads in enumerate((2, 1, 2)):
        store(log, {f"t{number}": 0.1}, make_task(f"task{number}", num_threads))
    oracle = Oracle()
    verify(log, oracle)
    assert oracle.threads == [1, 2]
    assert oracle.batches == [["t1"], ["t0", "t2"]]


def test_times_are_taken_again_and_kept_where_they_compare(log: TuningLog) -> None:
    here, elsewhere = make_task("here"), make_task("elsewhere")
    mine, wrong, late = store(log, {"mine": 0.1, "wrong": 0.2, "late": 0.3}, here)
    (theirs,) = store(log, {"theirs": 0.1}, elsewhere, machine=replace(OTHER_SOFTWARE, cpu_model="other"))
    log.add_race(mine, [0.2, 0.3], NOW)
    oracle = Oracle({"wrong": FailureKind.WRONG_RESULT}, {"late": FailureKind.RUN_TIMEOUT})

    found = verify(log, oracle, Selection(3), remeasure=True)

    assert found[mine].timed == Timed((0.2, 0.3), (0.5,) * RACE_ROUNDS, is_stored=True)
    assert found[theirs].timed == Timed((0.1,), (0.5,) * RACE_ROUNDS, is_stored=False)
    assert found[wrong].timed is None
    # It was right a moment before, and a time-out proves nothing.
    assert (found[late].timed, found[late].verdict) == (None, Verdict.RIGHT)
    assert {ranked.trial.record_id: ranked.secs for ranked in log.best(here, k=3)} == {mine: 0.5, late: 0.3}
    assert log.best(elsewhere)[0].secs == 0.1
    assert len(log.races(mine)) == 2
    # As they were timed: with weights from as far.
    assert {evaluator.streamed_bytes for evaluator in oracle.evaluators} == {STREAMED_BYTES}


def test_a_crash_in_the_race_is_a_crash(log: TuningLog) -> None:
    (only,) = store(log, {"only": 0.1}, make_task("a"))
    found = verify(log, Oracle(race_failures={"only": FailureKind.RUN}), remeasure=True)
    assert found[only].verdict is Verdict.QUARANTINED
    assert log.best(make_task("a")) == []


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ((1.0, 1.1, 1.2), (1.15, 1.3, 1.4), False),  # they overlap
        ((1.0, 1.001), (1.02, 1.03), False),  # nearly equal
        ((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), True),
        ((1.3, 1.4, 1.5), (1.0, 1.1, 1.2), True),
    ],
)
def test_what_is_more_than_noise(before: tuple[float, ...], now: tuple[float, ...], differs: bool) -> None:
    assert Timed(before, now, is_stored=True).is_beyond_noise is differs


@pytest.fixture(scope="module")
def measurer() -> Iterator[LocalMeasurer]:
    """A real one, that knows the faults of the workers' tests; no child of it may stay."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    config = WorkerConfig(
        cpus[-1:], cpus, jobs_module="fault_jobs:handlers", watches_reference=False, adapts_build_limit=False
    )
    with marked_environment() as mark:
        with LocalMeasurer(config) as measurer:
            yield measurer
        assert left_processes(mark) == []


@pytest.mark.tvm
@pytest.mark.slow
def test_real_kernels_end_as_they_should(log: TuningLog, measurer: LocalMeasurer) -> None:
    task = matmul_task()
    good = default_trace_json(task)
    instructions, decisions = json.loads(good)
    instructions[0][2][0] = "no_such_block"
    traces = {good: 1.0, json.dumps([instructions, decisions]): 2.0, "wrong": 3.0, "run:segfault": 4.0}
    right, replay, wrong, crash = store(log, traces, task)  # verified with other software

    found = verify(log, measurer, Selection(9))

    assert found[right].verdict is Verdict.RIGHT
    assert {number: one.failure.kind for number, one in found.items() if one.failure is not None} == {
        replay: FailureKind.REPLAY,
        wrong: FailureKind.WRONG_RESULT,
        crash: FailureKind.RUN,
    }
    reasons = [log.unusable_reason(number) or "" for number in (replay, wrong, crash)]
    for reason, words in zip(
        reasons, ("Cannot find a block", "on input set 'random'", "SIGSEGV"), strict=True
    ):
        assert words in reason and f"TVM {measurer.machine.tvm_version}" in reason
    [ranked] = log.best(task, k=9)
    assert (ranked.trial.record_id, ranked.secs) == (right, 1.0)
    assert verify(log, measurer, Selection(9)) == {}


@pytest.mark.tvm
@pytest.mark.slow
def test_what_nobody_verified_is_rehearsed_in_a_sandbox(log: TuningLog, measurer: LocalMeasurer) -> None:
    """The doors of the faulty jobs are no traces: what is not on the list of instructions is never run."""
    task = matmul_task()
    good = default_trace_json(task)
    instructions, decisions = json.loads(good)
    hostile = [*instructions, ["Annotate", ["b0", "define void @f()"], ["pragma_import_llvm"], []]]
    traces = {good: 1.0, json.dumps([hostile, decisions]): 2.0, "run:segfault": 3.0}
    right, *others = store(log, traces, task, is_verified=False, machine=measurer.machine)

    found = verify(log, measurer, Selection(only_unverified=True))

    assert found[right].verdict is Verdict.RIGHT
    for number in others:
        failure = found[number].failure
        assert failure is not None and failure.kind is FailureKind.REPLAY
        assert failure.message.startswith("the trace is refused")
    assert [ranked.trial.record_id for ranked in log.best(task, k=9)] == [right]
    assert verify(log, measurer, Selection(only_unverified=True)) == {}


def test_only_strangers_are_rehearsed(log: TuningLog) -> None:
    store(log, {"known": 0.1}, make_task("a"))
    (bad, fine) = store(log, {"bad": 0.2, "fine": 0.3}, make_task("b"), is_verified=False)
    oracle = Oracle(refused=frozenset({"bad"}))

    found = verify(log, oracle, Selection(only_unverified=True)) | verify(log, oracle)

    assert sorted(oracle.rehearsed) == ["bad", "fine"]
    assert [trace for batch in oracle.batches for trace in batch] == ["fine", "known"]
    assert (found[bad].verdict, found[fine].verdict) == (Verdict.QUARANTINED, Verdict.RIGHT)


@pytest.mark.tvm
@pytest.mark.slow
def test_real_kernels_are_timed_again(log: TuningLog, measurer: LocalMeasurer) -> None:
    task = matmul_task()
    (only,) = store(log, {default_trace_json(task): 1.0}, task, machine=measurer.machine)
    assert verify(log, measurer, remeasure=True) == {}
    found = verify(log, measurer, Selection(again=True), remeasure=True)
    timed = found[only].timed
    assert timed is not None and timed.is_stored and timed.change_ratio < 1
    [ranked] = log.best(task)
    assert ranked.is_raced and ranked.secs == timed.secs
