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
# # Query the log
#
# Every trial of every tuning is kept in one log: its samples, its failures, where its schedule came from.
# Here a small log is made by tuning a small model twice, and then asked what people ask: with objects to look
# at, with pandas, and in SQL. All of it works on a log that another process is writing right now.

# %%
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pandas as pd
from matplotlib import pyplot
from onnx import TensorProto, helper, numpy_helper

import tunewright
from tunewright.core.log_url import file_url
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.units import format_ms
from tunewright.plots import read_session, trial_outcomes, tuning_curve, where_the_gain_came_from
from tunewright.plots.axes import plain_log_ticks, tidy
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

SIZE = 256
NUM_TRIALS = 96
SEED = 0

# %% [markdown]
# ## A small log
#
# The model has two kernels that take time, a convolution and a product, and some that move data between them.
# It is tuned twice, by random search and then by the evolutionary one, which begins with what the log has.


# %%
def small_model(size: int) -> onnx.ModelProto:
    """A 3x3 convolution with ReLU of 16 channels, and a product of its rows with a matrix."""
    rng = np.random.default_rng(SEED)
    side = size // 8
    weights = {
        "kernel": rng.standard_normal((16, 16, 3, 3)).astype(np.float32),
        "matrix": rng.standard_normal((side * side, size)).astype(np.float32),
        "shape": np.array([16, side * side]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Reshape", ["relu", "shape"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, size])
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", [x], [y], initializers)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


folder = TemporaryDirectory()
model_path, log_path = Path(folder.name) / "small.onnx", Path(folder.name) / "tuning.db"
onnx.save(small_model(SIZE), model_path)
tasks = partition(import_model(model_path, target=host_target(num_threads=1))).tasks
session_ids = {}
for strategy in ("random", "evolutionary"):
    options = TuneOptions(Budget(num_trials=NUM_TRIALS), strategy=strategy, seed=SEED, batch_size=8)
    with TuningLog.open(file_url(log_path)) as opened:
        with LocalMeasurer(WorkerConfig.for_threads(1)) as measurer:
            finished = tune_tasks(
                tasks,
                options,
                model_name="small.onnx",
                store=opened,
                measurer=measurer,
                make_space=design_spaces(measurer.pool),
            )
    session_ids[strategy] = finished.session_id
print(f"{len(tasks)} tasks, tuned by {' and '.join(session_ids)}")

# %% [markdown]
# ## The log at a glance
#
# `open_log` without a path opens the log of the command line. What it returns is a page in a notebook, and
# gives data frames.

# %%
log = tunewright.open_log(log_path)
log

# %%
log.tasks()[["workload", "num_trials", "num_failed", "num_pruned", "num_usable", "best_secs", "best_gflops"]]

# %% [markdown]
# ## How did a session go?
#
# *Before* is the default schedule, which is the first trial of every task.

# %%
session = log.session(session_ids["random"])
print(session)
session

# %%
session.to_frame()[["workload", "calls", "num_trials", "before_secs", "best_secs", "speedup_ratio"]]

# %% [markdown]
# ## Which schedule is the best, and what does it do?

# %%
best = log.best().sort_values("best_secs", ascending=False)
best[["record_id", "workload", "best_secs", "best_gflops", "origin", "is_raced"]]

# %%
champion = log.trial(best["record_id"].iloc[0])
print(champion)
champion

# %% [markdown]
# ## Why is it faster than another?
#
# The champion of the costliest task beside the default schedule of the same task: what was changed in words,
# both times with their spread, and what became of the function (`tir=True` has TVM apply both schedules, in
# sandboxed processes).

# %%
task_key = best["task_key"].iloc[0]
of_task = log.trials(task_key)
default = of_task[of_task["origin"] == "seed"].iloc[0]
comparison = log.compare(default["record_id"], champion.record_id, tir=True)
print(comparison)
comparison

# %% [markdown]
# ## Did the second tuning find anything better?

# %%
sessions = log.compare(session_ids["random"], session_ids["evolutionary"])
print(sessions)
sessions

# %% [markdown]
# ## Which trials failed, and what did they say?

# %%
trials = log.trials()
print(f"{len(trials)} trials, {(trials['status'] == 'ok').sum()} of them timed to the end")
log.failures()

# %%
trials[trials["status"] != "ok"].groupby("status", observed=True)["message"].first()

# %% [markdown]
# ## Where do good candidates come from?
#
# Steps forward by origin: candidates that were faster than all before them of their task.

# %%
verified = trials[trials["is_verified"]]
times = verified.groupby("task_key", observed=True)["median_secs"]
steps = verified.assign(is_step=verified["median_secs"] < times.transform(lambda secs: secs.cummin().shift()))
steps.groupby("origin", observed=True)["is_step"].agg(["sum", "mean", "size"])

# %% [markdown]
# ## How well did the cost model rank them?
#
# Scores are comparable within one task only: the rank correlation between score and speed, task by task.

# %%
timed = trials[trials["median_secs"].notna() & trials["predicted_score"].notna()]
correlation = {
    workload: members["predicted_score"].corr(-members["median_secs"], method="spearman")
    for workload, members in timed.groupby("workload", observed=True)
}
pd.Series(correlation, name="rank correlation", dtype="float64")

# %% [markdown]
# ## How much is covered?
#
# Which kernels of a model have a record, and how much of the predicted time they take; here of the model that
# was tuned, and of one with other shapes.

# %%
other_path = Path(folder.name) / "other.onnx"
onnx.save(small_model(2 * SIZE), other_path)
for path in (model_path, other_path):
    print(log.coverage(path, num_threads=1))
log.coverage(other_path, num_threads=1)

# %% [markdown]
# ## The same in SQL
#
# A log in a file is an SQLite database. The tables may change with a release; the data frames keep their
# columns.

# %%
BEST = """
SELECT task_key, name, min(ranked_secs) AS best_secs, count(*) AS num_usable
FROM tw_trials
JOIN tw_tasks ON tw_tasks.id = tw_trials.task_id
JOIN tw_workloads ON tw_workloads.id = tw_tasks.workload_id
WHERE is_verified AND failure_kind IS NULL AND unusable_reason IS NULL
GROUP BY task_key, name
ORDER BY best_secs DESC
"""
SO_FAR = """
SELECT tw_trials.id AS record_id, tw_sessions.strategy, name,
       row_number() OVER (PARTITION BY tw_trials.session_id, task_id ORDER BY tw_trials.id) AS trial,
       min(CASE WHEN is_verified AND unusable_reason IS NULL THEN ranked_secs END)
           OVER (PARTITION BY tw_trials.session_id, task_id ORDER BY tw_trials.id) AS best_secs_so_far
FROM tw_trials
JOIN tw_sessions ON tw_sessions.id = tw_trials.session_id
JOIN tw_tasks ON tw_tasks.id = tw_trials.task_id
JOIN tw_workloads ON tw_workloads.id = tw_tasks.workload_id
"""
with closing(sqlite3.connect(f"{log_path.as_uri()}?mode=ro", uri=True)) as connection:
    best_in_sql = pd.read_sql_query(BEST, connection)
    so_far = pd.read_sql_query(SO_FAR, connection)
agrees = best_in_sql["best_secs"].tolist() == best["best_secs"].tolist()
print(f"SQL and data frames agree on the best of {len(best_in_sql)} tasks: {agrees}")
best_in_sql

# %%
so_far.groupby(["name", "strategy"])["best_secs_so_far"].agg(["first", "min"])

# %% [markdown]
# ## Pictures
#
# Those of `tunewright plot`, from the same log; and one of our own, from the data frame: all that was
# measured of the two kernels with the most trials.

# %%
with TuningLog.open(file_url(log_path), read_only=True) as opened:
    data = {one.strategy: read_session(opened, one) for one in opened.sessions()}
curves = {strategy: [one.best_so_far()] for strategy, one in data.items()}
for strategy, [run] in curves.items():
    print(f"{strategy}: {len(run.trials)} trials, {format_ms(run.latency_secs[-1])} at the end")
ax = tuning_curve(
    {"random": curves["random"], "evolutionary, begun where random ended": curves["evolutionary"]}
)

# %%
ax = trial_outcomes(data["evolutionary"].outcomes())

# %%
ax = where_the_gain_came_from(data["random"].gains_by_origin())

# %%
looks = {"random": ("o", "#0072B2"), "evolutionary": ("x", "#D55E00")}
figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, workload in zip(axes, log.tasks().nlargest(2, "num_trials")["workload"], strict=True):
    for strategy, (marker, color) in looks.items():
        some = trials[(trials["workload"] == workload) & (trials["strategy"] == strategy)]
        median_ms = 1e3 * some["median_secs"]
        ax.plot(some["record_id"], median_ms, marker, color=color, label=strategy, markersize=4)
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis)
    ax.set_title(workload, fontsize="small")
    ax.set_xlabel("record, in the order in which they were measured")
    ax.set_ylabel("median time per call (ms, logarithmic)")
    tidy(ax)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
pyplot.show()

# %%
log.close()
folder.cleanup()
