"""What `tunewright db` shows of tasks, records, sessions and trials, column by column."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tunewright.cli.output import Cell, Column, format_ms
from tunewright.core.keys import canonical_json, short_key
from tunewright.core.types import MachineInfo, RecordedTrial, TargetSpec, TuningTask
from tunewright.explore import trial_facts

if TYPE_CHECKING:
    from tunewright.tuning_logs import Race, RankedTrial, SessionSummary, TaskSummary, Verification


@dataclass(frozen=True, slots=True)
class BestRow:
    """A ranked record with its task; `rank` is 1 for the fastest."""

    task: "TaskSummary"
    rank: int
    ranked: "RankedTrial"

    @property
    def gflops(self) -> float:
        return self.task.flop / self.ranked.secs / 1e9


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that the log knows about one record."""

    trial: RecordedTrial
    task: TuningTask
    races: "list[Race]"
    verifications: "list[Verification]"
    unusable_reason: str | None


def _target(target: TargetSpec) -> str:
    return f"{target.mcpu}/{target.num_threads}"


def _yes_no(fact: bool) -> str:
    return "yes" if fact else "no"


def _gflops(gflops: float | None) -> str | None:
    return None if gflops is None else f"{gflops:.1f}"


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _samples(run_secs: tuple[float, ...]) -> str | None:
    return ", ".join(f"{secs * 1e3:#.4g}" for secs in run_secs) + " ms" if run_secs else None


def _yardstick_secs(trial: RecordedTrial) -> float | None:
    result = trial_facts.success(trial)
    return None if result is None else result.yardstick_secs


def _machine(trial: RecordedTrial) -> str:
    machine = trial.record.machine
    return f"{machine.cpu_model}, {machine.num_cpus} CPUs, {machine.governor}, Linux {machine.os_kernel}"


def _versions(trial: RecordedTrial) -> str:
    return f"Tunewright {trial.record.code_version}, {_software(trial.record.machine)}"


def _software(machine: MachineInfo) -> str:
    return f"TVM {machine.tvm_version}, tvm-ffi {machine.tvm_ffi_version}, LLVM {machine.llvm_version}"


def _races(details: Details) -> Cell:
    return [
        {"raced_at": race.raced_at.isoformat(), "run_secs": list(race.run_secs)} for race in details.races
    ]


def _races_text(details: Details) -> str | None:
    return "\n".join(f"{_utc(race.raced_at)}: {_samples(race.run_secs)}" for race in details.races) or None


def _verifications(details: Details) -> Cell:
    return [
        {
            "verified_at": one.verified_at.isoformat(),
            "result": _verdict(one),
            "message": one.message,
            "machine": asdict(one.machine),
        }
        for one in details.verifications
    ]


def _verifications_text(details: Details) -> str | None:
    lines = [
        f"{_utc(one.verified_at)}: {_verdict(one)} with {_software(one.machine)}"
        for one in details.verifications
    ]
    return "\n".join(lines) or None


def _verdict(verification: "Verification") -> str:
    kind = verification.failure_kind
    return "right" if kind is None else kind.value


TASK_COLUMNS: "list[Column[TaskSummary]]" = [
    Column("task_key", lambda s: s.task_key, title="task", text=lambda s: short_key(s.task_key)),
    Column("workload_key", lambda s: s.workload_key),
    Column("workload", lambda s: s.name, title="workload", shrinks=True),
    Column("args", lambda s: trial_facts.args_text(s.args)),
    Column("target", lambda s: str(s.target), title="CPU/threads", text=lambda s: _target(s.target)),
    Column("flop", lambda s: s.flop),
    Column("num_trials", lambda s: s.num_trials, title="trials", is_number=True),
    Column("num_failed", lambda s: s.num_failed, title="failed", is_number=True),
    Column("num_pruned", lambda s: s.num_pruned),
    Column("num_usable", lambda s: s.num_usable),
    Column(
        "best_secs",
        lambda s: s.best_secs,
        title="best ms",
        text=lambda s: format_ms(s.best_secs),
        is_number=True,
    ),
    Column(
        "best_gflops",
        lambda s: s.best_gflops,
        title="GFLOP/s",
        text=lambda s: _gflops(s.best_gflops),
        is_number=True,
    ),
]

BEST_COLUMNS: list[Column[BestRow]] = [
    Column("record_id", lambda r: r.ranked.trial.record_id, title="record", is_number=True),
    Column("task_key", lambda r: r.task.task_key, title="task", text=lambda r: short_key(r.task.task_key)),
    Column("workload_key", lambda r: r.task.workload_key),
    Column("workload", lambda r: r.task.name, title="workload", shrinks=True),
    Column(
        "target", lambda r: str(r.task.target), title="CPU/threads", text=lambda r: _target(r.task.target)
    ),
    Column("rank", lambda r: r.rank),
    Column(
        "best_secs",
        lambda r: r.ranked.secs,
        title="ms",
        text=lambda r: format_ms(r.ranked.secs),
        is_number=True,
    ),
    Column(
        "best_gflops", lambda r: r.gflops, title="GFLOP/s", text=lambda r: _gflops(r.gflops), is_number=True
    ),
    Column("is_raced", lambda r: r.ranked.is_raced, title="raced", text=lambda r: _yes_no(r.ranked.is_raced)),
    Column("machine_fingerprint", lambda r: r.ranked.trial.record.machine.fingerprint),
    Column("session_id", lambda r: r.ranked.trial.record.session_id),
    Column("finished_at", lambda r: r.ranked.trial.record.finished_at.isoformat()),
]

SESSION_COLUMNS: "list[Column[SessionSummary]]" = [
    Column("session_id", lambda s: s.session_id, title="session", text=lambda s: s.session_id[:12]),
    Column("model", lambda s: s.model_name, title="model", shrinks=True),
    Column("target", lambda s: str(s.target)),
    Column("strategy", lambda s: s.strategy, title="strategy"),
    Column("seed", lambda s: s.seed),
    Column("machine_fingerprint", lambda s: s.machine_fingerprint),
    Column(
        "created_at",
        lambda s: s.created_at.isoformat(),
        title="created (UTC)",
        text=lambda s: f"{s.created_at:%Y-%m-%d %H:%M}",
    ),
    Column("num_tasks", lambda s: s.num_tasks, title="tasks", is_number=True),
    Column("num_trials", lambda s: s.num_trials, title="trials", is_number=True),
    Column(
        "elapsed_secs",
        lambda s: s.elapsed_secs,
        title="secs",
        text=lambda s: f"{s.elapsed_secs:.0f}",
        is_number=True,
    ),
]

TRIAL_COLUMNS: list[Column[RecordedTrial]] = [
    Column("record_id", lambda t: t.record_id, title="record", is_number=True),
    Column("session_id", lambda t: t.record.session_id),
    Column("trial_index", lambda t: t.record.trial_index, title="trial", is_number=True),
    Column("status", trial_facts.status, title="status"),
    Column(
        "is_verified",
        trial_facts.is_verified,
        title="verified",
        text=lambda t: _yes_no(trial_facts.is_verified(t)),
    ),
    Column(
        "median_secs",
        lambda t: t.record.best_secs,
        title="median ms",
        text=lambda t: format_ms(t.record.best_secs),
        is_number=True,
    ),
    Column("num_samples", lambda t: len(t.record.result.run_secs)),
    Column("build_secs", lambda t: t.record.result.build_secs),
    Column("wall_secs", lambda t: t.record.result.wall_secs),
    Column("strategy", lambda t: t.record.strategy),
    Column("origin", lambda t: t.record.candidate.origin.value, title="origin"),
    Column("predicted_score", lambda t: t.record.predicted_score),
    Column("model_id", lambda t: t.record.model_id),
    Column("candidate_key", lambda t: t.record.candidate.key),
    Column("parent_key", lambda t: t.record.candidate.parent_key),
    Column("machine_fingerprint", lambda t: t.record.machine.fingerprint),
    Column("finished_at", lambda t: t.record.finished_at.isoformat()),
    Column("message", trial_facts.message, title="message", shrinks=True),
]

DETAIL_COLUMNS: list[Column[Details]] = [
    Column("record_id", lambda d: d.trial.record_id, title="record"),
    Column("task_key", lambda d: d.task.key, title="task"),
    Column("workload_key", lambda d: d.task.workload.key),
    Column("workload", lambda d: d.task.workload.name, title="workload"),
    Column("args", lambda d: trial_facts.args_text(d.task.workload.args), title="arguments"),
    Column(
        "flop",
        lambda d: d.task.workload.flop,
        title="work",
        text=lambda d: f"{d.task.workload.flop / 1e6:.4g} MFLOP per call",
    ),
    Column("target", lambda d: str(d.task.target), title="target"),
    Column("status", lambda d: trial_facts.status(d.trial), title="status"),
    Column("message", lambda d: trial_facts.message(d.trial), title="message"),
    Column(
        "is_verified",
        lambda d: trial_facts.is_verified(d.trial),
        title="verified",
        text=lambda d: _yes_no(trial_facts.is_verified(d.trial)),
    ),
    Column("unusable_reason", lambda d: d.unusable_reason, title="quarantine"),
    Column(
        "median_secs",
        lambda d: d.trial.record.best_secs,
        title="median ms",
        text=lambda d: format_ms(d.trial.record.best_secs),
    ),
    Column(
        "run_secs",
        lambda d: list(d.trial.record.result.run_secs),
        title="samples",
        text=lambda d: _samples(d.trial.record.result.run_secs),
    ),
    Column("races", _races, title="races (UTC)", text=_races_text),
    Column("verifications", _verifications, title="verified (UTC)", text=_verifications_text),
    Column("build_secs", lambda d: d.trial.record.result.build_secs, title="build secs"),
    Column("wall_secs", lambda d: d.trial.record.result.wall_secs, title="wall secs"),
    Column("steal_ratio", lambda d: trial_facts.steal_ratio(d.trial), title="CPU steal"),
    Column(
        "yardstick_secs",
        lambda d: _yardstick_secs(d.trial),
        title="yardstick ms",
        text=lambda d: format_ms(_yardstick_secs(d.trial)),
    ),
    Column(
        "is_noisy",
        lambda d: trial_facts.is_noisy(d.trial),
        title="noisy",
        text=lambda d: _yes_no(trial_facts.is_noisy(d.trial)),
    ),
    Column("object_key", lambda d: d.trial.record.result.object_key or None, title="machine code"),
    Column(
        "is_duplicate",
        lambda d: trial_facts.is_duplicate(d.trial),
        title="duplicate",
        text=lambda d: _yes_no(trial_facts.is_duplicate(d.trial)),
    ),
    Column("session_id", lambda d: d.trial.record.session_id, title="session"),
    Column("trial_index", lambda d: d.trial.record.trial_index, title="trial"),
    Column("strategy", lambda d: d.trial.record.strategy, title="strategy"),
    Column("seed", lambda d: d.trial.record.seed, title="seed"),
    Column("origin", lambda d: d.trial.record.candidate.origin.value, title="origin"),
    Column("candidate_key", lambda d: d.trial.record.candidate.key, title="candidate"),
    Column("parent_key", lambda d: d.trial.record.candidate.parent_key, title="parent"),
    Column("model_id", lambda d: d.trial.record.model_id, title="cost model"),
    Column("predicted_score", lambda d: d.trial.record.predicted_score, title="score"),
    Column(
        "finished_at",
        lambda d: d.trial.record.finished_at.isoformat(),
        title="finished (UTC)",
        text=lambda d: _utc(d.trial.record.finished_at),
    ),
    Column("machine_fingerprint", lambda d: d.trial.record.machine.fingerprint, title="fingerprint"),
    Column(
        "machine", lambda d: asdict(d.trial.record.machine), title="machine", text=lambda d: _machine(d.trial)
    ),
    Column(
        "code_version",
        lambda d: d.trial.record.code_version,
        title="versions",
        text=lambda d: _versions(d.trial),
    ),
    Column("schema_version", lambda d: d.trial.record.schema_version),
    Column(
        "evaluator",
        lambda d: asdict(d.trial.record.evaluator),
        title="evaluator",
        text=lambda d: canonical_json(asdict(d.trial.record.evaluator)),
    ),
    Column(
        "features_shape",
        lambda d: None if d.trial.features is None else list(d.trial.features.shape),
        title="features",
        text=lambda d: None if d.trial.features is None else "×".join(map(str, d.trial.features.shape)),
    ),
    Column("trace_json", lambda d: d.trial.record.candidate.trace_json),
]
