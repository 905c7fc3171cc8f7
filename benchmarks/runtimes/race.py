"""One model: made, tuned, compiled, raced against its peers, and taken apart.

What several times of tuning made of it is in one race, so that a machine's drift is not taken for a gain.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtimes import profiles
from runtimes.results import ONNX_RUNTIME, OURS, PYTORCH, TORCH_COMPILE, ModelRun, Timing, save_run
from runtimes.zoo import ModelFiles, ZooError, ZooModel, input_specs, model_files
from tunewright.core.errors import TunewrightError
from tunewright.scheduler.model_bench import BenchOptions, BenchReport, Contestant, bench_models

_DISTRIBUTIONS = ("tunewright", "apache-tvm", "onnxruntime", "torch", "transformers", "numpy")
_RUNNERS = "runtimes.torch_contestants"
_SETUP_TIMEOUT_SECS = 900.0  # inductor compiles some hundred C++ files, one after the other


@dataclass(frozen=True, slots=True)
class RaceSettings:
    """`log`: URL of the tuning log. `patience`: of `tunewright tune`, None for its default."""

    out: Path
    cache: Path
    log: str
    num_threads: int
    num_rounds: int = 20
    with_torch: bool = True
    patience: int | None = None

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(os.sched_getaffinity(0)))[: self.num_threads]


class CommandFailed(RuntimeError):
    """A tunewright command did not work; the message is its last line."""


def race(
    model: ZooModel, *, batch: int, tune_secs: Sequence[float], settings: RaceSettings
) -> list[ModelRun]:
    """Everything about one model; what fails is told in the results, which are saved in any case.

    Args:
        tune_secs: seconds of tuning in all after which it is compiled and raced, ascending: each goes on
            where the one before has stopped. 0 takes the log as it is.

    Returns:
        One result for each of `tune_secs`, all from one race.
    """
    run = ModelRun(
        model=model.name,
        batch=batch,
        recipe=model.recipe,
        tune_secs=0.0,
        num_threads=settings.num_threads,
        machine=_machine(),
        versions=_versions(),
        load_before=os.getloadavg(),
        finished_at="",
        cpus=settings.cpus,
    )
    runs = [replace(run, tune_secs=secs) for secs in tune_secs]
    try:
        files = model_files(model, batch=batch, cache=settings.cache)
        runs = _tuned(runs, files.onnx, settings)
        runs = _raced(runs, files, settings)
        runs = _taken_apart(runs, files, settings)
    except (ZooError, CommandFailed, TunewrightError, RuntimeError, subprocess.TimeoutExpired) as exc:
        runs = [replace(run, problem=run.problem or f"{type(exc).__name__}: {exc}") for run in runs]
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    runs = [replace(run, finished_at=finished_at) for run in runs]
    for run in runs:
        save_run(run, settings.out)
    return runs


def _tuned(runs: Sequence[ModelRun], model: Path, settings: RaceSettings) -> list[ModelRun]:
    """Tune and compile for one after the other; a failure is its `problem`."""
    options = ["--threads", str(settings.num_threads), "--log", settings.log]
    patience = [] if settings.patience is None else ["--patience", str(settings.patience)]
    _tunewright(settings, runs[0].stem, "machine", "peak", "--again", *options)
    tuned: list[ModelRun] = []
    spent_secs = 0.0
    for run in runs:
        command, budget = "compile", []
        if run.tune_secs:
            # The same session, which goes on until it has had this time in all.
            command, budget = "tune", ["--time-budget", f"{run.tune_secs:g}s", *patience]
        started = time.monotonic()
        bundle = _bundle(run, settings)
        try:
            _tunewright(settings, run.stem, command, str(model), *options, *budget, "-o", str(bundle))
        except CommandFailed as exc:  # what the peers do with it is worth knowing all the same
            run = replace(run, problem=str(exc))
        if budget:
            spent_secs += time.monotonic() - started
        tuned.append(replace(run, spent_secs=spent_secs))
    return tuned


def _raced(runs: Sequence[ModelRun], files: ModelFiles, settings: RaceSettings) -> list[ModelRun]:
    options = BenchOptions(
        settings.num_threads, settings.num_rounds, setup_timeout_secs=_SETUP_TIMEOUT_SECS, cpus=settings.cpus
    )
    ours = {run.stem: _bundle(run, settings) for run in runs if not run.problem}
    report = bench_models(_contestants(files, ours, settings), options, inputs=input_specs(files.onnx))
    timings = _timings(report)
    peers = [timing for timing in timings if timing.label not in ours]
    own = {timing.label: replace(timing, label=OURS) for timing in timings if timing.label in ours}
    return [replace(run, timings=[own[run.stem], *peers] if run.stem in own else peers) for run in runs]


def _taken_apart(runs: Sequence[ModelRun], files: ModelFiles, settings: RaceSettings) -> list[ModelRun]:
    """Ours kernel by kernel, ONNX Runtime by type of operator."""
    theirs: dict[str, Any] = {}
    taken: list[ModelRun] = []
    for run in runs:
        if not run.problem:
            bundle = _bundle(run, settings)
            ours = _profile("tunewright", bundle, files, settings)
            theirs = theirs or _profile("onnxruntime", bundle, files, settings)
            run = replace(
                run,
                kernels=profiles.to_kernels(ours),
                model_secs=ours["model_secs"],
                between_secs=ours["between_secs"],
                peak_flop_per_sec=ours["peak_flop_per_sec"],
                peer_ops=profiles.to_ops(theirs),
            )
        taken.append(run)
    return taken


def _profile(kind: str, bundle: Path, files: ModelFiles, settings: RaceSettings) -> dict[str, Any]:
    return profiles.profile(kind, bundle, files.onnx, cpus=settings.cpus, log=settings.log)


def _bundle(run: ModelRun, settings: RaceSettings) -> Path:
    return settings.out / "compiled" / run.stem


def _contestants(files: ModelFiles, ours: dict[str, Path], settings: RaceSettings) -> list[Contestant]:
    found = [Contestant(label, bundle) for label, bundle in ours.items()]
    found.append(Contestant(ONNX_RUNTIME, files.onnx))
    if files.recipe and settings.with_torch:
        found.append(Contestant(PYTORCH, files.recipe, runner=f"{_RUNNERS}:make_eager"))
        found.append(Contestant(TORCH_COMPILE, files.recipe, runner=f"{_RUNNERS}:make_compiled"))
    return found


def _timings(report: BenchReport) -> list[Timing]:
    return [
        Timing(r.label, r.turn_secs, r.setup_secs, r.max_rel_error, r.agrees, r.problem)
        for r in report.results
    ]


def _tunewright(settings: RaceSettings, stem: str, *args: str) -> None:
    """Run a command; what it says goes to a file of the model."""
    path = settings.out / "output" / f"{stem}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tunewright", *args]
    with path.open("a", encoding="utf-8") as output:
        print("$ tunewright", *args, file=output, flush=True)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        raise CommandFailed(f"tunewright {args[0]}: {last}")


def _machine() -> dict[str, object]:
    from tunewright.core.tvm_adapter.target import machine_info

    machine = machine_info()
    return {**asdict(machine), "fingerprint": machine.fingerprint}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
