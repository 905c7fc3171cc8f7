"""Compile a model: choose a schedule per task, put the kernels together, build, write one directory."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import tunewright
from tunewright.core.errors import ConfigError, CoverageError, EnvironmentProblem
from tunewright.core.types import TaskKey
from tunewright.scheduler import build_child, cpu_features, manifest
from tunewright.scheduler.importer import ImportedModel
from tunewright.scheduler.kernel_choice import KernelChoice, Replayer, Variant, choose_kernels
from tunewright.scheduler.manifest import KernelEntry, KernelSource, Manifest
from tunewright.scheduler.partition import Partition, partition, predicted_secs
from tunewright.scheduler.schedule_lock import ScheduleLock, locked_kernels
from tunewright.scheduler.schedule_log import Match, ScheduleLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How to compile a model.

    `is_strict`: a task without a usable record is an error. `match`: whose records may be used, None:
    everybody's. `lock`: takes exactly its schedules, whatever else is known. `num_jobs`: kernels compiled at
    once.
    """

    variant: Variant = Variant.TUNED
    is_strict: bool = False
    match: Match | None = None
    lock: ScheduleLock | None = None
    num_jobs: int | None = None


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What was compiled, and where the kernels came from.

    `coverage_ratio`: share of the predicted time whose kernels come from the log, in [0, 1].
    """

    folder: Path
    choices: tuple[KernelChoice, ...]
    coverage_ratio: float
    choose_secs: float
    build_secs: float

    @property
    def num_from_log(self) -> int:
        return sum(choice.source is KernelSource.RECORD for choice in self.choices)

    @property
    def misses(self) -> tuple[KernelChoice, ...]:
        """Choices that do not come from the log."""
        return tuple(choice for choice in self.choices if choice.source is not KernelSource.RECORD)


def compile_model(
    model: ImportedModel,
    folder: Path,
    *,
    log: ScheduleLog | None,
    replay: Replayer,
    options: CompileOptions | None = None,
    tasks: Partition | None = None,
) -> CompileReport:
    """Compile a model into a directory that `bundle.load` runs; an earlier one there is replaced.

    Args:
        tasks: the model's partition, where the caller has it already.

    Raises:
        CoverageError: strict, and a task has no usable record; or the lock cannot be met.
        ConfigError: `folder` exists and is no compiled model.
        EnvironmentProblem: the compiler or the linker failed.
    """
    options = options or CompileOptions()
    check_destination(folder)
    tasks = tasks or partition(model)
    started = perf_counter()
    if options.lock is not None:
        choices = tuple(locked_kernels(tasks.tasks, options.lock, log=log, replay=replay))
    else:
        choices = tuple(
            choose_kernels(tasks.tasks, variant=options.variant, log=log, replay=replay, match=options.match)
        )
    if options.is_strict:
        _check_coverage(choices)
    chosen = perf_counter()
    with _replacing(folder) as scratch:
        _write_bundle(model, tasks, choices, scratch, num_jobs=options.num_jobs or _num_cpus())
    return CompileReport(
        folder=folder,
        choices=choices,
        coverage_ratio=sum(tasks.share(c.task) for c in choices if c.source is KernelSource.RECORD),
        choose_secs=chosen - started,
        build_secs=perf_counter() - chosen,
    )


def check_destination(folder: Path) -> None:
    """Raises: ConfigError: `folder` holds something that must not be replaced."""
    is_ours = (folder / manifest.MANIFEST_FILE).is_file()
    if folder.exists() and not is_ours and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is no compiled model; choose another directory with -o")


def _check_coverage(choices: Sequence[KernelChoice]) -> None:
    misses = [choice for choice in choices if choice.source is not KernelSource.RECORD]
    if misses:
        lines = "".join(f"\n  {choice.task.workload.name}: {choice.miss}" for choice in misses)
        raise CoverageError(
            f"{len(misses)} of {len(choices)} tasks have no usable record; tune the model first:{lines}"
        )


def _write_bundle(
    model: ImportedModel,
    tasks: Partition,
    choices: Sequence[KernelChoice],
    folder: Path,
    *,
    num_jobs: int,
) -> None:
    from tunewright.core.tvm_adapter import graph, graph_build, graph_runtime, target

    by_key = {choice.task.key: choice for choice in choices}
    scheduled = {
        function: mod_json
        for function, key in tasks.functions.items()
        if (mod_json := by_key[key].scheduled_json) is not None
    }
    stitched = graph.graph_to_json(graph.stitch(model.graph, scheduled))
    (folder / build_child.MODULE_FILE).write_text(stitched, encoding="utf-8")
    job = {"target": asdict(model.target), "num_jobs": num_jobs}
    (folder / build_child.JOB_FILE).write_text(json.dumps(job), encoding="utf-8")
    _build(folder)
    graph_runtime.save_params(model.params, folder / manifest.PARAMS_FILE)
    Manifest(
        model_name=model.name,
        inputs=model.inputs,
        outputs=model.outputs,
        num_params=len(model.params),
        target=model.target,
        cpu_features=cpu_features.required_features(graph_build.cpu_feature_names(model.target)),
        machine=target.machine_info(),
        tunewright_version=tunewright.__version__,
        kernels=tuple(_entries(model, tasks, by_key)),
    ).write(folder)
    kept = {manifest.MANIFEST_FILE, manifest.LIBRARY_FILE, manifest.PARAMS_FILE}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def _entries(
    model: ImportedModel, tasks: Partition, choices: dict[TaskKey, KernelChoice]
) -> Iterator[KernelEntry]:
    from tunewright.core.tvm_adapter.graph import call_sites

    for site in call_sites(model.graph):
        key = tasks.functions.get(site.function)
        if key is None:
            yield KernelEntry(site.function, site.label, None, site.num_calls, KernelSource.UNSCHEDULED)
            continue
        choice = choices[key]
        yield KernelEntry(
            function=site.function,
            name=choice.task.workload.name,
            task_key=key,
            num_calls=site.num_calls,
            source=choice.source,
            record_id=choice.record.trial.record_id if choice.record else None,
            candidate_key=choice.record.trial.record.candidate.key if choice.record else None,
            measured_secs=choice.record.secs if choice.record else None,
            predicted_secs=predicted_secs(choice.task),
        )


def _build(folder: Path) -> None:
    """Run the build in a child: a crash of the compiler becomes an error message."""
    command = [sys.executable, "-m", build_child.__name__, str(folder)]
    # A session of its own, so that an interrupt ends the child's children too.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, noise = child.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if child.returncode == 0:
        return
    error_file = folder / build_child.ERROR_FILE
    if error_file.exists():
        _, _, reason = error_file.read_text(encoding="utf-8").partition("\n")
    elif child.returncode < 0:
        reason = f"the compiler was ended by {signal.Signals(-child.returncode).name}"
    else:
        reason = noise.decode(errors="replace").strip()[-500:]
    raise EnvironmentProblem(f"the model cannot be compiled: {reason}")


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A scratch directory that takes the place of `folder` if the block ends well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as exc:
        raise ConfigError(
            f"{folder} cannot be written ({exc.strerror}); give another directory with -o"
        ) from exc
    try:
        yield scratch
        scratch.chmod(0o755)
        old = scratch.with_name(scratch.name + "-old")
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0))
