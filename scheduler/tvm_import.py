"""Import the database of a MetaSchedule tuning into the log. Nothing in its files is believed.

Damaged lines are left out and counted. Modules and traces are checked, then parsed and replayed in children.
What is stored says that nobody has compared its outputs, and that its machine is unknown.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import tunewright
from tunewright.core.errors import TunewrightError
from tunewright.core.keys import digest
from tunewright.core.module_rules import check_module
from tunewright.core.trace_rules import check_trace
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureResult,
    MeasureSuccess,
    Origin,
    SessionInfo,
    TargetSpec,
    TaskKey,
    TuningRecord,
    TuningTask,
    Workload,
)
from tunewright.scheduler.partition import task_name
from tunewright.scheduler.tvm_files import (
    RECORD_FILE,
    WORKLOAD_FILE,
    BadLine,
    RecordLine,
    WorkloadFile,
    read_records,
    read_workloads,
    unreadable,
)
from tunewright.tuning_logs import TuningLog
from tunewright.workers.exchange import Exchange, ForeignTrace, Refusal
from tunewright.workers.pool import Pool

STRATEGY = "import"
UNKNOWN = "unknown (imported)"
_BATCH_RECORDS = 1024
_BATCH_CHARS = 32 << 20
_MAX_EXAMPLES = 20
_NO_TIME = "TVM's database states no time for this candidate, and not why"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a database.

    Of the `num_records` readable records, `num_stored` are in the log now, `num_failures` of them without a
    time; `num_known` were there before, and `num_repeated` measure another line's candidate again. The rest
    is in `refused`, which counts reasons, as `refused_workloads` does for modules, and `bad_lines` for lines
    of both files that cannot be read. `examples`: some lines of all three, for people.
    """

    num_workloads: int
    num_records: int
    num_stored: int
    num_failures: int
    num_known: int
    num_repeated: int
    bad_lines: Mapping[str, int]
    refused_workloads: Mapping[str, int]
    refused: Mapping[str, int]
    examples: tuple[str, ...]
    session_ids: tuple[str, ...]


def import_tvm_database(
    folder: Path, log: TuningLog, pool: Pool, *, check: Callable[[str], None] = check_trace
) -> ImportReport:
    """Store the records of the database in `folder`; importing the same ones again stores nothing.

    A record is the same if its candidate and its run times are. There is one session per target, named by the
    files' content. Records are unverified, so none is ever best before its outputs have been compared.

    Args:
        check: raises a TunewrightError for a trace that must not be replayed.

    Raises:
        ConfigError: the folder has no database, or it cannot be read.
        EnvironmentProblem: no child can be started here.
    """
    workloads = read_workloads(folder / WORKLOAD_FILE)
    survey = _survey(folder, workloads)
    tally = _Tally()
    for bad in workloads.bad_lines:
        tally.add_bad(WORKLOAD_FILE, bad)
    with Exchange(pool) as exchange:
        adopted = _adopt_workloads(exchange, workloads, tally)
        store = _Store(folder, log, survey, adopted, tally)
        lines = read_records(
            folder / RECORD_FILE, num_workloads=workloads.num_indices, end=survey.num_record_bytes
        )
        for batch in _batches(_readable(lines, tally)):
            ready = [line for line in batch if _is_acceptable(line, adopted, survey, check, tally)]
            store.add(ready, _adopt_traces(exchange, ready, workloads, adopted))
    return ImportReport(
        num_workloads=len(workloads.workloads),
        num_records=tally.num_records,
        num_stored=tally.num_stored,
        num_failures=tally.num_failures,
        num_known=tally.num_known,
        num_repeated=tally.num_repeated,
        bad_lines=dict(tally.bad_lines),
        refused_workloads=dict(tally.refused_workloads),
        refused=dict(tally.refused),
        examples=tuple(tally.examples),
        session_ids=store.session_ids,
    )


@dataclass(slots=True)
class _Tally:
    """Counts of an import that is going on."""

    num_records: int = 0
    num_stored: int = 0
    num_failures: int = 0
    num_known: int = 0
    num_repeated: int = 0
    bad_lines: Counter[str] = field(default_factory=Counter)
    refused_workloads: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add_bad(self, file: str, line: BadLine) -> None:
        self.bad_lines[line.reason] += 1
        self._show(file, line.line_number, line.reason, line.detail)

    def refuse_workload(self, line_number: int, reason: str, detail: str) -> None:
        self.refused_workloads[reason] += 1
        self._show(WORKLOAD_FILE, line_number, reason, detail)

    def refuse(self, line_number: int, reason: str, detail: str = "") -> None:
        self.refused[reason] += 1
        self._show(RECORD_FILE, line_number, reason, detail)

    def _show(self, file: str, line_number: int, reason: str, detail: str) -> None:
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{file}:{line_number}: {reason}{': ' if detail else ''}{detail[:200]}")


@dataclass(frozen=True, slots=True)
class _Survey:
    """A first look at the files: what must be known before anything is stored.

    `digest` is of the content of both, `pairs` has the workload index and target of every record, `succeeded`
    the identities of candidates that have a time somewhere.
    """

    digest: str
    machine: MachineInfo
    written_at: datetime
    num_record_bytes: int
    pairs: tuple[tuple[int, TargetSpec], ...]
    succeeded: frozenset[str]


def _survey(folder: Path, workloads: WorkloadFile) -> _Survey:
    path = folder / RECORD_FILE
    # The size is taken first: a tuning that is still going on may append meanwhile.
    num_bytes, written_at = _size_and_time(path)
    pairs: dict[tuple[int, TargetSpec], None] = {}
    succeeded: set[str] = set()
    first_success = ""
    for line in read_records(path, num_workloads=workloads.num_indices, end=num_bytes):
        if isinstance(line, RecordLine):
            pairs[line.workload_index, line.target] = None
            if not line.is_failure:
                succeeded.add(_identity(line))
                first_success = first_success or digest(_identity(line), repr(line.run_secs))
    content = digest(_file_digest(folder / WORKLOAD_FILE), _file_digest(path, num_bytes))
    return _Survey(
        digest=content,
        machine=_unknown_machine(first_success or content),
        written_at=written_at,
        num_record_bytes=num_bytes,
        pairs=tuple(pairs),
        succeeded=frozenset(succeeded),
    )


def _size_and_time(path: Path) -> tuple[int, datetime]:
    try:
        stat = path.stat()
    except OSError as exc:
        raise unreadable(path, exc) from exc
    return stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)


def _file_digest(path: Path, num_bytes: int = 1 << 62) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(min(num_bytes, 1 << 20)):
            hasher.update(data)
            num_bytes -= len(data)
    return hasher.hexdigest()


def _identity(line: RecordLine) -> str:
    return digest(str(line.workload_index), str(line.target), line.trace_json)


def _unknown_machine(first_success: str) -> MachineInfo:
    """The machine that measured a database. Its times are comparable with those of the same database only.

    So the fingerprint follows from its first measurement, which stays when a tuning appends more.
    """
    return MachineInfo(
        cpu_model=f"{UNKNOWN} {first_success[:12]}",
        num_cpus=1,
        has_smt=False,
        governor=UNKNOWN,
        os_kernel=UNKNOWN,
        tvm_version=UNKNOWN,
        tvm_ffi_version=UNKNOWN,
        llvm_version=UNKNOWN,
    )


def _adopt_workloads(exchange: Exchange, workloads: WorkloadFile, tally: _Tally) -> dict[int, Workload]:
    """The canonical workloads, by index."""
    checked = {}
    for index, line in workloads.workloads.items():
        try:
            check_module(line.mod_json)
        except TunewrightError as exc:
            tally.refuse_workload(line.line_number, "untrusted module", str(exc))
            continue
        checked[index] = line
    answers = dict(
        zip(checked, exchange.adopt_workloads([line.mod_json for line in checked.values()]), strict=True)
    )
    # The hash differs between platforms. Where that of one line fits, those that do not are of damaged lines.
    is_same_platform = any(
        not isinstance(answer, Refusal) and answer.structural_hash == checked[index].structural_hash
        for index, answer in answers.items()
    )
    adopted = {}
    for index, answer in answers.items():
        line = checked[index]
        if isinstance(answer, Refusal):
            tally.refuse_workload(line.line_number, answer.reason, answer.detail)
        elif is_same_platform and answer.structural_hash != line.structural_hash:
            tally.refuse_workload(line.line_number, "module is not the one of its hash", "")
        else:
            adopted[index] = replace(answer.workload, name=task_name(answer.workload))
    return adopted


def _readable(lines: Iterable[RecordLine | BadLine], tally: _Tally) -> Iterator[RecordLine]:
    for line in lines:
        if isinstance(line, BadLine):
            tally.add_bad(RECORD_FILE, line)
        else:
            tally.num_records += 1
            yield line


def _batches(lines: Iterable[RecordLine]) -> Iterator[list[RecordLine]]:
    """Parts of bounded size, the records of a workload side by side so that its module is parsed once."""
    batch: list[RecordLine] = []
    num_chars = 0
    for line in lines:
        batch.append(line)
        num_chars += len(line.trace_json)
        if len(batch) >= _BATCH_RECORDS or num_chars >= _BATCH_CHARS:
            yield sorted(batch, key=lambda line: line.workload_index)
            batch, num_chars = [], 0
    if batch:
        yield sorted(batch, key=lambda line: line.workload_index)


def _is_acceptable(
    line: RecordLine,
    adopted: Mapping[int, Workload],
    survey: _Survey,
    check: Callable[[str], None],
    tally: _Tally,
) -> bool:
    """Whether a record may go to a child; counts those that may not."""
    if line.workload_index not in adopted:
        tally.refuse(line.line_number, "workload is damaged or refused")
        return False
    if line.is_failure and _identity(line) in survey.succeeded:
        tally.num_repeated += 1
        return False
    try:
        check(line.trace_json)
    except TunewrightError as exc:
        tally.refuse(line.line_number, "untrusted trace", str(exc))
        return False
    return True


def _adopt_traces(
    exchange: Exchange,
    lines: Sequence[RecordLine],
    workloads: WorkloadFile,
    adopted: Mapping[int, Workload],
) -> list[str | Refusal]:
    used = sorted({line.workload_index for line in lines})
    position = {index: position for position, index in enumerate(used)}
    return exchange.adopt_traces(
        [ForeignTrace(position[line.workload_index], line.trace_json, line.args_json) for line in lines],
        [(workloads.workloads[index].mod_json, adopted[index].mod_json) for index in used],
    )


_Content = tuple[str, tuple[float, ...]]
"""What makes two records the same: key of the candidate, samples (none of a failure)."""


class _Store:
    """Appends records as trials of one session per target."""

    def __init__(
        self,
        folder: Path,
        log: TuningLog,
        survey: _Survey,
        adopted: Mapping[int, Workload],
        tally: _Tally,
    ) -> None:
        self._log = log
        self._survey = survey
        self._tally = tally
        self._tasks = {
            (index, target): TuningTask(adopted[index], target)
            for index, target in survey.pairs
            if index in adopted
        }
        self._log.add_tasks(list(self._tasks.values()))
        self._known: set[_Content] = set()
        for key in {task.key for task in self._tasks.values()}:
            self._known.update(map(_content, (trial.record for trial in log.trials(key))))
        self._measured: set[str] = set()
        self._sessions: dict[TargetSpec, str] = {}
        self._num_trials: defaultdict[tuple[str, TaskKey], int] = defaultdict(int)
        for target in dict.fromkeys(target for _, target in self._tasks):
            self._start_session(folder.resolve().name, target)

    @property
    def session_ids(self) -> tuple[str, ...]:
        return tuple(self._sessions.values())

    def add(self, lines: Sequence[RecordLine], traces: Sequence[str | Refusal]) -> None:
        """Store the records whose traces were adopted; the others, and those that are known, are counted."""
        trials = []
        for line, trace in sorted(zip(lines, traces, strict=True), key=lambda pair: pair[0].line_number):
            if isinstance(trace, Refusal):
                self._tally.refuse(line.line_number, trace.reason, trace.detail)
                continue
            task = self._tasks[line.workload_index, line.target]
            candidate = Candidate(task.key, trace, Origin.IMPORT)
            if (candidate.key, line.run_secs) in self._known:
                self._tally.num_known += 1
                self._measured.add(candidate.key)
            elif candidate.key in self._measured:
                self._tally.num_repeated += 1
            else:
                self._measured.add(candidate.key)
                trials.append(self._trial(line, candidate))
        if trials:
            self._log.append([(trial, None) for trial in trials])
        self._tally.num_stored += len(trials)
        self._tally.num_failures += sum(trial.best_secs is None for trial in trials)

    def _start_session(self, name: str, target: TargetSpec) -> None:
        session_id = digest(STRATEGY, self._survey.digest, str(target))[:16]
        weights = {task.key: 1 for (_, other), task in self._tasks.items() if other == target}
        self._log.start_session(
            SessionInfo(
                session_id=session_id,
                model_name=name,
                target=target,
                strategy=STRATEGY,
                seed=0,
                machine=self._survey.machine,
                task_weights=weights,
                created_at=self._survey.written_at,
            )
        )
        self._sessions[target] = session_id
        for key, num_trials in self._log.count_trials(session_id).items():
            self._num_trials[session_id, key] = num_trials

    def _trial(self, line: RecordLine, candidate: Candidate) -> TuningRecord:
        session_id = self._sessions[line.target]
        index = self._num_trials[session_id, candidate.task_key]
        self._num_trials[session_id, candidate.task_key] += 1
        return TuningRecord(
            session_id=session_id,
            trial_index=index,
            candidate=candidate,
            result=_result(line),
            evaluator=EvaluatorConfig(),
            machine=self._survey.machine,
            strategy=STRATEGY,
            seed=0,
            finished_at=self._survey.written_at,
            code_version=tunewright.__version__,
        )


def _content(record: TuningRecord) -> _Content:
    is_timed = isinstance(record.result, MeasureSuccess)
    return record.candidate.key, record.result.run_secs if is_timed else ()


def _result(line: RecordLine) -> MeasureResult:
    if line.is_failure:
        return MeasureFailure(FailureKind.RUN, _NO_TIME, wall_secs=0.0)
    return MeasureSuccess(line.run_secs, build_secs=0.0, wall_secs=0.0, is_verified=False)
