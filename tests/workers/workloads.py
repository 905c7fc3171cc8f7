"""A small task for real measuring."""

from functools import cache

from tunewright.core.types import Candidate, EvaluatorConfig, MeasureInput, Origin, TuningTask

QUICK = EvaluatorConfig(
    min_sample_secs=0.0005, max_samples=4, prune_ratio=1e12, build_timeout_secs=60.0, run_timeout_secs=60.0
)
"""Never prunes: a busy machine must not change what a test sees."""


@cache
def matmul_task(n: int = 64, num_threads: int = 1) -> TuningTask:
    """A square float32 matrix product."""
    from tvm import te

    import tunewright.core.tvm_adapter  # noqa: F401  first, as it hides torch from TVM
    from tunewright.core.tvm_adapter.canonical import canonical_workload
    from tunewright.core.tvm_adapter.target import host_target

    a, b = te.placeholder((n, n), name="a"), te.placeholder((n, n), name="b")
    k = te.reduce_axis((0, n), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    workload = canonical_workload(te.create_prim_func([a, b, c]), name=f"matmul{n}")
    return TuningTask(workload, host_target(num_threads))


def measure_input(
    task: TuningTask,
    trace_json: str,
    evaluator: EvaluatorConfig = QUICK,
    *,
    incumbent_secs: float | None = None,
) -> MeasureInput:
    """A measure input for a trace, or for a text that names a fault."""
    return MeasureInput(task, Candidate(task.key, trace_json, Origin.REPLAY), evaluator, incumbent_secs)


@cache
def default_trace_json(task: TuningTask) -> str:
    """A trace that applies."""
    from tunewright.core.tvm_adapter.default_schedule import default_trace

    return default_trace(task.workload.mod_json, task.target)
