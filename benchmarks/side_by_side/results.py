"""What one run of one tuner leaves behind, as one JSON file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Kinds of `Trial.failure` that say nothing against the candidate: it was too slow to be worth more work.
NOT_FAILED = ("", "unverified", "pruned")


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured candidate.

    `at_secs`: seconds from the start of tuning until its batch's results were known. `secs`: the tuner's own
    time per call where there is one. `failure`: why it cannot be the best, "" if it can.
    """

    at_secs: float
    secs: float | None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuner did with a task. Its clock starts when it does, with TVM imported and the task made.

    `best_trace`: its final choice, None where no candidate worked; `best_secs` by its own measurement.
    `split`: wall seconds by activity: build, run, search (predictions included), model (training), other.
    """

    trials: Sequence[Trial]
    wall_secs: float
    split: Mapping[str, float]
    best_trace: str | None
    best_secs: float | None
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UnitKey:
    """One run: a tuner on a task with a seed."""

    task: str
    seed: int
    tuner: str

    def __str__(self) -> str:
        return f"{self.task}.{self.seed}.{self.tuner}"


@dataclass(frozen=True, slots=True)
class UnitResult:
    """A finished run. `import_secs` came before the clock started."""

    key: UnitKey
    num_trials_asked: int
    num_threads: int
    tuned: Tuned
    import_secs: float
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    load_before: Sequence[float]
    load_after: Sequence[float]
    finished_at: str

    @property
    def has_run_out(self) -> bool:
        """Whether a tuner of ours measured all that its space holds, less than it was asked for."""
        reason = str(self.tuned.extra.get("reason", ""))
        return "exhausted" in reason and len(self.tuned.trials) < self.num_trials_asked

    @property
    def secs_for_all_trials(self) -> float:
        """Wall seconds of the trials asked for, or of all there are; extrapolated where it was cut short."""
        if self.has_run_out:
            return self.tuned.wall_secs
        return self.tuned.wall_secs * self.num_trials_asked / max(1, len(self.tuned.trials))

    @property
    def overhead_ratio(self) -> float:
        """Share of the wall time outside building and running."""
        split = self.tuned.split
        return 1.0 - (split["build"] + split["run"]) / self.tuned.wall_secs


def save_json(value: object, path: Path) -> None:
    """Write whole or not at all: what exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value), encoding="utf-8")
    os.replace(draft, path)


def save_unit(result: UnitResult, path: Path) -> None:
    save_json(asdict(result), path)


def load_unit(path: Path) -> UnitResult:
    """Inverse of `save_unit`."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    tuned = fields["tuned"]
    trials = [Trial(**trial) for trial in tuned["trials"]]
    return UnitResult(
        **{**fields, "key": UnitKey(**fields["key"]), "tuned": Tuned(**{**tuned, "trials": trials})}
    )
