"""What was measured, as it is stored: raw values, no summaries."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ingest:
    """Batches of one size, appended by one writer to a log of `num_stored` trials; `append_secs` of each."""

    num_stored: int
    batch_size: int
    with_features: bool
    append_secs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Filling:
    """Batches of 1,024 on the way from one size of the log to the next: seconds in `append` alone."""

    num_stored: int
    num_trials: int
    append_secs: float


@dataclass(frozen=True, slots=True)
class Producers:
    """Processes that appended to one log at the same time, each `num_rows` in batches.

    `secs`: from the common start until the last had finished. `append_secs`: of each batch of each process.
    `num_missing`, `num_doubled`: trials that are not there, or more than once, afterwards.
    """

    num_stored: int
    num_processes: int
    num_rows: int
    batch_size: int
    secs: float
    append_secs: tuple[float, ...]
    num_missing: int
    num_doubled: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lookups:
    """Seconds of each lookup of the best trial, in a fresh process, at one size of the log.

    `num_wrong`: answers that are not the best one that was written.
    """

    num_stored: int
    num_tasks: int
    tasks_per_model: int
    one_secs: tuple[float, ...]
    model_secs: tuple[float, ...]
    num_wrong: int


@dataclass(frozen=True, slots=True)
class Opening:
    """Seconds to open the log in a fresh process: the first time, with what is loaded then, and again."""

    num_stored: int
    first_secs: float
    again_secs: tuple[float, ...]
    read_only_secs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """On disk, after closing, with the tasks and sessions."""

    num_stored: int
    num_bytes: int


@dataclass(slots=True)
class Results:
    """One run of the benchmark. `feature_share`: of the trials that have features, about as in the source."""

    machine: Mapping[str, object]
    database: str
    source: str
    seed: int
    num_tasks: int
    feature_share: float
    started_at: str
    load_before: tuple[float, ...]
    cpus: tuple[int, ...]
    versions: Mapping[str, str]
    ingests: list[Ingest] = field(default_factory=list)
    fillings: list[Filling] = field(default_factory=list)
    producers: list[Producers] = field(default_factory=list)
    lookups: list[Lookups] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
