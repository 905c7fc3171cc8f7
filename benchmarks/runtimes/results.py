"""What one model's race leaves behind, as one JSON file, and the ratios that follow from it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side.results import save_json

OURS = "Tunewright"
ONNX_RUNTIME, PYTORCH, TORCH_COMPILE = "ONNX Runtime", "PyTorch", "torch.compile"
PEERS = (ONNX_RUNTIME, PYTORCH, TORCH_COMPILE)
_NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Timing:
    """A contestant's turns, mean seconds per call, in order of rounds; `agrees`: None for the reference."""

    label: str
    turn_secs: Sequence[float]
    setup_secs: float
    max_rel_error: float | None
    agrees: bool | None
    problem: str

    @property
    def median_secs(self) -> float:
        return float(np.median(self.turn_secs))

    @property
    def is_valid(self) -> bool:
        """Timed, and not known to be wrong."""
        return bool(self.turn_secs) and self.agrees is not False


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One function of our compiled model, timed while the model ran.

    `secs`: of one call, the median over runs. `flop`, `num_bytes` (all arguments once) and `floor_secs` are
    of one call too, None where the function is no tuning task or the machine's peak is not known.
    `peak_flop`: what multiply-adds in registers, timed in turns with it, would have done in its time; None in
    older files.
    """

    function: str
    name: str
    num_calls: int
    secs: float
    source: str
    flop: float | None
    num_bytes: int | None
    floor_secs: float | None
    peak_flop: float | None = None

    @property
    def total_secs(self) -> float:
        return self.secs * self.num_calls


@dataclass(frozen=True, slots=True)
class OpTime:
    """All nodes of one type in ONNX Runtime's profile; `secs` per run, the medians of the nodes added up."""

    op: str
    num_nodes: int
    secs: float


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model at one batch.

    `tune_secs`: the time it was given to be tuned in, 0 where the log was taken as it was; `spent_secs`: the
    time that took, with compiling: less where every task had stalled; None in older files. `model_secs` and
    `between_secs` (of it, outside kernels) were measured with the kernels; `peak_flop_per_sec` is the log's.
    `problem`: why nothing of ours was raced, else empty.
    """

    model: str
    batch: int
    recipe: str
    tune_secs: float
    num_threads: int
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    load_before: Sequence[float]
    finished_at: str
    cpus: Sequence[int] = ()
    timings: Sequence[Timing] = ()
    kernels: Sequence[KernelTime] = ()
    model_secs: float | None = None
    between_secs: float | None = None
    peer_ops: Sequence[OpTime] = ()
    peak_flop_per_sec: float | None = None
    spent_secs: float | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        return f"{self.model}, batch {self.batch}" + (f", {self.tune_secs:g} s" if self.tune_secs else "")

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.model}-b{self.batch}" + (f"-{self.tune_secs:g}s" if self.tune_secs else "")

    def timing(self, label: str) -> Timing | None:
        """None where it did not take part."""
        return next((timing for timing in self.timings if timing.label == label), None)

    @property
    def best_peer(self) -> Timing | None:
        """The fastest of the peers whose outputs are right."""
        valid = [timing for timing in self.timings if timing.label in PEERS and timing.is_valid]
        return min(valid, key=lambda timing: timing.median_secs, default=None)

    @property
    def ratio(self) -> "Ratio | None":
        """Ours to the best peer's; None where either is missing or ours is wrong."""
        ours, peer = self.timing(OURS), self.best_peer
        return paired_ratio(ours, peer) if ours and peer and ours.is_valid else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median over rounds of ours / theirs, with its 95 % bootstrap interval; below 1 we are faster."""

    median: float
    low: float
    high: float


def paired_ratio(ours: Timing, theirs: Timing) -> Ratio:
    """Round by round, as a machine's speed drifts."""
    ratios = np.array(ours.turn_secs) / np.array(theirs.turn_secs)
    resampled = np.random.default_rng(0).choice(ratios, (_NUM_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def longest_tuned(runs: Iterable[ModelRun]) -> list[ModelRun]:
    """One run of each model and batch, in the order of their first ones."""
    longest: dict[tuple[str, int], ModelRun] = {}
    for run in runs:
        known = longest.setdefault((run.model, run.batch), run)
        if run.tune_secs > known.tune_secs:
            longest[run.model, run.batch] = run
    return list(longest.values())


def save_run(run: ModelRun, folder: Path) -> None:
    save_json(asdict(run), folder / "raw" / f"{run.stem}.json")


def load_runs(folder: Path) -> list[ModelRun]:
    """Everything in a folder that `save_run` wrote, by batch, name and time of tuning."""
    runs = [_load(path) for path in (folder / "raw").glob("*.json")]
    return sorted(runs, key=lambda run: (run.batch, run.model, run.tune_secs))


def _load(path: Path) -> ModelRun:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["timings"] = [Timing(**timing) for timing in fields["timings"]]
    fields["kernels"] = [KernelTime(**kernel) for kernel in fields["kernels"]]
    fields["peer_ops"] = [OpTime(**op) for op in fields["peer_ops"]]
    return ModelRun(**fields)
