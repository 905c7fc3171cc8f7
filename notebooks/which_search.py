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
# # Which search finds it sooner?
#
# Convolutions of ResNet-18, tuned by five searches over the same decisions of the same design space:
#
# - **learned**: Tunewright's `evolutionary`, which breeds drafts and measures those that models, trained on
#   the trials so far, rank first;
# - **genetic**: the same mutations and crossovers, but the children of the fastest trials are measured
#   unseen, without any model;
# - **TPE** and **CMA-ES** of Optuna, to which a decision is a number (`docs/search-strategies.md`);
# - **random**.
#
# Speed is relative to the vendor library's kernel of the same layer: ONNX Runtime's. It is the figure that
# AutoTVM's paper shows (Chen et al., "Learning to Optimize Tensor Programs", NeurIPS 2018), for this machine.

# %%
import json
import math
import random
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from matplotlib import pyplot
from onnx import TensorProto, helper, numpy_helper

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import (
    Candidate,
    CandidateKey,
    EvaluatorConfig,
    MeasureInput,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TuningTask,
    known_secs,
)
from tunewright.core.units import format_ms
from tunewright.plots import relative_speed
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

warnings.filterwarnings("ignore", "IProgress not found")  # nothing here shows a progress bar

LAYERS = [(64, 56), (128, 28), (256, 14)]  # channels and image size of 3x3 convolutions
NUM_TRIALS = 64
SEEDS = [0, 1, 2]
BATCH_SIZE = 16
NUM_BLOCKS, NUM_ROUNDS = 3, 8  # of the timing at the end
PAUSE_SECS = 0.3
NUM_THREADS = 1

SEARCHES = {
    "learned": "evolutionary",
    "genetic, no model": "genetic",
    "Optuna TPE": "optuna-tpe",
    "Optuna CMA-ES": "optuna-cmaes",
    "random": "random",
}

# %% [markdown]
# ## The layers
#
# Each is a convolution with its bias and ReLU, which both sides fuse. Importing makes a task of it; changing
# the layout around it, which a whole network does not do at every layer, is another task and left out.


# %%
def conv_model(channels: int, size: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32)
    bias = rng.normal(size=channels).astype(np.float32)
    shape = [1, channels, size, size]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "conv", [x], [y], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def conv_task(channels: int, size: int) -> TuningTask:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "conv.onnx"
        onnx.save(conv_model(channels, size), path)
        model = import_model(path, target=host_target(num_threads=NUM_THREADS))
    return max(partition(model).tasks, key=lambda task: task.workload.flop)


tasks = {f"{channels} x {size} x {size}": conv_task(channels, size) for channels, size in LAYERS}
for name, task in tasks.items():
    print(f"{name}: {task.workload.flop / 1e6:.0f} MFLOP, {task.workload.name}")

# %% [markdown]
# ## Searching
#
# Every session starts with an empty log. All searches are told of one more trial than their own: Tunewright's
# default schedule, which every session measures first. The curves leave it out, and show only what a search
# found itself. What is much slower than the best so far is stopped after its first sample, as in every
# session; that sample counts here. All but the learned search begin with the same 16 random candidates.


# %%
def tune(task: TuningTask, strategy: str, seed: int, measurer: LocalMeasurer) -> list[RecordedTrial]:
    """The trials of one session, in the order in which they were measured."""
    budget = Budget(num_trials=1 + NUM_TRIALS, patience=1 + NUM_TRIALS)
    options = TuneOptions(budget, strategy=strategy, seed=seed, batch_size=BATCH_SIZE)
    with TuningLog.open("sqlite://") as log:
        finished = tune_tasks(
            [task],
            options,
            model_name="conv",
            store=log,
            measurer=measurer,
            make_space=design_spaces(measurer.pool),
        )
        return log.session_trials(finished.session_id)


def incumbents(trials: Sequence[RecordedTrial]) -> list[Candidate | None]:
    """After each trial the best one that a search found itself, by what its session measured."""
    best, best_secs, after_each = None, math.inf, []
    for trial in trials:
        record = trial.record
        if record.candidate.origin is not Origin.SEED:
            if known_secs(record.result) < best_secs:
                best, best_secs = record.candidate, known_secs(record.result)
            after_each.append(best)
    return after_each


Run = list[Candidate | None]
found: dict[str, dict[str, list[Run]]] = {name: {label: [] for label in SEARCHES} for name in tasks}
defaults: dict[str, Candidate] = {}
shuffle = random.Random(0)
with LocalMeasurer(WorkerConfig.for_threads(NUM_THREADS)) as measurer:
    for name, task in tasks.items():
        for seed in SEEDS:
            for label in shuffle.sample(list(SEARCHES), len(SEARCHES)):  # no search always has the same turn
                trials = tune(task, SEARCHES[label], seed, measurer)
                found[name][label].append(incumbents(trials))
                defaults[name] = trials[0].record.candidate

# %% [markdown]
# ## Timing
#
# A machine that does other things, too, is not equally fast in all these sessions. So what a session measured
# decides only which candidate was its best after each trial. All of these candidates of a layer are built
# again, compared with the unscheduled program, and timed side by side: one sample of each per round in
# random order, on the same CPU and the same number of threads, and the vendor's kernel between the rounds.
# What else runs on the machine makes a kernel slower, never faster: of each, the fastest of as many samples
# counts.
#
# Of ONNX Runtime, the profile of its convolution counts, without the steps before and after it that change
# the layout: what it would take within a network.


# %%
class Vendor:
    """ONNX Runtime's kernel of one layer."""

    def __init__(self, channels: int, size: int) -> None:
        self._model = conv_model(channels, size).SerializeToString()
        self._x = np.random.default_rng(1).normal(size=(1, channels, size, size)).astype(np.float32)

    def sample_secs(self, num_samples: int, *, num_warm_up: int = 4, num_runs: int = 4) -> list[float]:
        """Mean seconds of the convolution in `num_runs` runs, with as long pauses as candidates have."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = NUM_THREADS
        options.inter_op_num_threads = 1
        options.enable_profiling = True
        with TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
            for sample in range(1 + num_samples):
                time.sleep(PAUSE_SECS)
                for _ in range(num_runs if sample else num_warm_up):
                    session.run(None, {"x": self._x})
            events = json.loads(Path(session.end_profiling()).read_text())
        secs = [
            event["dur"] * 1e-6
            for event in events
            if event["name"].endswith("_kernel_time") and "Conv" in event["args"]["op_name"]
        ][num_warm_up:]
        return [statistics.fmean(secs[start : start + num_runs]) for start in range(0, len(secs), num_runs)]


def time_all(
    task: TuningTask, candidates: Mapping[CandidateKey, Candidate], vendor: Vendor, measurer: LocalMeasurer
) -> tuple[dict[CandidateKey, float], float]:
    """Seconds of each candidate, infinite for those that are not right, and of the vendor's kernel."""
    inputs = [MeasureInput(task, candidate, EvaluatorConfig()) for candidate in candidates.values()]
    secs = dict.fromkeys(candidates, math.inf)
    vendor_secs = math.inf
    for block in range(NUM_BLOCKS):
        rng = np.random.default_rng(block)
        results = measurer.interleave(inputs, rounds=NUM_ROUNDS, rng=rng)
        for key, result in zip(candidates, results, strict=True):
            if isinstance(result, MeasureSuccess):
                secs[key] = min(secs[key], *result.run_secs)
        vendor_secs = min(vendor_secs, *vendor.sample_secs(NUM_ROUNDS))
    for key, result in zip(candidates, measurer.verify(inputs), strict=True):
        if not isinstance(result, MeasureSuccess) or not result.is_verified:
            secs[key] = math.inf
    return secs, vendor_secs


speeds: dict[str, dict[str, list[np.ndarray]]] = {}
default_speeds: dict[str, float] = {}
with LocalMeasurer(WorkerConfig.for_threads(NUM_THREADS)) as measurer:
    for (channels, size), (name, task) in zip(LAYERS, tasks.items(), strict=True):
        runs = [run for runs in found[name].values() for run in runs]
        candidates = {one.key: one for run in runs for one in [defaults[name], *run] if one is not None}
        secs, vendor_secs = time_all(task, candidates, Vendor(channels, size), measurer)
        default_speeds[name] = vendor_secs / secs[defaults[name].key]
        speeds[name] = {
            label: [
                np.array([vendor_secs / secs[one.key] if one is not None else np.nan for one in run])
                for run in runs
            ]
            for label, runs in found[name].items()
        }
        print(
            f"{name}: ONNX Runtime {format_ms(vendor_secs)}, default schedule "
            f"{format_ms(secs[defaults[name].key])}, {len(candidates)} candidates timed side by side, "
            f"{sum(map(math.isinf, secs.values()))} of them wrong"
        )

# %% [markdown]
# ## The figure
#
# Lines are medians over the seeds, bands go from the worst of them to the best. A curve may fall: what a
# session took for its best may turn out to be slower, timed under equal conditions, than what it had before.

# %%
figure, axes = pyplot.subplots(
    1, len(tasks), figsize=(4.6 * len(tasks), 4.6), layout="constrained", sharey=True
)
for ax, name in zip(np.atleast_1d(axes), tasks, strict=True):
    marks = {"ONNX Runtime's kernel": 1.0, "default schedule": default_speeds[name]}
    relative_speed(speeds[name], marks=marks, ax=ax)
    ax.set_title(f"3 x 3 convolution, {name}")
    ax.set_ylabel("speed relative to ONNX Runtime" if ax is np.atleast_1d(axes)[0] else "")
handles, labels = ax.get_legend_handles_labels()
_ = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)

# %% [markdown]
# In numbers: the speed after a quarter, half and all of the trials, the median over layers of the medians
# over seeds; and the trials until 95 % of the fastest candidate that any search found of the layer, the
# median over all layers and seeds, with the number of sessions that got there.

# %%
for label in SEARCHES:
    after = []
    for share in (0.25, 0.5, 1.0):
        at = round(share * NUM_TRIALS) - 1
        medians = [np.median([run[min(at, len(run) - 1)] for run in speeds[name][label]]) for name in tasks]
        after.append(f"{np.median(medians):.2f}")
    needed = []
    for name in tasks:
        goal = 0.95 * max(np.nanmax(run) for runs in speeds[name].values() for run in runs)
        for run in speeds[name][label]:
            reached = np.flatnonzero(run >= goal)
            needed.append(reached[0] + 1 if len(reached) else np.inf)
    num_reached = int(np.isfinite(needed).sum())
    median = np.median(needed)
    shown = f"{median:.0f}" if np.isfinite(median) else f"more than {NUM_TRIALS}"
    print(f"{label:18} speed {', '.join(after)}; {shown} trials, {num_reached} of {len(needed)} sessions")
