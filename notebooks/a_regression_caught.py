# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A regression caught
#
# Two kernels are tuned, and their schedules written to a lock file, the baseline. Then somebody edits the
# schedule of one of them, and `tunewright gate` is asked. The rest of the notebook looks at what the gate
# goes by: the pairs, the looks, the same code twice, and the same code twice beside a busy neighbour.
#
# Everything is measured here: what the verdicts are, this run shows. It takes about three minutes.

# %%
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnx
from onnx import TensorProto, helper

from tunewright import __version__
from tunewright.core.keys import canonical_json
from tunewright.core.types import (
    Candidate,
    EvaluatorConfig,
    MeasureInput,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    SessionInfo,
    TuningRecord,
)
from tunewright.explore import schedule_diff
from tunewright.gate.measure import KernelPair, LocalTimer
from tunewright.gate.results import RunKind, read_run, results_of
from tunewright.gate.statistics import (
    GateRule,
    Judgement,
    PairedTimes,
    PairGroup,
    Verdict,
    alone,
    judge,
    log_ratios,
)
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.schedule_lock import LockedTask, read_lock, write_lock
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig

NUM_TRIALS = 48  # of both kernels together
SAMPLE_MS = 50  # how long one time lasts
LOOKS = (15, 30, 50, 80)  # after so many pairs the gate looks at them

folder = TemporaryDirectory()
place = Path(folder.name)


def tunewright(*args: str, num_lines: int = 100) -> int:
    """Run the command line and show the last lines of what it prints. Returns its exit status."""
    # Jupyter asks programs for colors, which would stand here as codes.
    asked = ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR")
    inherited = {name: value for name, value in os.environ.items() if name not in asked}
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", *args],
        cwd=place,
        env={**inherited, "TERM": "dumb", "COLUMNS": "140", "TUNEWRIGHT_LOG": "tuning.db"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    shown = "\n".join(done.stdout.rstrip().splitlines()[-num_lines:])
    print(f"$ tunewright {shlex.join(args)}\n{shown}\n-> exit status {done.returncode}\n")
    return done.returncode


# %% [markdown]
# ## The baseline
#
# A small network of two matrix products, tuned briefly. `compile --write-lock` writes which schedule each
# kernel takes; that file is kept with the model, in git say.

# %%
shapes = {"x": [64, 128], "w1": [128, 256], "w2": [256, 96], "y": [64, 96]}
values = {
    name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
}
nodes = [
    helper.make_node("MatMul", ["x", "w1"], ["a"]),
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("MatMul", ["b", "w2"], ["y"]),
]
graph = helper.make_graph(nodes, "mlp", [values[name] for name in ("x", "w1", "w2")], [values["y"]])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
onnx.save(model, place / "mlp.onnx")

status = tunewright("tune", "mlp.onnx", "--threads", "1", "--trials", str(NUM_TRIALS), num_lines=5)
status = tunewright("compile", "mlp.onnx", "-o", "mlp", "--threads", "1", "--write-lock", "baseline.lock")

# %% [markdown]
# ## The mistake
#
# Somebody edits the first kernel's schedule by hand: the first loop is not tiled any more. The edited
# schedule is measured, its outputs are right, it is recorded, and pinned in the lock. Nothing fails but the
# time.

# %%
baseline = read_lock(place / "baseline.lock")
pinned = baseline.tasks[0]


def without_first_tile(trace_json: str) -> str:
    """All iterations of the first loop that was tiled are those of its outermost part."""
    instructions, decisions = json.loads(trace_json)
    for position, (index, factors) in enumerate(decisions):
        if instructions[index][0] == "SamplePerfectTile":
            decisions[position] = [index, [math.prod(factors), *[1] * (len(factors) - 1)]]
            break
    return canonical_json([instructions, decisions])


def record_by_hand(log: TuningLog, candidate: Candidate) -> RecordedTrial:
    """Measure a schedule that no search has proposed, and keep it in the log."""
    evaluator = EvaluatorConfig(min_sample_secs=SAMPLE_MS / 1e3)
    with LocalMeasurer(WorkerConfig.for_threads(task.target.num_threads)) as measurer:
        (result,) = measurer.measure([MeasureInput(task, candidate, evaluator)])
        machine = measurer.machine
    assert isinstance(result, MeasureSuccess), result
    now = datetime.now(UTC)
    log.start_session(
        SessionInfo("by hand", "mlp.onnx", task.target, "hand", 0, machine, {task.key: task.weight}, now)
    )
    record = TuningRecord(
        session_id="by hand",
        trial_index=0,
        candidate=candidate,
        result=result,
        evaluator=evaluator,
        machine=machine,
        strategy="hand",
        seed=0,
        finished_at=now,
        code_version=__version__,
    )
    (trial,) = log.append([(record, None)])
    return trial


with TuningLog.open(f"sqlite:///{place / 'tuning.db'}") as log:
    task = log.task(pinned.task_key)
    ((stored, *_),) = log.trials_of_candidates({pinned.task_key: pinned.candidate}).values()
    tuned = stored.trial.record.candidate
    edited = Candidate(task.key, without_first_tile(tuned.trace_json), Origin.IMPORT, parent_key=tuned.key)
    trial = record_by_hand(log, edited)
by_mistake = LockedTask(pinned.name, task.key, KernelSource.RECORD, edited.key, record_id=trial.record_id)
write_lock(replace(baseline, tasks=(by_mistake, *baseline.tasks[1:])), place / "head.lock")
print(f"{pinned.name}, what is different:")
for change in schedule_diff(tuned.trace_json, edited.trace_json):
    print(f"  {change}")

# %% [markdown]
# ## The gate
#
# The suite says what is compared. The gate times both schedules in turns, in fresh processes, and what it
# finds it measures a second time. A kernel with the same schedule on both sides is the same without being
# timed.

# %%
suite = f"""\
min_effect = "2%"
sample_ms = {SAMPLE_MS}
looks = {list(LOOKS)}

[[kernels]]
name = "mlp"
base = "baseline.lock"
head = "head.lock"
log = "tuning.db"
"""
(place / "gate.toml").write_text(suite)
files = ("--json", "gate.json", "--junit", "gate.xml", "--markdown", "gate.md")
status = tunewright("gate", "run", "--suite", "gate.toml", *files)
run = read_run(place / "gate.json", kind=RunKind.GATE)
results = {result.item.name: result for result in results_of(run)}
for name, result in results.items():
    print(f"{name}: {result.verdict}")

# %% [markdown]
# What other programs read of it: JUnit XML for the list of tests, Markdown for the page of a pull request.

# %%
print((place / "gate.xml").read_text())
print((place / "gate.md").read_text())

# %% [markdown]
# ### Every pair
#
# The JSON file has the times of all pairs; verdicts are computed from them whenever it is read. Each dot is
# one pair, each shade of the background a fresh pair of processes. The dashed lines are the smallest change
# that counts.


# %%
def percent(log_ratio: float | np.ndarray) -> float | np.ndarray:
    return 100 * np.expm1(log_ratio)


def draw_pairs(ax: plt.Axes, groups: tuple[PairGroup, ...], title: str) -> None:
    """The change of every pair, in the order in which they were measured."""
    ends = np.cumsum([0, *(len(group.base_secs) for group in groups)])
    for start, end in list(pairwise(ends))[1::2]:
        ax.axvspan(start + 0.5, end + 0.5, color="0.92", linewidth=0)
    logs = log_ratios(groups)
    ax.plot(np.arange(1, len(logs) + 1), percent(logs), "o", color="#0072B2", markersize=4)
    for side in (-1, 1):
        threshold = percent(side * np.log1p(run.rule.threshold_ratio))
        ax.axhline(threshold, color="#D55E00", linestyle="--", linewidth=1)
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("pair")
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)


times = results[pinned.name].item.times
assert times is not None, results[pinned.name].reason
rounds = {"first round": times.first, "second round": times.second}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for ax, (title, groups) in zip(axes, rounds.items(), strict=True):
    if groups:
        draw_pairs(ax, groups, title)
    else:
        ax.set_title("no second round: the first found nothing", fontsize=9)
        ax.axis("off")
label = axes[0].set_ylabel("head takes longer by (%)")

# %% [markdown]
# ### Accepted
#
# Sometimes a slowdown is the price of something. `accept` writes it down with a reason, up to what was
# measured and until a day; from then on the gate passes and says why. `report` judges stored pairs without
# measuring again.

# %%
until = date.today() + timedelta(days=30)
reason = "the faster schedule needs more memory than the device has"
how = ("--reason", reason, "--until", f"{until}", "--suite", "gate.toml")
if results[pinned.name].verdict is Verdict.REGRESSED:  # nothing else can be accepted
    tunewright("gate", "accept", "gate.json", pinned.name, *how)
status_accepted = tunewright("gate", "report", "gate.json", "--suite", "gate.toml")

# %% [markdown]
# ## The same code twice
#
# A gate that cries wolf is switched off. So: the tuned schedule against itself. The gate does not time a
# schedule against itself, therefore its parts are used here one by one: what times pairs, and what judges
# them. All looks are taken, also after the gate would have stopped; what the first round finds is measured
# again.


# %%
RULE = GateRule(looks=LOOKS)


@dataclass(frozen=True)
class Experiment:
    """The groups of pairs that there are at each look, with all before; and those of a second round."""

    at_look: list[tuple[PairGroup, ...]]
    second: tuple[PairGroup, ...] = ()

    @property
    def verdicts(self) -> list[Verdict]:
        """What each look of the first round says by itself."""
        return [alone(groups, RULE) for groups in self.at_look]

    @property
    def judgement(self) -> Judgement:
        """What the gate says, which stops at the first look that decides."""
        looks = zip(self.at_look, self.verdicts, strict=True)
        decided = (groups for groups, verdict in looks if verdict is not Verdict.INCONCLUSIVE)
        end = next(decided, self.at_look[-1])
        return judge({"": PairedTimes(end, self.second)}, {"": RULE})[""]


def measure(base: Candidate, head: Candidate, *, seed: int) -> Experiment:
    pair = KernelPair(pinned.name, task, base, head)
    rng = np.random.default_rng(seed)

    def one_round(timer: LocalTimer) -> Iterator[tuple[PairGroup, ...]]:
        groups: tuple[PairGroup, ...] = ()
        for look in range(len(RULE.looks)):
            for num_pairs in RULE.group_sizes(look):
                groups += (timer.time_pairs(pair, num_pairs=num_pairs, rng=rng),)
            yield groups

    with LocalTimer(sample_secs=SAMPLE_MS / 1e3) as timer:
        first = Experiment(list(one_round(timer)))
        if not first.judgement.is_suspect:
            return first
        for second in one_round(timer):
            if alone(second, RULE) is not Verdict.INCONCLUSIVE:
                break
    return Experiment(first.at_look, second)


experiments = {
    "the edited schedule": measure(tuned, edited, seed=1),
    "the same code twice": measure(tuned, tuned, seed=2),
}

# %% [markdown]
# ## A busy neighbour
#
# The same code twice once more. But now another process runs on the CPU on which the kernels are timed, by
# fits and starts.

# %%
NEIGHBOUR = """
import os, random, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
parent, rng = os.getppid(), random.Random(0)
print("ready", flush=True)
while os.getppid() == parent:
    end = time.monotonic() + rng.expovariate(20)
    while time.monotonic() < end:
        pass
    time.sleep(rng.expovariate(20))
"""


@contextmanager
def busy_neighbour(cpu: int) -> Iterator[None]:
    """A process that computes for 1/20 s and rests for 1/20 s, on average."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(cpu)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


(cpu,) = WorkerConfig.for_threads(1).timing_cpus
with busy_neighbour(cpu):
    experiments["the same code twice, a busy neighbour"] = measure(tuned, tuned, seed=3)


# %%
def spread_percent(groups: tuple[PairGroup, ...]) -> float:
    """Half the range of the middle two thirds of all pairs: a standard deviation, were the noise normal."""
    low, high = np.quantile(log_ratios(groups), (1 / 6, 5 / 6))
    return float(percent((high - low) / 2))


for title, experiment in experiments.items():
    print(f"{title}: pairs spread by {spread_percent(experiment.at_look[-1]):.1f} %")

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, (title, experiment) in zip(axes, experiments.items(), strict=True):
    draw_pairs(ax, experiment.at_look[-1], title)
label = axes[0].set_ylabel("head takes longer by (%)")

# %% [markdown]
# ## Look by look
#
# At each look there is an estimate and an interval, and one of three things can be said: the change is beyond
# the threshold and significant; the whole interval lies within the threshold, which is *the same*; or
# neither. More pairs narrow the interval. Each look has its share of the error rate, so looking four times is
# no more often wrong than looking once.


# %%
def at_look(groups: tuple[PairGroup, ...]) -> tuple[float, float, float]:
    """The estimate and its limits, in percent."""
    one = judge({"": PairedTimes(groups)}, {"": RULE})[""]
    return 100 * (one.ratio - 1), 100 * (one.low_ratio - 1), 100 * (one.high_ratio - 1)


for title, experiment in experiments.items():
    print(f"{title}:")
    for num_pairs, groups, verdict in zip(RULE.looks, experiment.at_look, experiment.verdicts, strict=True):
        center, low, high = at_look(groups)
        print(f"  {num_pairs:3d} pairs: {center:+6.1f} %, from {low:+6.1f} to {high:+6.1f} %: {verdict}")

# %%
MARKERS = {
    Verdict.REGRESSED: ("v", "black"),
    Verdict.IMPROVED: ("^", "black"),
    Verdict.SAME: ("o", "black"),
    Verdict.INCONCLUSIVE: ("o", "white"),
}
band = [float(percent(side * np.log1p(RULE.threshold_ratio))) for side in (-1, 1)]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
for ax, (title, experiment) in zip(axes, experiments.items(), strict=True):
    ax.axhspan(*band, color="#F0C05A", alpha=0.5)
    for num_pairs, groups, verdict in zip(RULE.looks, experiment.at_look, experiment.verdicts, strict=True):
        center, low, high = at_look(groups)
        marker, color = MARKERS[verdict]
        ax.plot([num_pairs, num_pairs], [low, high], color="#0072B2", linewidth=2)
        ax.plot(num_pairs, center, marker, color=color, markeredgecolor="black", markersize=7)
    ax.set_title(title, fontsize=9)
    ax.set_xlabel("pairs")
    ax.set_xticks(RULE.looks)
    ax.set_xlim(0, RULE.looks[-1] + 10)
    ax.spines[["top", "right"]].set_visible(False)
for verdict, (marker, color) in MARKERS.items():
    axes[0].plot([], [], marker, color=color, markeredgecolor="black", label=str(verdict))
handles = axes[0].get_legend_handles_labels()
legend = figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
label = axes[0].set_ylabel("change with its interval (%)")

# %% [markdown]
# The band is what does not count. And what the gate says, which stops at the first look that decides, and
# measures a second round where the first one found something:

# %%
for title, experiment in experiments.items():
    judged = experiment.judgement
    more = f"; {judged.needed_pairs} pairs might do" if judged.needed_pairs else ""
    print(f"{title}: {judged.verdict} after {judged.num_pairs} pairs{more}")
print(f"exit status of the gate: {status}; with the slowdown accepted: {status_accepted}")

# %%
folder.cleanup()
