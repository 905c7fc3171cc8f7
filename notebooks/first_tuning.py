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
# # A first tuning
#
# One matrix product, tuned by two strategies on this machine. `random` measures schedules drawn from the
# design space; `evolutionary` mutates the best ones and measures those that a cost model, trained on the
# trials so far, ranks first. Each runs with three seeds, and a log of its own so that nobody learns from
# anybody else.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.units import format_ms
from tunewright.plots import best_so_far, tuning_curve
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.tuning_logs.trial_facts import TrialFacts
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

SIZE = 256
NUM_TRIALS = 64
SEEDS = [0, 1, 2]

# %% [markdown]
# ## From a model to tasks
#
# Any ONNX file will do; this one holds a single product and its ReLU. Importing fuses the two, and
# partitioning finds the tasks: each distinct subgraph once, with the number of its calls.


# %%
def matmul_model(size: int) -> onnx.ModelProto:
    x, w, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xwy")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Relu", ["product"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "matmul_relu", [x, w], [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


with TemporaryDirectory() as folder:
    path = Path(folder) / "matmul.onnx"
    onnx.save(matmul_model(SIZE), path)
    model = import_model(path, target=host_target(num_threads=1))
tasks = partition(model).tasks
for task in tasks:
    print(f"{task.workload.name}: {task.workload.flop / 1e6:.1f} MFLOP, {task.target}")

# %% [markdown]
# ## Tuning
#
# The measurer builds and times every candidate in a child process of its own. The log keeps every trial; a
# log in memory (`sqlite://`) is enough here.


# %%
def tune(strategy: str, seed: int) -> list[TrialFacts]:
    """The trials of one session, in the order in which they were measured."""
    options = TuneOptions(Budget(num_trials=NUM_TRIALS), strategy=strategy, seed=seed, batch_size=8)
    with TuningLog.open("sqlite://") as log, LocalMeasurer(WorkerConfig.for_threads(1)) as measurer:
        finished = tune_tasks(
            tasks,
            options,
            model_name="matmul",
            store=log,
            measurer=measurer,
            make_space=design_spaces(measurer.pool),
        )
        return list(log.trial_facts(session_id=finished.session_id))


trials = {strategy: [tune(strategy, seed) for seed in SEEDS] for strategy in ("evolutionary", "random")}

# %% [markdown]
# ## Best so far
#
# The line is the median of the three seeds, the band goes from the best of them to the worst. The first trial
# is Tunewright's default schedule.

# %%
weights = {task.key: task.weight for task in tasks}
curves = {strategy: [best_so_far(run, weights) for run in runs] for strategy, runs in trials.items()}
for strategy, runs in curves.items():
    print(f"{strategy}: " + ", ".join(format_ms(run.latency_secs[-1]) for run in runs))

# %%
ax = tuning_curve(curves, x="trials")
# %%
ax = tuning_curve(curves, x="wall_seconds")
