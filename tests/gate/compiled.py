"""Real kernels and models that are compiled in a moment, and schedules whose speeds are far apart."""

from pathlib import Path

from tests.models import dense_net
from tests.scheduler.in_process import record, replay
from tests.workers.workloads import default_trace_json
from tunewright.core.keys import canonical_json
from tunewright.core.log_url import file_url
from tunewright.core.types import TuningTask
from tunewright.tuning_logs import TuningLog

DEFAULT, PLAIN, PLAIN_AGAIN = "default", "plain loops", "plain loops by another trace"
"""Plain loops are several times as slow as the default schedule of a product; the last two are alike."""

_MARK = ["EnterPostproc", [], [], []]


def trace_of(task: TuningTask, kind: str) -> str:
    if kind == DEFAULT:
        return default_trace_json(task)
    return canonical_json([[_MARK] * (1 if kind == PLAIN else 2), []])


def make_log(path: Path, *champions: tuple[TuningTask, str]) -> str:
    """A log in which each trace is the best of its task."""
    with TuningLog.open(file_url(path)) as log:
        for number, (task, trace_json) in enumerate(champions):
            record(log, task, trace_json, 1e-5, trial_index=number)
    return str(path)


def compiled_net(folder: Path, name: str, *, hidden: int = 32, seed: int = 0) -> Path:
    """Two dense layers, compiled for one thread; those with more `hidden` units take longer."""
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.kernel_choice import Variant
    from tunewright.scheduler.stitch import CompileOptions, compile_model

    path = dense_net(folder / f"{name}.onnx", hidden=hidden, seed=seed)
    model = import_model(path, target=host_target(num_threads=1))
    compile_model(model, folder / name, log=None, replay=replay, options=CompileOptions(Variant.DEFAULT))
    return folder / name
