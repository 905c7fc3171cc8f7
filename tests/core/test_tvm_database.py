"""TVM's own pass finds the log's schedules: those of the same workload and target, and no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import kernels
from tests.models import dense_net, run_onnxruntime
from tests.scheduler.in_process import record, sampled_trace
from tunewright.core.types import TargetSpec, TuningTask
from tunewright.scheduler.importer import ImportedModel, import_model
from tunewright.scheduler.partition import partition
from tunewright.tuning_logs import TuningLog

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

BROKEN = '[[["GetSBlock",[],["no_such_block","main"],["b0"]]],[]]'


@pytest.fixture
def log() -> Iterator[TuningLog]:
    with TuningLog.open("sqlite://") as log:
        yield log


@pytest.fixture
def target() -> TargetSpec:
    from tunewright.core.tvm_adapter.target import host_target

    return host_target(num_threads=1)


def apply_database(log: TuningLog, target: TargetSpec, mod: Any) -> Any:
    """The module after TVM's pass."""
    from tvm import relax

    from tunewright.core.tvm_adapter.tvm_database import tvm_database

    with tvm_database(log, target):
        return relax.transform.MetaScheduleApplyDatabase()(mod)


def scheduled(mod: Any) -> set[str]:
    return {
        str(var.name_hint) for var, func in mod.functions.items() if "tirx.is_scheduled" in (func.attrs or {})
    }


def matmul(target: TargetSpec, prefix: str) -> tuple[Any, TuningTask]:
    """A function with names of its own, and the task of that computation."""
    from tunewright.core.tvm_adapter.canonical import canonical_workload

    func = kernels.matmul_relu(prefix=prefix).func
    return func, TuningTask(canonical_workload(func, name="matmul"), target)


def run(model: ImportedModel, mod: Any, target: TargetSpec, x: Any) -> Any:
    """The output of a module whose packing has been lifted out of the main function."""
    import tvm
    from tvm import relax

    from tunewright.core.tvm_adapter.target import tvm_target

    host = tvm_target(target)
    built = relax.build(mod, target=host, relax_pipeline=relax.get_default_pipeline(host))
    machine = relax.VirtualMachine(built, tvm.cpu())
    weights = machine["prepare_params"]([tvm.runtime.tensor(param) for param in model.params])
    packed = machine["main_transform_params"](weights)
    result = machine["main"](tvm.runtime.tensor(x), *packed)
    return (result if isinstance(result, tvm.runtime.Tensor) else result[0]).numpy()


def test_exactly_the_recorded_function_is_scheduled_and_the_model_stays_right(
    log: TuningLog, target: TargetSpec, tmp_path: Path
) -> None:
    from tvm import relax

    path = dense_net(tmp_path / "m.onnx")
    model = import_model(path, target=target)
    tasks = partition(model)
    known, unknown = tasks.tasks
    record(log, known, sampled_trace(known, packs_weights=True), 1e-5)
    applied = apply_database(log, target, model.graph.mod)
    assert scheduled(applied) == {name for name, key in tasks.functions.items() if key == known.key}
    assert {name for name, key in tasks.functions.items() if key == unknown.key} - scheduled(applied)
    for passed in (relax.transform.SplitLayoutRewritePreproc(), relax.transform.LiftTransformParams()):
        applied = passed(applied)
    assert any(str(var.name_hint).endswith("weight_prepack") for var in applied.functions)
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    expected = run_onnxruntime(path, {"x": x})["y"]
    np.testing.assert_allclose(run(model, applied, target, x), expected, rtol=1e-4, atol=1e-5)


def test_names_and_history_of_the_asked_function_play_no_part(log: TuningLog, target: TargetSpec) -> None:
    import tvm

    _, task = matmul(target, "mine_")
    record(log, task, sampled_trace(task), 1e-5)
    func, same = matmul(target, "theirs_")
    assert same.key == task.key
    history = {"op_pattern": 4, "global_symbol": "fused_dense_7"}
    mod = tvm.IRModule({"fused_dense_7": func.with_attr(history)})
    applied = apply_database(log, target, mod)
    assert scheduled(applied) == {"fused_dense_7"}
    assert applied["fused_dense_7"].attrs["global_symbol"] == "fused_dense_7"
    assert len(applied["fused_dense_7"].script()) > 2 * len(func.script())  # loops were split


def test_another_target_finds_nothing(log: TuningLog, target: TargetSpec) -> None:
    import tvm
    from tvm import relax

    from tunewright.core.tvm_adapter.target import tvm_target
    from tunewright.core.tvm_adapter.tvm_database import tvm_database

    func, task = matmul(target, "")
    record(log, task, sampled_trace(task), 1e-5)
    mod = tvm.IRModule({"kernel": func})
    other = TargetSpec(target.mcpu, num_threads=2)
    apply = relax.transform.MetaScheduleApplyDatabase  # takes the target that is current when it is called
    with tvm_database(log, target):
        assert scheduled(apply()(mod)) == {"kernel"}
        with tvm_target(other):
            assert scheduled(apply()(mod)) == set()
        with tvm.target.Target({**target.to_dict(), "opt-level": 1}):
            assert scheduled(apply()(mod)) == set()
        with tvm.target.Target(target.to_dict(), host={"kind": "llvm"}):
            assert scheduled(apply()(mod)) == {"kernel"}
    assert scheduled(apply_database(log, other, mod)) == set()
    assert tvm.target.Target.current(allow_none=True) is None


def test_a_record_that_does_not_replay_gives_way_to_the_next(log: TuningLog, target: TargetSpec) -> None:
    import tvm

    func, task = matmul(target, "")
    mod = tvm.IRModule({"kernel": func})
    record(log, task, BROKEN, 1e-6)
    assert scheduled(apply_database(log, target, mod)) == set()
    record(log, task, sampled_trace(task), 1e-5, trial_index=1)
    assert scheduled(apply_database(log, target, mod)) == {"kernel"}


def test_what_cannot_be_tuned_is_passed_over(log: TuningLog, target: TargetSpec) -> None:
    import tvm
    from tvm import te, tirx

    n = tirx.Var("n", "int64")
    x = te.placeholder((n,), name="x")
    func = te.create_prim_func([x, te.compute((n,), lambda i: x[i] + te.const(1.0, "float32"))])
    assert scheduled(apply_database(log, target, tvm.IRModule({"dynamic": func}))) == set()
