"""The data that flows through Tunewright, all frozen.

`Workload -> TuningTask -> Candidate -> AppliedCandidate -> MeasureInput -> MeasureResult -> TuningRecord`

Times are seconds per call, sizes bytes, work a count of floating-point operations; datetimes are aware
UTC. This module imports no third-party library but numpy, so that workers and tests start fast.
"""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType, Self

import numpy as np
import numpy.typing as npt

from tunewright.core.keys import canonical_json, digest
from tunewright.core.text import shortened

WorkloadKey = NewType("WorkloadKey", str)
TaskKey = NewType("TaskKey", str)
CandidateKey = NewType("CandidateKey", str)

FloatArray = npt.NDArray[np.float32]

MAX_MESSAGE_CHARS = 4096
_STREAMED_BYTES_PER_THREAD = 4 << 20
FEATURE_VERSION = "tvm-per-store-164/1"
RECORD_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape (elements per axis) and numpy-style dtype of one kernel argument."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the dense tensor; sub-byte types count as one byte per element."""
        bits = re.search(r"\d+", self.dtype)  # numpy does not know bfloat16 and the 8-bit floats
        return math.prod(self.shape) * max(1, int(bits.group()) // 8 if bits else 1)


JOINED = "joined_"
"""What the name of a workload begins with whose first operands are parts of one image, read in place."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A computation without hardware: one canonical TIR function.

    `name` is a label for people, never part of a key. `mod_json` is the canonical module (see
    `core.tvm_adapter.canonical`), `args` its parameters in order (inputs, weights, then outputs),
    `flop` the work of one call.
    """

    name: str
    key: WorkloadKey
    mod_json: str = field(repr=False, compare=False)
    args: tuple[TensorSpec, ...]
    flop: float

    @property
    def arg_bytes(self) -> int:
        """Bytes that one call must at least move: all its arguments once."""
        return sum(arg.num_bytes for arg in self.args)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What code is generated for: the whole of it is part of a task's key.

    `num_threads` is both TVM's `num-cores` and the number of threads that run the kernel.
    """

    mcpu: str
    num_threads: int
    mattr: tuple[str, ...] = ()
    kind: str = "llvm"

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ValueError(f"num_threads is {self.num_threads}, expected at least 1")

    def to_dict(self) -> dict[str, object]:
        """The dictionary that `tvm.target.Target` takes."""
        target: dict[str, object] = {"kind": self.kind, "mcpu": self.mcpu, "num-cores": self.num_threads}
        if self.mattr:
            target["mattr"] = sorted(self.mattr)
        return target

    def __str__(self) -> str:
        return canonical_json(self.to_dict())


@dataclass(frozen=True, slots=True)
class TuningTask:
    """A workload on a target; `weight` is the number of calls in one run of the model."""

    workload: Workload
    target: TargetSpec
    weight: int = 1

    @property
    def key(self) -> TaskKey:
        return TaskKey(digest(self.workload.key, str(self.target)))


class Origin(StrEnum):
    """Where a candidate came from; provenance, not part of its key."""

    SEED = "seed"
    RANDOM = "random"
    MUTATION = "mutation"
    CROSSOVER = "crossover"
    DESCENT = "descent"  # a single step from the best
    SAMPLED = "sampled"  # drawn from what an optimiser of numbers makes of the trials
    TRANSFER = "transfer"  # another task's decisions, fit to this one's extents
    REPLAY = "replay"
    IMPORT = "import"  # another program's record


# Drafts of these have parents that lend nothing but a sketch.
ORPHANS = (Origin.RANDOM, Origin.SAMPLED, Origin.TRANSFER)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One concrete point of a task's design space: a replayable schedule trace.

    `trace_json` is canonical JSON of TVM's trace with its postprocessing instructions.
    """

    task_key: TaskKey
    trace_json: str = field(repr=False)
    origin: Origin = field(compare=False)
    parent_key: CandidateKey | None = field(default=None, compare=False)

    @property
    def key(self) -> CandidateKey:
        return CandidateKey(digest(self.task_key, self.trace_json))


@dataclass(frozen=True, slots=True, eq=False)
class AppliedCandidate:
    """A candidate whose trace has been applied: known legal, with what the cost model needs.

    `features`: float32 (n_stores, 164), TVM's per-store features. `program_key` is equal for two traces
    that give the same program.
    """

    candidate: Candidate
    features: FloatArray = field(repr=False)
    program_key: str


DecisionValue = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A point of the design space that nobody has applied: a candidate's sketch with other decisions.

    `decisions`: one for each sampling instruction before the postprocessing, in their order; the factors of
    a tile or a number. Of one of `ORPHANS`, the parent gives nothing but its sketch.
    """

    parent: Candidate
    decisions: tuple[DecisionValue, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class EvaluatorConfig:
    """How a candidate is built, timed and limited.

    A *sample* is the mean of as many calls as last `min_sample_secs`. After one warm-up call and one
    sample, a candidate slower than `prune_ratio` x the incumbent is pruned; the others get samples until
    the 95 % confidence half-width is below `target_relative_ci`, they are unlikely to win, or there are
    `max_samples`.

    `streamed_bytes`: of weights that pass through the CPUs' own caches between two calls of a kernel; so its
    own are read from several places in turn, which hold as much together. 0: from one place. Times taken with
    different ones do not compare.
    """

    min_sample_secs: float = 0.002
    max_samples: int = 10
    prune_ratio: float = 3.0
    target_relative_ci: float = 0.02
    build_timeout_secs: float = 10.0
    run_timeout_secs: float = 15.0
    memory_limit_bytes: int = 8 << 30
    streamed_bytes: int = 0

    @classmethod
    def for_model(cls, weight_bytes: int, *, num_threads: int) -> Self:
        """For the kernels of a model with so many bytes of weights in all.

        Not more than no core's own caches can hold: that would rank candidates in the same way.
        """
        return cls(streamed_bytes=min(weight_bytes, num_threads * _STREAMED_BYTES_PER_THREAD))


@dataclass(frozen=True, slots=True)
class MeasureInput:
    """One candidate to measure.

    `incumbent_secs` is the task's best so far, None where there is none; `incumbent_yardstick_secs` what the
    reference kernel took then.
    """

    task: TuningTask
    candidate: Candidate
    evaluator: EvaluatorConfig
    incumbent_secs: float | None = None
    incumbent_yardstick_secs: float | None = None


class FailureKind(StrEnum):
    """Why a candidate has no time."""

    REPLAY = "replay"  # its trace does not apply to the workload
    INVALID = "invalid"  # a postprocessor or a bounds check refused it
    BUILD = "build"
    BUILD_TIMEOUT = "build_timeout"
    RUN = "run"
    RUN_TIMEOUT = "run_timeout"
    OOM = "oom"
    WRONG_RESULT = "wrong_result"
    WORKER_LOST = "worker_lost"
    PRUNED = "pruned"  # correct as far as known, but much slower than the incumbent


@dataclass(frozen=True, slots=True)
class MeasureSuccess:
    """A timed candidate.

    `run_secs`: shape (n_samples,), mean seconds per call of each sample, finite and positive.
    `is_verified`: its outputs were compared with the unscheduled kernel's on all input sets; only
    verified records may be called best. `steal_ratio` is the share of CPU time that the hypervisor took
    while it was timed, in [0, 1]. `object_key`: digest of the machine code, "" where unknown; a duplicate
    has that of an earlier trial of the task, and its samples, because it was not run again, and is not
    verified: the best is the trial that it repeats.
    `yardstick_secs`: what the reference kernel took around its batch, None where it was not watched;
    `is_noisy`: that moved while the batch was timed.
    """

    run_secs: tuple[float, ...]
    build_secs: float
    wall_secs: float
    is_verified: bool
    steal_ratio: float = 0.0
    object_key: str = ""
    is_duplicate: bool = False
    yardstick_secs: float | None = None
    is_noisy: bool = False

    def __post_init__(self) -> None:
        if not self.run_secs or not all(math.isfinite(s) and s > 0 for s in self.run_secs):
            raise ValueError(f"run_secs is {self.run_secs}, expected one or more finite positive numbers")

    @property
    def median_secs(self) -> float:
        return statistics.median(self.run_secs)


@dataclass(frozen=True, slots=True)
class MeasureFailure:
    """A candidate without a time; `run_secs` holds the censored sample of a PRUNED one, else ().

    `object_key`: digest of the machine code, "" where it was not built. `yardstick_secs`: of a PRUNED one,
    what the reference kernel took around its batch.
    """

    kind: FailureKind
    message: str
    wall_secs: float
    build_secs: float = 0.0
    run_secs: tuple[float, ...] = ()
    object_key: str = ""
    yardstick_secs: float | None = None

    def __post_init__(self) -> None:
        if len(self.message) > MAX_MESSAGE_CHARS:
            object.__setattr__(self, "message", shortened(self.message, MAX_MESSAGE_CHARS))


MeasureResult = MeasureSuccess | MeasureFailure


def known_secs(result: MeasureResult) -> float:
    """Seconds per call as far as known: a pruned candidate's from its one sample, infinite for a failure."""
    match result:
        case MeasureSuccess() as success:
            return success.median_secs
        case MeasureFailure(kind=FailureKind.PRUNED, run_secs=run_secs) if run_secs:
            return statistics.median(run_secs)
        case _:
            return math.inf


# Kernels follow the reference kernel only in part: 0.6 to 0.9 of its relative changes, measured with six
# schedules of a matrix product over 50 batches on a virtual machine whose speed changes twofold.
_FOLLOWED = 0.75
_MAX_SPEED_RATIO = 2.0


def speed_ratio(yardstick_secs: float | None, other_yardstick_secs: float | None) -> float:
    """How much slower kernels run where the yardstick takes the first time than where it takes the other.

    Within [1/2, 2]; 1 where one of them is not known.
    """
    if not yardstick_secs or not other_yardstick_secs:
        return 1.0
    ratio = math.pow(yardstick_secs / other_yardstick_secs, _FOLLOWED)
    return min(_MAX_SPEED_RATIO, max(1 / _MAX_SPEED_RATIO, ratio))


def calibrated_secs(results: Sequence[MeasureResult]) -> list[float]:
    """`known_secs` of one task's results, as if the machine had always been as fast as it usually was.

    For comparing trials of different batches; what is shown to people, or ranks in the log, is measured.
    """
    known = [result.yardstick_secs for result in results if result.yardstick_secs is not None]
    usual_secs = float(np.median(known)) if known else None
    return [known_secs(result) / speed_ratio(result.yardstick_secs, usual_secs) for result in results]


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """The machine that measured. Records of different fingerprints are never pooled as times."""

    cpu_model: str
    num_cpus: int
    has_smt: bool
    governor: str
    os_kernel: str
    tvm_version: str
    tvm_ffi_version: str
    llvm_version: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the CPU model, CPU count and SMT: what makes times comparable."""
        return digest(self.cpu_model, str(self.num_cpus), str(self.has_smt))[:16]


@dataclass(frozen=True, slots=True)
class MachinePeak:
    """The most that a machine has been seen to do in kernels of a target.

    `flop_per_sec` counts a float32 multiply-add as two. `bandwidths`: (bytes of a working set, bytes read and
    written per second in it), the smallest set first.
    """

    machine: MachineInfo
    target: TargetSpec
    flop_per_sec: float
    bandwidths: tuple[tuple[int, float], ...]
    measured_at: datetime

    @classmethod
    def fastest_of(cls, peaks: Sequence[Self]) -> Self:
        """What some measurements of one machine and target, at least one, say together; of the newest's date.

        A peak is what nothing exceeds: one that was taken while the machine was slow counts for little.
        """
        bandwidths: dict[int, float] = {}
        for size, rate in itertools.chain.from_iterable(peak.bandwidths for peak in peaks):
            bandwidths[size] = max(rate, bandwidths.get(size, 0.0))
        return replace(
            max(peaks, key=lambda peak: peak.measured_at),
            flop_per_sec=max(peak.flop_per_sec for peak in peaks),
            bandwidths=tuple(sorted(bandwidths.items())),
        )

    def bytes_per_sec(self, num_bytes: int) -> float:
        """The bandwidth of the largest measured working set that is not larger than this one."""
        fitting = [rate for size, rate in self.bandwidths if size <= num_bytes]
        return fitting[-1] if fitting else self.bandwidths[0][1]

    def floor_secs(self, workload: Workload) -> float:
        """What one call takes at least: all its work at the peak, or all arguments moved once."""
        memory_secs = workload.arg_bytes / self.bytes_per_sec(workload.arg_bytes)
        return max(workload.flop / self.flop_per_sec, memory_secs)


@dataclass(frozen=True, slots=True)
class TuningRecord:
    """A persisted trial: one measured candidate, success or failure.

    `trial_index` is 0-based within (session, task).
    """

    session_id: str
    trial_index: int
    candidate: Candidate
    result: MeasureResult
    evaluator: EvaluatorConfig
    machine: MachineInfo
    strategy: str
    seed: int
    finished_at: datetime
    code_version: str
    model_id: str | None = None
    predicted_score: float | None = None
    schema_version: int = RECORD_SCHEMA_VERSION

    @property
    def task_key(self) -> TaskKey:
        return self.candidate.task_key

    @property
    def best_secs(self) -> float | None:
        """Median seconds per call where the candidate ran to the end, else None."""
        return self.result.median_secs if isinstance(self.result, MeasureSuccess) else None


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """A record with its id in the store and the features that were stored with it, if any."""

    record_id: int
    record: TuningRecord
    features: FloatArray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One tuning session: the same model, target, strategy and seed on one machine.

    `task_weights` maps each task's key to its calls per run of the model, in the order of the tasks.
    """

    session_id: str
    model_name: str
    target: TargetSpec
    strategy: str
    seed: int
    machine: MachineInfo
    task_weights: Mapping[TaskKey, int]
    created_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """`score`: float64 (n_candidates,), higher is better, comparable only inside one task."""

    score: npt.NDArray[np.float64]
    model_id: str


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A trained cost model as it is stored; `model_id` is the SHA-256 of `booster_ubj`."""

    model_id: str
    kind: str
    booster_ubj: bytes = field(repr=False)
    feature_version: str
    n_records: int
    metrics: Mapping[str, float]
    trained_at: datetime
