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
# # Anatomy of a schedule
#
# One subgraph, a matrix product with its bias and ReLU, from the program as it is written to the one that
# tuning finds. Each step changes one thing: loop tiles, vectors, registers, fusion, threads. After each one
# its function is shown as TVM has it (TIR), what it computes is compared with NumPy's float64, and in the end
# all of them are timed side by side on this machine.

# %%
import os

NUM_THREADS = min(4, len(os.sched_getaffinity(0)))
# The outputs are checked in this process; timing runs in processes of its own.
os.environ["TVM_NUM_THREADS"] = str(NUM_THREADS)
os.environ["TVM_BIND_THREADS"] = "0"

from dataclasses import dataclass, replace

import numpy as np
from IPython.display import HTML, display
from matplotlib import pyplot
from tvm import te

from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.kernel import build_kernel, replay
from tunewright.core.tvm_adapter.target import host_target, vector_lanes
from tunewright.core.tvm_adapter.traces import block_names, new_schedule, trace_to_json
from tunewright.core.types import Candidate, EvaluatorConfig, MeasureInput, MeasureSuccess, Origin, TuningTask
from tunewright.core.units import format_ms
from tunewright.explore import ScheduledTir, schedule_diff, schedule_words, tir_diff_html
from tunewright.plots.axes import plain_log_ticks, tidy
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

ROWS, DEPTH, COLUMNS = 512, 128, 512
NUM_TRIALS = 64
ROUNDS = 21
SEED = 1

# %% [markdown]
# ## The subgraph
#
# Three loop nests, one after the other: the product, the bias, the ReLU. Between them stand matrices in
# memory. Tunewright renames everything, so that the same computation has the same key whatever it was called.


# %%
def dense_bias_relu(rows: int, depth: int, columns: int) -> te.Tensor:
    x = te.placeholder((rows, depth), name="x")
    w = te.placeholder((depth, columns), name="w")
    bias = te.placeholder((columns,), name="bias")
    k = te.reduce_axis((0, depth), "k")
    product = te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="product")
    biased = te.compute((rows, columns), lambda i, j: product[i, j] + bias[j], name="biased")
    y = te.compute((rows, columns), lambda i, j: te.max(biased[i, j], 0.0), name="y")
    return te.create_prim_func([x, w, bias, y])


target = host_target(NUM_THREADS)
workload = canonical_workload(
    dense_bias_relu(ROWS, DEPTH, COLUMNS), name=f"{ROWS}x{DEPTH} * {DEPTH}x{COLUMNS} + bias, ReLU"
)
task = TuningTask(workload, target)
lanes = vector_lanes(target)
print(f"{workload.flop / 1e6:.0f} MFLOP, {NUM_THREADS} threads of {target.mcpu}, {lanes} lanes to a vector")

# %% [markdown]
# ## What is right
#
# The reference is NumPy's, with all products and sums in float64. What a step computes is compared with it
# relative to the largest value: sums of float32 in another order differ in their last digits.

# %%
rng = np.random.default_rng(SEED)
x, w, bias = (rng.standard_normal(arg.shape).astype(np.float32) for arg in workload.args[:3])
expected = np.maximum(x.astype(np.float64) @ w.astype(np.float64) + bias, 0.0)


def max_relative_error(scheduled) -> float:
    """Of the function's output, computed once in this process."""
    kernel = build_kernel(scheduled, target).bind([x, w, bias, np.empty_like(expected, dtype=np.float32)])
    kernel.poison()
    kernel.run()
    return float(np.abs(kernel.outputs()[0] - expected).max() / np.abs(expected).max())


@dataclass(frozen=True)
class Step:
    """A program on the way; its schedule stays usable, for the next step copies it."""

    name: str
    schedule: object
    error: float

    @property
    def tir(self) -> ScheduledTir:
        return ScheduledTir.of_script(self.name, self.schedule.mod.script())

    @property
    def candidate(self) -> Candidate:
        return Candidate(task.key, trace_to_json(self.schedule.trace), Origin.REPLAY)


steps: list[Step] = []


def add_step(name: str, draft, *, starts_apart: bool = True) -> None:
    """Check a program, keep it, and show what is new in it.

    The sum's start becomes a loop nest of its own, outside of the sum's loop, where `starts_apart`: last of
    all, for after it TVM does not know any more that the block is a sum.
    """
    schedule = draft.copy()
    if starts_apart:
        block = schedule.get_sblock(PRODUCT)
        schedule.decompose_reduction(block, schedule.get_loops(block)[SUM_LOOP])
    step = Step(name, schedule, max_relative_error(schedule.mod))
    print(f"{name}: largest relative error {step.error:.1e}")
    display(step.tir if not steps else HTML(tir_diff_html(steps[-1].tir, step.tir, is_open=True)))
    steps.append(step)


# %% [markdown]
# ## As it is written
#
# For each element of the output all of a row and a column are read; scalar arithmetic; one thread.

# %%
draft = new_schedule(load_module(workload.mod_json), seed=SEED)
PRODUCT, BIASED, RELU = block_names(draft)
add_step("as written", draft, starts_apart=False)

# %% [markdown]
# ## Tiles
#
# The output is computed tile by tile. What a tile needs of `x` and `w` stays in the caches, and the innermost
# loop runs along the rows of `w` and of the output, which are contiguous. The sum's start becomes a loop nest
# of its own.

# %%
TILE_ROWS, TILE_COLUMNS = 8, 2 * lanes

i, j, k = draft.get_loops(draft.get_sblock(PRODUCT))
row_tiles, row = draft.split(i, [None, TILE_ROWS])
column_tiles, column = draft.split(j, [None, TILE_COLUMNS])
draft.reorder(row_tiles, column_tiles, k, row, column)
SUM_LOOP = 2
add_step("tiles", draft)

# %% [markdown]
# ## Vectors
#
# The columns of a tile are computed by as many lanes as a vector register has; bias and ReLU likewise.

# %%
vectors, within = draft.split(column, [None, lanes])
draft.vectorize(within)


def vectorize_rows(name: str) -> None:
    """The innermost loop of a block, in vectors."""
    *_, last = draft.get_loops(draft.get_sblock(name))
    draft.vectorize(draft.split(last, [None, lanes])[1])


vectorize_rows(BIASED)
vectorize_rows(RELU)
add_step("vectors", draft)

# %% [markdown]
# ## Registers
#
# With the loops over a tile unrolled, its accumulators have places that the compiler knows: they stay in
# registers while the sum runs, and need not go to memory and back for each product.

# %%
draft.unroll(row)
draft.unroll(vectors)
add_step("registers", draft)

# %% [markdown]
# ## Threads
#
# Tiles of the output do not depend on each other: all threads take some of them. The other two loop nests
# are shared, too.


# %%
def share_rows(name: str) -> None:
    """The outermost loop of a block, shared by the threads."""
    draft.parallel(draft.get_loops(draft.get_sblock(name))[0])


unfused = draft.copy()
for name in (PRODUCT, BIASED, RELU):
    share_rows(name)
add_step("threads", draft)

# %% [markdown]
# ## Fusion
#
# Bias and ReLU move into the tile: one loop nest, and the output is written once. Of the two matrices between
# the loop nests one is gone; the other is cut down to a tile when TVM lowers the program.

# %%
draft = unfused
draft.compute_inline(draft.get_sblock(BIASED))
draft.reverse_compute_at(draft.get_sblock(RELU), column_tiles, preserve_unit_loops=True)
vectorize_rows(RELU)
fused_on_one = draft.copy()
share_rows(PRODUCT)
add_step("fusion", draft)

# %% [markdown]
# ## What tuning finds
#
# The same subgraph, tuned with as many threads. The champion is a trace of TVM's schedule primitives like
# those above; here it is in words, and what it does otherwise than the program made by hand.

# %%
config = replace(WorkerConfig.for_threads(NUM_THREADS), drops_duplicates=False)
measurer = LocalMeasurer(config)
with TuningLog.open("sqlite://") as log:
    finished = tune_tasks(
        [task],
        TuneOptions(Budget(num_trials=NUM_TRIALS), seed=SEED),
        model_name="dense",
        store=log,
        measurer=measurer,
        make_space=design_spaces(measurer.pool),
    )
    [champion] = log.best(task)
trace_json = champion.trial.record.candidate.trace_json
print(*schedule_words(trace_json), sep="\n")
print("\nby hand -> champion")
print(*schedule_diff(steps[-1].candidate.trace_json, trace_json), sep="\n")

# %%
champion_module = replay(workload.mod_json, trace_json)
champion_error = max_relative_error(champion_module)
print(f"champion: largest relative error {champion_error:.1e}")
display(ScheduledTir.of_script("champion", champion_module.script()))

# %% [markdown]
# ## Times
#
# All programs are built and held in processes of their own and timed in turns: each round takes one sample of
# each, in random order, so that what slows the machine for a while slows all of them. A sample is the mean of
# as many calls as last 5 ms. Bars are medians, lines go from quartile to quartile.

# %%
add_step("fusion, one thread", fused_on_one)
alone = steps.pop()
candidates = {step.name: step.candidate for step in (*steps, alone)}
candidates["champion"] = champion.trial.record.candidate
evaluator = EvaluatorConfig(min_sample_secs=0.005, build_timeout_secs=120.0, run_timeout_secs=120.0)
inputs = [MeasureInput(task, candidate, evaluator) for candidate in candidates.values()]
results = measurer.interleave(inputs, rounds=ROUNDS, rng=np.random.default_rng(SEED))
measurer.close()
samples = {}
for name, result in zip(candidates, results, strict=True):
    assert isinstance(result, MeasureSuccess), f"{name}: {result}"
    samples[name] = np.array(result.run_secs)
first = np.median(samples["as written"])
for name, secs in samples.items():
    low, median, high = np.quantile(secs, (0.25, 0.5, 0.75))
    rate = workload.flop / median / 1e9
    print(
        f"{name}: {format_ms(median)} (quartiles {format_ms(low)} to {format_ms(high)}, n = {len(secs)}), "
        f"{rate:.1f} GFLOP/s, {first / median:.1f}x"
    )


# %%
def bars(ax, names: list[str]) -> None:
    """A bar for each program: its median, with a line from quartile to quartile, in milliseconds."""
    quartiles = [np.quantile(samples[name], (0.25, 0.5, 0.75)) for name in names]
    low, median, high = 1e3 * np.array(quartiles).T
    error = [median - low, high - median]
    ax.barh(names, median, xerr=error, color="#9AD0F5", edgecolor="#00395A", ecolor="#00395A", capsize=3)
    for row, (value, end) in enumerate(zip(median, high, strict=True)):
        ax.annotate(
            f"{format_ms(value / 1e3)}, {workload.flop / value / 1e6:.0f} GFLOP/s",
            (end, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.invert_yaxis()
    tidy(ax)
    ax.grid(visible=False, axis="y")


figure, ax = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
bars(ax, [*(step.name for step in steps), "champion"])
ax.set_xscale("log")
plain_log_ticks(ax.xaxis)
ax.set_xlim(right=6 * ax.get_xlim()[1])
ax.set_xlabel("time per call (ms, logarithmic)")
ax.set_title(f"{workload.name}; the last three with {NUM_THREADS} threads", fontsize="medium")
pyplot.show()

# %% [markdown]
# ## Fused and unfused
#
# The same tiles, vectors and registers, with bias and ReLU in loop nests of their own and in the tile. What
# fusion saves is memory traffic: the shorter the sum of the product, the larger its part.

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(10, 1.9), layout="constrained")
pairs = {"one thread": ("registers", "fusion, one thread"), f"{NUM_THREADS} threads": ("threads", "fusion")}
for ax, (title, names) in zip(axes, pairs.items(), strict=True):
    bars(ax, list(names))
    ax.set_yticks([0, 1], ["unfused", "fused"])
    ax.set_xlim(0, 1.7 * ax.get_xlim()[1])
    ax.set_xlabel("time per call (ms)")
    unfused_secs, fused_secs = (np.median(samples[name]) for name in names)
    ax.set_title(f"{title}: fused takes {fused_secs / unfused_secs:.2f}x the time")
    print(f"{title}: unfused {format_ms(unfused_secs)}, fused {format_ms(fused_secs)}")
pyplot.show()
