"""The yardstick's kernel in its child: a matrix product of fixed size under the default schedule."""

from tvm import te

from tunewright.core.tvm_adapter.canonical import canonical_workload
from tunewright.core.tvm_adapter.default_schedule import simple_trace
from tunewright.core.tvm_adapter.kernel import replay
from tunewright.core.types import TargetSpec, TuningTask, Workload
from tunewright.workers.candidate_job import HeldKernel, time_build
from tunewright.workers.codec import task_to_dict

# 50 million operations on 0.75 MiB: about a millisecond, out of the caches and into the vector units.
_SIZE = 256


def yardstick_workload() -> Workload:
    """The same on every machine."""
    a, b = (te.placeholder((_SIZE, _SIZE), name=name) for name in "ab")
    k = te.reduce_axis((0, _SIZE), "k")
    c = te.compute((_SIZE, _SIZE), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    return canonical_workload(te.create_prim_func([a, b, c]), name="yardstick")


def build_yardstick(target: TargetSpec, input_seed: int) -> HeldKernel:
    """Build it for a target's CPU and threads."""
    workload = yardstick_workload()
    trace_json = simple_trace(workload.mod_json, target)
    task = task_to_dict(TuningTask(workload, target))
    payload = {"task": task, "input_seed": input_seed, "streamed_bytes": 0}
    return time_build(payload, lambda: replay(workload.mod_json, trace_json))
