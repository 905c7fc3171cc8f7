"""One model after the other: made, tuned, compiled, raced against its peers, and taken apart."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

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
    """`log`: URL of the tuning log. `tune_secs`: tune each model for this long first; 0: not at all."""

    out: Path
    cache: Path
    log: str
    num_threads: int
    tune_secs: float = 0.0
    num_rounds: int = 20
    with_torch: bool = True

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(sorted(os.sched_getaffinity(0)))[: self.num_threads]


class CommandFailed(RuntimeError):
    """A tunewright command did not work; the message is its last line."""


def race(model: ZooModel, *, batch: int, settings: RaceSettings) -> ModelRun:
    """Everything about one model; what fails is told in the result, which is saved in any case."""
    run = ModelRun(
        model=model.name,
        batch=batch,
        recipe=model.recipe,
        tune_secs=settings.tune_secs,
        num_threads=settings.num_threads,
        machine=_machine(),
        versions=_versions(),
        load_before=os.getloadavg(),
        finished_at="",
        cpus=settings.cpus,
    )
    try:
        run = _raced(run, model, settings)
    except (ZooError, CommandFailed, TunewrightError, RuntimeError, subprocess.TimeoutExpired) as exc:
        run = replace(run, problem=f"{type(exc).__name__}: {exc}")
    run = replace(run, finished_at=datetime.now(UTC).isoformat(timespec="seconds"))
    save_run(run, settings.out)
    return run


def _raced(run: ModelRun, model: ZooModel, settings: RaceSettings) -> ModelRun:
    files = model_files(model, batch=run.batch, cache=settings.cache)
    folder = settings.out / "compiled" / f"{model.name}-b{run.batch}"
    bundle: Path | None = folder
    try:
        _tune_and_compile(files.onnx, folder, settings)
    except CommandFailed as exc:  # what the peers do with it is worth knowing all the same
        run, bundle = replace(run, problem=str(exc)), None
    options = BenchOptions(
        settings.num_threads, settings.num_rounds, setup_timeout_secs=_SETUP_TIMEOUT_SECS, cpus=settings.cpus
    )
    report = bench_models(_contestants(files, bundle, settings), options, inputs=input_specs(files.onnx))
    run = replace(run, timings=_timings(report))
    if bundle is None:
        return run
    ours, theirs = (
        profiles.profile(kind, bundle, files.onnx, cpus=settings.cpus, log=settings.log)
        for kind in ("tunewright", "onnxruntime")
    )
    return replace(
        run,
        kernels=profiles.to_kernels(ours),
        model_secs=ours["model_secs"],
        between_secs=ours["between_secs"],
        peak_flop_per_sec=ours["peak_flop_per_sec"],
        peer_ops=profiles.to_ops(theirs),
    )


def _tune_and_compile(model: Path, bundle: Path, settings: RaceSettings) -> None:
    bundle.parent.mkdir(parents=True, exist_ok=True)
    options = ["--threads", str(settings.num_threads), "--log", settings.log]
    _tunewright(settings, bundle.name, "machine", "peak", "--again", *options)
    command, budget = "compile", []
    if settings.tune_secs:
        command, budget = "tune", ["--time-budget", f"{settings.tune_secs:g}s"]
    _tunewright(settings, bundle.name, command, str(model), *options, *budget, "-o", str(bundle))


def _contestants(files: ModelFiles, bundle: Path | None, settings: RaceSettings) -> list[Contestant]:
    found = [Contestant(OURS, bundle)] if bundle else []
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
