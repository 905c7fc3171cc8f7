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
# # What the cost model learned
#
# A search breeds thousands of schedules and measures a few; which ones, a cost model says. This notebook
# looks into that model: which features it goes by, where it is wrong, and what it knows of tasks that it has
# never seen. It learns from the log that the environment variable `TUNEWRIGHT_LOG` names; without one, half a
# dozen small kernels are tuned here, which takes about three minutes.

# %%
import os
import textwrap
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnx
from onnx import TensorProto, helper

from tunewright.core.log_url import log_url
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TuningTask
from tunewright.cost_model import make_training_set, usable_trials
from tunewright.cost_model.evaluation import held_out_fifth, rank_groups, rank_unseen_tasks
from tunewright.cost_model.feature_names import pooled_column_name
from tunewright.cost_model.importance import family_importance, feature_importance, permutation_losses
from tunewright.cost_model.pooling import pool_rows
from tunewright.cost_model.transfer import held_out_scores, learning_curve, transfer_matrix
from tunewright.cost_model.xgboost_model import XGBoostCostModel, fit_predict, log2_labels
from tunewright.explore import schedule_words
from tunewright.plots import cost_model, model_quality
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

LOG = os.environ.get("TUNEWRIGHT_LOG", "")
NUM_TRIALS = 64  # of each kernel that is tuned here, and strategy
MAX_RECORDS = 20_000  # of the log, the newest
SEEDS = [0, 1, 2]

# %% [markdown]
# ## Records to learn from
#
# Three matrix products and three convolutions. Each is tuned in one session of `random`, whose schedules show
# the whole range from the best to the worst, and in one of `evolutionary`, which measures what its model
# likes. All share a log, so the model of a session knows what was measured before.


# %%
def small_model(nodes: list[onnx.NodeProto], x_shape: list[int], w_shape: list[int]) -> onnx.ModelProto:
    shapes = {"x": x_shape, "w": w_shape, "y": None}
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in "xwy")
    graph = helper.make_graph([*nodes, helper.make_node("Relu", ["z"], ["y"])], "small", [x, w], [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def product(m: int, k: int, n: int) -> onnx.ModelProto:
    return small_model([helper.make_node("MatMul", ["x", "w"], ["z"])], [m, k], [k, n])


def convolution(size: int, channels: int, kernel: int, *, is_depthwise: bool = False) -> onnx.ModelProto:
    options = {"pads": [kernel // 2] * 4, "group": channels if is_depthwise else 1}
    w_shape = [channels, 1 if is_depthwise else channels, kernel, kernel]
    node = helper.make_node("Conv", ["x", "w"], ["z"], **options)
    return small_model([node], [1, channels, size, size], w_shape)


MODELS = [
    product(96, 96, 96),
    product(128, 128, 128),
    product(32, 512, 64),
    convolution(14, 32, 3),
    convolution(14, 64, 1),
    convolution(28, 64, 3, is_depthwise=True),
]


def kernel_of(model: onnx.ModelProto) -> TuningTask:
    """Its task with the most arithmetic: those beside it move data only."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        onnx.save(model, path)
        tasks = partition(import_model(path, target=host_target(num_threads=1))).tasks
    return max(tasks, key=lambda task: task.workload.flop)


def tune_small_kernels() -> TuningLog:
    log = TuningLog.open("sqlite://")
    sessions = [
        (task, strategy) for task in map(kernel_of, MODELS) for strategy in ("random", "evolutionary")
    ]
    with LocalMeasurer(WorkerConfig.for_threads(1)) as measurer:
        for task, strategy in sessions:
            tune_tasks(
                [task],
                TuneOptions(Budget(num_trials=NUM_TRIALS), strategy=strategy),
                model_name=task.workload.name,
                store=log,
                measurer=measurer,
                make_space=design_spaces(measurer.pool),
            )
    return log


log = TuningLog.open(log_url(LOG), read_only=True) if LOG else tune_small_kernels()

# %% [markdown]
# A model learns from the records of one CPU, here that with the most. What it learns of a record is its
# **label**, the best time of its task divided by its own: 1 for the best, 0 for a failure. Its **features**
# are what TVM's analysis of the scheduled program counts, 164 numbers for each store of the program; the
# model sees the largest of each column, the row of the main loop nest, and eight numbers of the tile that
# stays in registers, from the schedule itself.

# %%
num_by_cpu: Counter[str] = Counter()
for summary in log.tasks():
    num_by_cpu[summary.target.mcpu] += summary.num_trials
mcpu = num_by_cpu.most_common(1)[0][0]
trials = usable_trials(log.training_trials(mcpu=mcpu, limit=MAX_RECORDS))
data = make_training_set(trials)
names = {summary.task_key: summary.name for summary in log.tasks()}
num_by_task = Counter(trial.record.task_key for trial in trials)
shown_tasks = [key for key, _ in num_by_task.most_common(6)]  # in pictures
print(f"{len(data)} records of {len(num_by_task)} tasks for {mcpu}; {int((data.label == 0).sum())} failed")
for key in shown_tasks:
    print(f"{num_by_task[key]:6d}  {names[key]}")

# %% [markdown]
# ## What it goes by
#
# The model is a sum of trees, and a score divides exactly into what each column adds to it (SHAP values). A
# score counts beside those of the same task only; so what a column adds to all candidates of a task alike is
# taken off. A change of 1 is a factor of two of the predicted time.
#
# Columns that say nearly the same share their importance by chance; their **families** do not. On the right
# is another question: how much worse are candidates ranked that the model has *not* learnt from, if a
# family's columns are exchanged between the candidates of a task? A family may move scores much and be right
# about little.

# %%
is_held_out = held_out_fifth(data, seed=0)
learnt_from, held_out = data.subset(~is_held_out), data.subset(is_held_out)
model = XGBoostCostModel(seed=0)
model.fit(learnt_from)
families = [family for family in family_importance(model, learnt_from) if family.score_change > 0]
losses = permutation_losses(model, held_out, seed=0)
for family in families:
    loss = f", rank correlation falls by {losses[family.name]:+.3f} without it" if losses else ""
    print(f"{family.name}: moves scores by {family.score_change:.2f} on average{loss}")


# %%
def bars(ax: plt.Axes, values: list[float], title: str, color: str) -> None:
    ax.barh(range(len(values)), values, color=color, edgecolor="0.25")
    ax.set_yticks(range(len(values)), [family.name for family in families])
    ax.set_xlabel(title)
    ax.axvline(0, color="0.25", linewidth=0.8)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
bars(axes[0], [one.score_change for one in families], "mean change of a score (1 = factor of 2)", "#0072B2")
bars(
    axes[1], [losses.get(one.name, 0.0) for one in families], "loss of rank correlation without it", "#E69F00"
)
axes[0].invert_yaxis()

# %% [markdown]
# Single columns, in words. The sign is that of the correlation, inside tasks, between a column and what it
# adds: + the more of it, the faster it seems; - the slower; (+) and (-) where that is far from a straight
# line.


# %%
def trend_sign(trend: float) -> str:
    sign = "+" if trend > 0 else "-"
    return f" {sign} " if abs(trend) > 0.5 else f"({sign})"


for one in feature_importance(model, learnt_from)[:12]:
    print(f"{one.score_change:.3f} {trend_sign(one.trend)} {one.name}")

# %% [markdown]
# ## Where it is wrong
#
# ### While tuning
#
# Scores are kept with the records, so the log itself says how the model of each moment ranked what was then
# measured. That is the hardest test: a search measures what its model likes, and among candidates that all
# look good, differences are small.

# %%
quality = model_quality(log.trial_facts())
can_be_shown = len(quality.trials) > 0
print(f"{len(quality.predicted_place)} candidates had been scored before they were measured")
if can_be_shown:
    ax = cost_model(quality)
# %%
if can_be_shown:
    ax = cost_model(quality, show="places")

# %% [markdown]
# ### Predicted and measured
#
# Now every record is predicted by a model that learnt from four fifths of the others. Both axes: times as
# slow as the best of its task. On the line predictions are right; above it, a schedule was slower than it
# seemed. A failure counts as 32 times as slow.

# %%
predicted = held_out_scores(data, fit_predict(seed=0), seed=0)
measured = log2_labels(data.label)
error = predicted - measured  # 1: measured twice as slow as predicted
task_of = np.array([trial.record.task_key for trial in trials])
has_prediction = np.isfinite(predicted)
rank_of = {
    ranking.task_key: ranking.metrics
    for ranking in rank_groups(data.subset(has_prediction), predicted[has_prediction])
}
print("rank correlation   typical error   worst   task")
for key in shown_tasks:
    own = np.abs(error[(task_of == key) & has_prediction])
    if key in rank_of:
        typical, worst = 2 ** np.median(own), 2 ** own.max()
        print(f"{rank_of[key]['spearman']:16.2f}{typical:14.2f} x{worst:6.1f} x   {names[key]}")

# %%
figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), sharex=True, sharey=True, layout="constrained")
is_failure = data.label == 0
limit = 2 ** (0.3 - min(measured.min(), np.nanmin(predicted)))
ticks = [tick for tick in (1, 2, 4, 8, 16, 32) if tick <= limit]
for ax, key in zip(axes.flat, shown_tasks, strict=False):
    own = (task_of == key) & has_prediction
    looks = (("timed", own & ~is_failure, "o", "#0072B2"), ("failed", own & is_failure, "x", "#D55E00"))
    for label, members, marker, color in looks:
        x, y = 2 ** -predicted[members], 2 ** -measured[members]
        ax.plot(x, y, marker, color=color, markersize=4, alpha=0.7, label=label)
    ax.plot([1, limit], [1, limit], color="0.4", linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_yticks(ticks, map(str, ticks))
    ax.set_title(names[key].replace(" -> ", "\n-> "), fontsize=8)
    ax.grid(color="0.9")
for ax in axes.flat[len(shown_tasks) :]:
    ax.axis("off")
figure.supxlabel("predicted: times as slow as the task's best", fontsize=10)
figure.supylabel("measured: times as slow as the task's best", fontsize=10)
if is_failure.any():
    axes.flat[0].legend(frameon=False, fontsize=8)

# %% [markdown]
# ### The worst mistakes
#
# The three tasks with the largest errors, and of each the schedule that was misjudged most, in words. A model
# that learnt from all but this record says which columns misled it most: they add to the score, +1 for a
# factor of two faster, or take away from it.


# %%
def times(log2_of_label: float) -> str:
    return f"{2**-log2_of_label:.1f} times as slow as the best"


def misleading(index: int, *, num_shown: int = 4) -> list[str]:
    """The columns that drew the score of this candidate, among those of its task, to the wrong side."""
    others = XGBoostCostModel(seed=0)
    others.fit(data.subset(np.arange(len(data)) != index))
    in_group = data.group == data.group[index]
    added = others.contributions(pool_rows(data.features.subset(in_group)))
    own = added[np.count_nonzero(in_group[:index])] - added.mean(axis=0)
    worst = np.argsort(-own * np.sign(error[index]))[:num_shown]
    return [f"{own[column]:+.2f} {pooled_column_name(column)}" for column in worst]


def show(title: str, parts: list[str]) -> None:
    print(textwrap.fill(f"{title}: " + "; ".join(parts), 110, initial_indent="  ", subsequent_indent="    "))


worst_of_task: dict[str, int] = {}
for index in np.argsort(-np.abs(np.nan_to_num(error))):
    worst_of_task.setdefault(task_of[index], int(index))
for key, index in list(worst_of_task.items())[:3]:
    trial = trials[index]
    outcome = times(measured[index]) if data.label[index] else "failed"
    print(f"{names[key]}, trial {trial.record_id}")
    print(f"  predicted {times(predicted[index])}, measured: {outcome}")
    show("schedule", schedule_words(trial.record.candidate.trace_json))
    show("misled by", misleading(index))

# %% [markdown]
# ## What it knows of other tasks
#
# ### From one task to another
#
# A model that learnt from one task only ranks a fifth of every task, from which it did not learn. The
# diagonal is what a task's own records are worth; a row with high numbers beside it is a task that teaches
# others.

# %%
transfers = transfer_matrix(data, fit_predict(seed=0), seed=0)
correlation = np.full((len(shown_tasks), len(shown_tasks)), np.nan)
for one in transfers:
    if one.learnt_from in shown_tasks and one.ranked in shown_tasks:
        row, column = shown_tasks.index(one.learnt_from), shown_tasks.index(one.ranked)
        correlation[row, column] = one.metrics["spearman"]
is_own = np.eye(len(shown_tasks), dtype=bool)
for what, of in (("its own records", is_own), ("one other task", ~is_own)):
    known = correlation[of & np.isfinite(correlation)]
    if known.size:
        print(f"mean rank correlation after learning from {what}: {known.mean():.2f}")

# %%
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
image = ax.imshow(correlation, cmap="Greys", vmin=0, vmax=1, aspect="auto")
for (row, column), value in np.ndenumerate(correlation):
    text = f"{value:.2f}" if np.isfinite(value) else "too few"
    ax.text(column, row, text, ha="center", va="center", color="white" if value > 0.6 else "black")
letters = "ABCDEF"[: len(shown_tasks)]
ax.set_xticks(range(len(letters)), list(letters))
labels = [f"{names[key]}  {letter}" for letter, key in zip(letters, shown_tasks, strict=True)]
ax.set_yticks(range(len(letters)), labels, fontsize=8)
ax.set_xlabel("task of which a fifth is ranked")
ax.set_ylabel("task that was learnt from")
bar = figure.colorbar(image, ax=ax, label="rank correlation (0 = chance)")

# %% [markdown]
# ### Unseen tasks
#
# Here the model learns from all tasks but one (of many tasks, from four fifths of them) and ranks the one
# that it has not seen, as `tunewright model evaluate` does. The top-1 score is the speed of the candidate
# that it would choose, as a share of the best one's.

# %%
unseen = rank_unseen_tasks(data, fit_predict(seed=0), seed=0)
print("rank correlation   right pairs   top-1 score   task")
for ranking in sorted(unseen, key=lambda one: -one.num_candidates)[:12]:
    metrics = ranking.metrics
    print(
        f"{metrics['spearman']:16.2f}{100 * metrics['pairwise_accuracy']:12.0f} %"
        f"{metrics['top_1_score']:14.2f}   {names[ranking.task_key]}"
    )

# %% [markdown]
# ### How many records it takes
#
# Models that learnt from more and more records, drawn at random; what they rank stays the same. The lines are
# medians over seeds, the bands go from the best to the worst of them. A log holds twins, schedules that
# differ in next to nothing: candidates of known tasks are ranked by models that may have seen their twins,
# unseen tasks not.

# %%
most = len(data) * 4 // 5
sizes = sorted({round(most / 1.5**step) for step in range(9) if most / 1.5**step >= 8})
curves = [learning_curve(data, fit_predict(seed=seed), sizes, seed=seed) for seed in SEEDS]
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
looks = (
    ("known", "candidates of known tasks", "#0072B2", "-", "o"),
    ("unseen", "unseen tasks", "#D55E00", "--", "s"),
)
for kind, label, color, linestyle, marker in looks:
    drawn = []
    for points in zip(*curves, strict=True):  # of one size, one for each seed
        values = [getattr(point, kind).get("spearman") for point in points]
        if None not in values:  # there are so many records, and candidates to rank
            drawn.append((points[0].num_records, values))
    if drawn:
        x, y = zip(*drawn, strict=True)
        ax.plot(x, np.median(y, axis=1), color=color, linestyle=linestyle, marker=marker, label=label)
        ax.fill_between(x, np.min(y, axis=1), np.max(y, axis=1), color=color, alpha=0.2, linewidth=0)
        print(f"{label}: " + ", ".join(f"{size} records {np.median(values):.2f}" for size, values in drawn))
ax.axhline(0, color="0.4", linewidth=0.8)
ax.set_xscale("log")
ax.set_xticks(sizes, map(str, sizes))
ax.set_xticks([], minor=True)
ax.set_xlabel("records to learn from")
ax.set_ylabel("rank correlation (0 = chance, 1 = perfect)")
ax.grid(color="0.9")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)

# %%
log.close()
