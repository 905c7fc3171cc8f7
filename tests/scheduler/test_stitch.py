import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import ModelBuilder, dense_net, local_function_net, residual_net, run_onnxruntime
from tests.scheduler.in_process import record, replay, sampled_trace
from tests.scheduler.stored import OLD_TVM, store, success
from tunewright.core.errors import ConfigError, CoverageError, EnvironmentProblem
from tunewright.core.tvm_adapter.target import host_target, machine_info
from tunewright.core.types import TargetSpec
from tunewright.scheduler import build_child
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.kernel_choice import Variant, choose_kernels
from tunewright.scheduler.manifest import KernelSource
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import CompileOptions, compile_model
from tunewright.tuning_logs import Match, MatchPolicy, TuningLog

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)


def fill(log: TuningLog, path: Path, target: TargetSpec) -> int:
    """A random schedule per task of the model at `path`; returns the number of tasks."""
    tasks = partition(import_model(path, target=target)).tasks
    for index, task in enumerate(tasks):
        packs_weights = task.workload.name.startswith(("conv2d", "matmul"))
        record(log, task, sampled_trace(task, packs_weights=packs_weights), 1e-5, trial_index=index)
    return len(tasks)


def check_outputs(folder: Path, path: Path) -> None:
    expected = run_onnxruntime(path, {"image": IMAGE})["probabilities"]
    np.testing.assert_allclose(np.asarray(load(folder).run(IMAGE)), expected, rtol=1e-3)
    assert np.ptp(expected) > 0.01  # else nothing was checked


def test_other_weights_and_names_miss_nothing_and_compute_what_onnxruntime_does(tmp_path: Path) -> None:
    target = host_target(num_threads=2)
    first = residual_net(tmp_path / "first.onnx", seed=1)
    second = residual_net(tmp_path / "second.onnx", seed=2, prefix="renamed/")
    with TuningLog.open("sqlite://") as log:
        num_tasks = fill(log, first, target)
        for path in (first, second):
            folder = tmp_path / path.stem
            report = compile_model(
                import_model(path, target=target),
                folder,
                log=log,
                replay=replay,
                options=CompileOptions(is_strict=True),
            )
            assert (report.num_from_log, report.misses) == (num_tasks, ())
            assert report.coverage_ratio == pytest.approx(1.0)
            check_outputs(folder, path)
    # Packed weights: the schedules did change layouts, and the packing is not in the main function.
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert {kernel["source"] for kernel in manifest["kernels"]} == {"record"}
    assert all(kernel["record_id"] and kernel["candidate_key"] for kernel in manifest["kernels"])
    assert sorted(p.name for p in (tmp_path / "second").iterdir()) == [
        "lib.so",
        "manifest.json",
        "params.bin",
    ]


@pytest.mark.parametrize("variant", [Variant.DEFAULT, Variant.UNSCHEDULED])
def test_without_records_a_model_still_compiles_and_runs_right(variant: Variant, tmp_path: Path) -> None:
    path = residual_net(tmp_path / "m.onnx")
    model = import_model(path, target=host_target(num_threads=2))
    options = CompileOptions(variant)
    report = compile_model(model, tmp_path / "out", log=None, replay=replay, options=options)
    assert {choice.source for choice in report.choices} == {KernelSource(variant.value)}
    assert report.coverage_ratio == 0
    check_outputs(tmp_path / "out", path)


def test_a_record_for_another_target_is_never_used(tmp_path: Path) -> None:
    path = residual_net(tmp_path / "m.onnx")
    mine, other = host_target(num_threads=2), host_target(num_threads=1)
    with TuningLog.open("sqlite://") as log:
        fill(log, path, other)
        model = import_model(path, target=mine)
        with pytest.raises(CoverageError, match=r"same workload, other target: mcpu=\S+ threads=1") as caught:
            compile_model(
                model, tmp_path / "no", log=log, replay=replay, options=CompileOptions(is_strict=True)
            )
        choices = choose_kernels(partition(model).tasks, variant=Variant.TUNED, log=log, replay=replay)
    assert {choice.source for choice in choices} == {KernelSource.DEFAULT}
    assert all(task.workload.name in str(caught.value) for task in partition(model).tasks)
    assert not (tmp_path / "no").exists()


def test_a_record_that_the_policy_leaves_out_is_the_reason_of_the_miss(tmp_path: Path) -> None:
    target = host_target(num_threads=1)
    tasks = partition(import_model(dense_net(tmp_path / "m.onnx"), target=target)).tasks
    with TuningLog.open("sqlite://") as log:
        record(log, tasks[0], sampled_trace(tasks[0]), 1e-6)
        store(log, tasks[1], success(1e-6), machine=OLD_TVM)
        choices = choose_kernels(
            tasks,
            variant=Variant.TUNED,
            log=log,
            replay=replay,
            match=Match(MatchPolicy.COMPATIBLE, machine_info()),
        )
    assert [choice.source for choice in choices] == [KernelSource.RECORD, KernelSource.DEFAULT]
    assert choices[1].miss.startswith("tuned with TVM 0.26.0, not verified with 0.27")


def test_a_record_that_does_not_replay_gives_way_to_the_next_best_then_to_the_default(
    tmp_path: Path,
) -> None:
    target = host_target(num_threads=2)
    tasks = partition(import_model(residual_net(tmp_path / "m.onnx"), target=target)).tasks
    first, second, *rest = tasks
    broken = '[[["GetSBlock",[],["no_such_block","main"],["b0"]]],[]]'
    with TuningLog.open("sqlite://") as log:
        record(log, first, broken, 1e-6)
        record(log, first, sampled_trace(first), 2e-6, trial_index=1)
        record(log, second, broken, 1e-6, trial_index=2)
        chosen = choose_kernels(tasks, variant=Variant.TUNED, log=log, replay=replay)
    choices = {choice.task.key: choice for choice in chosen}
    assert choices[first.key].source is KernelSource.RECORD
    used = choices[first.key].record
    assert used is not None and used.secs == 2e-6
    assert choices[second.key].source is KernelSource.DEFAULT
    assert "replay of record 3 failed" in choices[second.key].miss
    assert {choices[task.key].miss for task in rest} == {"no record for this workload"}


def test_a_model_without_kernels_runs(tmp_path: Path) -> None:
    builder = ModelBuilder(seed=0)
    path = builder.save(tmp_path / "m.onnx", inputs={"x": (1, [4, 6])}, outputs={"y": "x"})
    model = import_model(path, target=host_target(1))
    assert compile_model(model, tmp_path / "out", log=None, replay=replay).choices == ()
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(load(tmp_path / "out").run_named({"x": x})["y"], x)


def test_a_models_own_functions_are_compiled(tmp_path: Path) -> None:
    path = local_function_net(tmp_path / "m.onnx")
    model = import_model(path, target=host_target(1))
    assert model.is_optimised
    compile_model(model, tmp_path / "out", log=None, replay=replay)
    x = np.random.default_rng(0).standard_normal((1, 8, 6, 6)).astype(np.float32)
    expected = run_onnxruntime(path, {"x": x})["y"]
    np.testing.assert_allclose(
        load(tmp_path / "out").run_named({"x": x})["y"], expected, rtol=1e-4, atol=1e-5
    )


def test_only_compiled_models_are_replaced(tmp_path: Path) -> None:
    model = import_model(dense_net(tmp_path / "m.onnx"), target=host_target(num_threads=1))
    with pytest.raises(ConfigError, match="exists and is no compiled model"):
        compile_model(model, tmp_path, log=None, replay=replay)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("manifest.json", "params.bin"):
        (out / name).write_text("from an earlier compilation")
    options = CompileOptions(Variant.UNSCHEDULED)
    compile_model(model, out, log=None, replay=replay, options=options)
    assert load(out).run_named({"x": np.zeros((4, 16), np.float32)})["y"].shape == (4, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "out"]


def test_a_crash_of_the_compiler_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = import_model(residual_net(tmp_path / "m.onnx"), target=host_target(num_threads=1))
    crashing = tmp_path / "crashing.py"
    crashing.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(build_child, "__name__", "crashing")
    with pytest.raises(EnvironmentProblem, match="the compiler was ended by SIGSEGV"):
        compile_model(
            model,
            tmp_path / "out",
            log=None,
            replay=replay,
            options=CompileOptions(Variant.UNSCHEDULED),
        )
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"crashing.py", "m.onnx"}


def test_a_machine_without_compiler_and_linker_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = import_model(residual_net(tmp_path / "m.onnx"), target=host_target(num_threads=1))
    monkeypatch.setenv("PATH", str(tmp_path))
    options = CompileOptions(Variant.UNSCHEDULED)
    compile_model(model, tmp_path / "out", log=None, replay=replay, options=options)
    assert load(tmp_path / "out").inputs
