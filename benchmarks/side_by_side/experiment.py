"""A folder of runs: which ones are wanted, in which order, and doing those that are missing.

OUT/experiment.json                what all runs share; a folder holds one experiment
OUT/tasks/TASK.json                the canonical module that every tuner gets
OUT/units/TASK.SEED.TUNER.json     one run, raw; written whole, so what exists is never run again
OUT/logs/, OUT/output/             our tuning logs; what the runs printed
OUT/neutral/TASK.SEED.json         the final kernels of all tuners, timed side by side
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from side_by_side import neutral
from side_by_side.results import UnitKey, UnitResult, load_unit, save_json
from side_by_side.tuners import OURS, needs_log

# Whoever tunes one task alone lends the log of other tasks from these.
_LENDERS = ("dense-128x768x3072", "batch-matmul-12x128x128x64")
UNIT_LIMIT_SECS = 3 * 3600.0
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Experiment:
    """`tuners`: names that `tuners.run` knows. `lender`: the one whose trials of other tasks are lent.

    `limit_secs`: when a session of TVM is cut short, at the end of a batch.
    """

    out: Path
    tasks: Sequence[str]
    tuners: Sequence[str]
    num_seeds: int
    num_trials: int
    num_threads: int
    limit_secs: float = UNIT_LIMIT_SECS
    lender: str = OURS

    def unit_file(self, key: UnitKey) -> Path:
        return self.out / "units" / f"{key}.json"

    def task_file(self, task: str) -> Path:
        return self.out / "tasks" / f"{task}.json"

    def log_file(self, key: UnitKey) -> Path:
        return self.out / "logs" / f"{key}.sqlite"

    def neutral_file(self, task: str, seed: int) -> Path:
        return self.out / "neutral" / f"{task}.{seed}.json"

    @property
    def lenders(self) -> Sequence[str]:
        """The tasks whose trials are lent when another task is tuned."""
        return self.tasks if len(self.tasks) > 1 else (*self.tasks, *_LENDERS)

    def units(self, task: str, seed: int) -> list[UnitResult]:
        """The finished runs of all tuners, those of earlier calls with other `tuners` too."""
        pattern = self.unit_file(UnitKey(task, seed, "*"))
        return [load_unit(file) for file in sorted(pattern.parent.glob(pattern.name))]

    def neutral_times(self, task: str, seed: int) -> neutral.NeutralTimes | None:
        """None where the kernels of the finished runs have not been timed side by side."""
        times = neutral.load_times(self.neutral_file(task, seed))
        return times if neutral.is_current(times, self.units(task, seed)) else None


def planned_units(experiment: Experiment) -> Iterator[UnitKey]:
    """All runs, interleaved: for each seed, for each task, the tuners in an order that turns with both.

    Runs that need the log of other tasks come at the end of their seed.
    """
    first = [tuner for tuner in experiment.tuners if not needs_log(tuner)]
    with_log = [tuner for tuner in experiment.tuners if needs_log(tuner)]
    for seed in range(experiment.num_seeds):
        for index, task in enumerate(experiment.tasks):
            turn = (seed + index) % max(1, len(first))
            for tuner in first[turn:] + first[:turn]:
                yield UnitKey(task, seed, tuner)
        if with_log:
            for task in experiment.lenders:
                if experiment.lender not in first or task not in experiment.tasks:
                    yield UnitKey(task, seed, experiment.lender)
        yield from (UnitKey(task, seed, tuner) for task in experiment.tasks for tuner in with_log)


def check_settings(experiment: Experiment) -> None:
    """Runs with other settings must not be mixed.

    Raises:
        ValueError: the folder belongs to another experiment.
    """
    path = experiment.out / "experiment.json"
    settings = {"num_trials": experiment.num_trials, "num_threads": experiment.num_threads}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != settings:
            raise ValueError(f"{experiment.out} holds runs of {found}, not {settings}: name another --out")
    else:
        save_json(settings, path)


def run_missing(experiment: Experiment, *, time_budget_secs: float | None) -> bool:
    """Do every planned run that has not been done, and time the final kernels; whether all is done."""
    deadline = time.monotonic() + time_budget_secs if time_budget_secs is not None else float("inf")
    _make_tasks(experiment)
    planned = list(planned_units(experiment))
    is_complete = True
    for seed in range(experiment.num_seeds):
        for number, key in enumerate(planned, 1):
            if key.seed != seed or experiment.unit_file(key).exists():
                continue
            expected = _expected_secs(experiment, key)
            if time.monotonic() + expected > deadline:
                _say(f"[{number}/{len(planned)}] {key}: about {expected:.0f} s, does not fit any more")
                is_complete = False
                continue
            is_complete &= _run_unit(experiment, key, f"[{number}/{len(planned)}]")
        for task in experiment.tasks:
            units = experiment.units(task, seed)
            if not units or experiment.neutral_times(task, seed) is not None:
                continue
            if time.monotonic() > deadline:
                _say(f"{task}, seed {seed}: no time left to time the final kernels side by side")
                is_complete = False
                continue
            is_complete &= _measure_neutrally(experiment, task, seed, units)
    return is_complete


def child_env(num_threads: int) -> dict[str, str]:
    """The environment of all runs: one number of kernel threads, no torch, our modules on the path."""
    path = [str(_HERE / "without_torch"), str(_HERE.parent), str(_HERE.parent.parent)]
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "TVM_NUM_THREADS": str(num_threads)}


def _make_tasks(experiment: Experiment) -> None:
    from side_by_side.tasks import make_task, save_task
    from tunewright.core.tvm_adapter.target import host_target

    for name in experiment.lenders:
        path = experiment.task_file(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_task(make_task(name, host_target(experiment.num_threads)), path)


def _expected_secs(experiment: Experiment, key: UnitKey) -> float:
    """The longest run so far: of this tuner and task, else of this tuner, else of all; 0 before the first."""
    for pattern in (f"{key.task}.*.{key.tuner}.json", f"*.{key.tuner}.json", "*.json"):
        known = [load_unit(path) for path in experiment.unit_file(key).parent.glob(pattern)]
        if known:
            return max(unit.tuned.wall_secs + unit.import_secs for unit in known)
    return 0.0


def _run_unit(experiment: Experiment, key: UnitKey, position: str) -> bool:
    lenders = [task for task in experiment.lenders if task != key.task]
    job = {
        "tuner": key.tuner,
        "task": key.task,
        "task_file": str(experiment.task_file(key.task)),
        "log_file": str(experiment.log_file(key)),
        "base_logs": [
            str(experiment.log_file(UnitKey(task, key.seed, experiment.lender)))
            for task in lenders
            if needs_log(key.tuner)
        ],
        "num_trials": experiment.num_trials,
        "limit_secs": experiment.limit_secs,
        "seed": key.seed,
        "result_file": str(experiment.unit_file(key)),
    }
    job_file, output = (experiment.out / "output" / f"{key}.{end}" for end in ("job.json", "txt"))
    save_json(job, job_file)
    started = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        status = _run_group(
            [sys.executable, "-m", "side_by_side.unit", str(job_file)],
            child_env(experiment.num_threads),
            file.fileno(),
        )
    elapsed = time.monotonic() - started
    if status != 0 or not experiment.unit_file(key).exists():
        _say(f"{position} {key}: FAILED ({status}) after {elapsed:.0f} s; see {output}")
        return False
    tuned = load_unit(experiment.unit_file(key)).tuned
    best = f"{1e3 * tuned.best_secs:.3f} ms" if tuned.best_secs else "no kernel"
    _say(f"{position} {key}: {len(tuned.trials)} trials in {tuned.wall_secs:.1f} s, {best} by its own clock")
    return True


def _run_group(command: Sequence[str], env: Mapping[str, str], output: int) -> int:
    """Run a process, and take all of its children down with it."""
    process = subprocess.Popen(
        command, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(timeout=UNIT_LIMIT_SECS)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _measure_neutrally(experiment: Experiment, task: str, seed: int, units: Sequence[UnitResult]) -> bool:
    try:
        times = neutral.measure(
            units,
            experiment.task_file(task),
            experiment.neutral_file(task, seed),
            child_env(experiment.num_threads),
        )
    except (RuntimeError, subprocess.TimeoutExpired) as exc:
        _say(f"{task}, seed {seed}: {exc}")
        return False
    shown = ", ".join(f"{tuner} {1e3 * secs:.3f} ms" for tuner, secs in times.secs.items())
    _say(f"{task}, seed {seed}, side by side: {shown}")
    for tuner, problem in times.wrong.items():
        _say(f"{task}, seed {seed}: the kernel of {tuner} is WRONG: {problem}")
    return True


def _say(text: str) -> None:
    print(text, flush=True)
