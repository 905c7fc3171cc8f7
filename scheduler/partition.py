"""Break a model into tuning tasks: the same subgraph once, weighted by its calls."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from tunewright.core.types import JOINED, TargetSpec, TaskKey, TensorSpec, TuningTask, Workload

if TYPE_CHECKING:
    # Imports ONNX, which commands that read the log alone need not wait for.
    from tunewright.scheduler.importer import ImportedModel

# What the estimate of a task's time assumes of one thread. Only the ratio matters for shares: about what
# one AVX-512 core of a shared cloud machine reaches.
ASSUMED_GFLOPS_PER_THREAD = 60.0
ASSUMED_GBYTES_PER_SEC = 10.0


@dataclass(frozen=True, slots=True)
class Partition:
    """The tasks of a model, largest predicted share first.

    `functions` maps each function of the model's graph to its task; `untunable` maps the others to the
    reason, and they are compiled as they are.
    """

    tasks: tuple[TuningTask, ...]
    functions: Mapping[str, TaskKey]
    untunable: Mapping[str, str]

    def share(self, task: TuningTask) -> float:
        """The task's share of the model's predicted time, in [0, 1]."""
        total = sum(predicted_secs(other) * other.weight for other in self.tasks)
        return predicted_secs(task) * task.weight / total if total else 0.0


def partition(model: "ImportedModel") -> Partition:
    """The distinct workloads of a model; names of nodes and constants, and weights, play no part."""
    from tunewright.core.tvm_adapter.canonical import canonical_workload
    from tunewright.core.tvm_adapter.graph import call_sites

    tasks: dict[TaskKey, TuningTask] = {}
    functions: dict[str, TaskKey] = {}
    untunable: dict[str, str] = {}
    for site in call_sites(model.graph):
        try:
            workload = canonical_workload(site.func, name=site.label)
        except ValueError as exc:
            untunable[site.function] = str(exc)
            continue
        task = TuningTask(replace(workload, name=task_name(workload)), model.target, site.num_calls)
        functions[site.function] = task.key
        known = tasks.get(task.key)
        tasks[task.key] = replace(known, weight=known.weight + task.weight) if known else task
    ordered = sorted(tasks.values(), key=lambda task: -predicted_secs(task) * task.weight)
    return Partition(tuple(ordered), functions, untunable)


def predicted_secs(task: TuningTask) -> float:
    """Roofline estimate of one call: all arguments moved once, all work done at the assumed peaks."""
    return roofline_secs(task.workload, task.target)


def roofline_secs(workload: Workload, target: TargetSpec) -> float:
    compute_secs = workload.flop / (ASSUMED_GFLOPS_PER_THREAD * 1e9 * target.num_threads)
    memory_secs = workload.arg_bytes / (ASSUMED_GBYTES_PER_SEC * 1e9)
    return max(compute_secs, memory_secs)


def task_name(workload: Workload) -> str:
    """conv2d_add_relu of three arguments -> "conv2d_add_relu 64x56x56 * 64x64x3x3 -> 64x56x56".

    Of joined images that are read in place "joined_matmul 55x55x64 + 55x55x64 * 128x16 -> 55x55x16".
    """
    inputs = [arg for arg in workload.args[:-1] if len([n for n in arg.shape if n != 1]) > 1]
    count = 1
    if workload.name.startswith(JOINED):
        count = sum(1 for _ in takewhile(lambda arg: arg.shape[:-1] == inputs[0].shape[:-1], inputs))
    operands = [" + ".join(map(_shape, inputs[:count])), *map(_shape, inputs[count : count + 1])]
    shown = " * ".join(filter(None, operands)) or _shape(workload.args[0])
    return f"{workload.name} {shown} -> {_shape(workload.args[-1])}"


def _shape(spec: TensorSpec) -> str:
    shape = spec.shape[1:] if len(spec.shape) > 2 and spec.shape[0] == 1 else spec.shape
    return "x".join(map(str, shape)) or "scalar"
