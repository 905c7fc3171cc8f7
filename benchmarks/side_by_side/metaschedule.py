"""TVM's own tuner: `tune_tir` with its defaults, on the canonical module and with the "llvm" rule set.

The rules that TVM chooses itself on a CPU with AVX-512 contain int8 intrinsics which do not build or compute
wrong numbers in 0.27, so all tuners share the set without them. Everything else is TVM's default: 64 trials
per iteration, XGBoost cost model, LocalBuilder and LocalRunner, JSON database.

"Patched" leaves out one thing: the import of `tvm.s_tir.tensor_intrin`, 25-40 s of parsing intrinsics that
this rule set never uses, which every builder process repeats for every batch.
"""

import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from side_by_side.results import Trial, Tuned
from tunewright.core.types import TuningTask

# Scopes of TVM's profiler.
_BUILD, _RUN = ("SendToBuilder",), ("SendToRunner", "JoinRunnerFutures")
_MODEL = ("MeasureCallback/UpdateCostModel",)
_SEARCH, _SEARCH_DEPTH = "EvoSearch/", 2  # a scope with more slashes lies inside another one


def import_shipped() -> None:
    """What `tune_tir` needs, as TVM loads it; torch is hidden by the caller's path."""
    import tvm.s_tir.meta_schedule
    import tvm.s_tir.tensor_intrin  # noqa: F401
    import xgboost  # noqa: F401


def import_patched() -> None:
    """The same without the tensor intrinsics."""
    import xgboost  # noqa: F401

    from tunewright.core import tvm_adapter  # noqa: F401


def tune(
    task: TuningTask, *, num_trials: int, seed: int, is_patched: bool, limit_secs: float = float("inf")
) -> Tuned:
    """Tune a task from nothing; after `limit_secs`, the session ends with the batch that is under way."""
    import tvm
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target

    mod = tvm.ir.load_json(task.workload.mod_json)
    target = Target(task.target.to_dict())
    started = time.monotonic()
    recorder = _make_recorder(deadline=started + limit_secs)
    with TemporaryDirectory(prefix="metaschedule-") as work_dir, ms.Profiler() as profiler:
        try:
            ms.tune_tir(
                mod,
                target,
                work_dir,
                max_trials_global=num_trials,
                builder=_patched_builder(ms) if is_patched else "local",
                measure_callbacks=[recorder, *ms.MeasureCallback.create("default")],
                space="llvm",
                seed=seed + 1,  # 0 is refused
            )
        except Exception:
            if not recorder._inst.is_late:
                raise
        wall_secs = time.monotonic() - started
    scopes = {str(name): float(secs) for name, secs in profiler.get().items()}
    results = recorder._inst.results
    successes = [(secs, index) for index, (_, secs, _, _) in enumerate(results) if secs is not None]
    best = min(successes, default=None)
    return Tuned(
        trials=[Trial(at - started, secs, failure) for at, secs, failure, _ in results],
        wall_secs=wall_secs,
        split=_split(scopes, wall_secs),
        best_trace=_trace_json(results[best[1]][3]) if best else None,
        best_secs=best[0] if best else None,
        extra={"profiler": scopes},
    )


def _split(scopes: dict[str, float], wall_secs: float) -> dict[str, float]:
    build, run, model = (sum(scopes.get(name, 0.0) for name in names) for names in (_BUILD, _RUN, _MODEL))
    is_search = {name: name.startswith(_SEARCH) and name.count("/") <= _SEARCH_DEPTH for name in scopes}
    search = sum(secs for name, secs in scopes.items() if is_search[name])
    other = wall_secs - build - run - model - search
    return {"build": build, "run": run, "search": search, "model": model, "other": other}


def _make_recorder(deadline: float) -> Any:
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule as ms

    @derived_object
    class Recorder(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc]
        """Runs first when a batch's results are joined: (moment, seconds or None, failure, trace)."""

        def __init__(self) -> None:
            super().__init__()
            self.results: list[tuple[float, float | None, str, Any]] = []
            self.is_late = False

        def apply(self, scheduler: Any, task_id: int, candidates: Any, builds: Any, runs: Any) -> None:
            now = time.monotonic()
            for candidate, build, run in zip(candidates, builds, runs, strict=True):
                failure = _failure(build.error_msg, run.error_msg)
                secs = None
                if not failure:
                    samples = [float(sample) for sample in run.run_secs]
                    secs = sum(samples) / len(samples)
                self.results.append((now, secs, failure, candidate.sch.trace))
            if now > deadline:
                self.is_late = True
                raise TimeoutError("the session takes longer than it may")  # the only way to end it

    return Recorder()


def _failure(build_error: str | None, run_error: str | None) -> str:
    for phase, error in (("build", build_error), ("run", run_error)):
        if error is not None:
            return f"{phase}_timeout" if "Timeout" in str(error) else phase
    return ""


def _trace_json(trace: Any) -> str:
    from tunewright.core.tvm_adapter.traces import trace_to_json

    return trace_to_json(trace)


def _patched_builder(ms: Any) -> Any:
    return ms.builder.LocalBuilder(f_build=_build_without_intrinsics())


def _build_without_intrinsics() -> Callable[..., Any]:
    """TVM's `default_build` less its first import. Nested, so that it is sent to the builders by value."""

    def build(mod: Any, target: Any, _params: Any) -> Any:
        from tvm.driver import build as tvm_build
        from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

        return tvm_build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod), target=target)

    return build
