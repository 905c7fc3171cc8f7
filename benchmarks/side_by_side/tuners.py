"""The tuners by name, and how one run of each is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from side_by_side.results import Tuned

OURS, OURS_WITH_LOG = "tunewright", "tunewright-log"
SHIPPED, PATCHED = "tvm", "tvm-patched"
PEERS = (OURS, SHIPPED, PATCHED, OURS_WITH_LOG)

LABELS = {
    OURS: "Tunewright",
    OURS_WITH_LOG: "Tunewright, log of other tasks",
    SHIPPED: "TVM as shipped",
    PATCHED: "TVM patched",
}


def needs_log(tuner: str) -> bool:
    """Whether it starts with a log of other tasks."""
    return tuner == OURS_WITH_LOG or tuner.endswith("+log")


@dataclass(frozen=True, slots=True)
class Job:
    """What a run's process is told; `base_logs` are merged into the log that the tuner starts with.

    `tuner`: one of PEERS, or a variant of ours. `limit_secs`: when a peer's session is cut short.
    """

    tuner: str
    task_file: Path
    log_file: Path
    base_logs: Sequence[Path]
    num_trials: int
    limit_secs: float
    seed: int


def import_libraries(tuner: str) -> None:
    """Load what the tuner needs, before its clock starts."""
    if tuner in (SHIPPED, PATCHED):
        from side_by_side import metaschedule

        return metaschedule.import_patched() if tuner == PATCHED else metaschedule.import_shipped()
    from side_by_side import ours

    ours.import_ours()


def run(job: Job) -> Tuned:
    """Run a tuner in this process."""
    from side_by_side.tasks import load_task

    task = load_task(job.task_file)
    if job.tuner in (SHIPPED, PATCHED):
        from side_by_side import metaschedule

        return metaschedule.tune(
            task,
            num_trials=job.num_trials,
            seed=job.seed,
            is_patched=job.tuner == PATCHED,
            limit_secs=job.limit_secs,
        )
    from side_by_side import ours
    from side_by_side.variants import change_of, full_setup

    job.log_file.parent.mkdir(parents=True, exist_ok=True)
    for stale in job.log_file.parent.glob(job.log_file.name + "*"):
        stale.unlink()
    if job.base_logs:
        ours.merge_logs(job.base_logs, job.log_file)
    setup = full_setup(task.target, num_trials=job.num_trials, seed=job.seed)
    if job.tuner not in PEERS:
        setup = change_of(job.tuner)(setup)
    return ours.tune(task, setup, job.log_file)
