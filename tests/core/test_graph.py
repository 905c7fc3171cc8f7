from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import ModelBuilder, dense_net, densely_connected_net, residual_net, run_onnxruntime
from tests.scheduler.in_process import replay, sampled_trace
from tunewright.core.types import TargetSpec
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import ImportedModel, import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = TargetSpec("x86-64-v3", num_threads=1)


def test_what_depends_on_weights_alone_leaves_the_main_function(tmp_path: Path) -> None:
    model = import_model(dense_net(tmp_path / "m.onnx"), target=TARGET)
    main = model.graph.mod["main"].script()
    prepare = model.graph.mod["prepare_params"].script()
    assert "transpose" in prepare and "transpose" not in main


def test_call_sites_count_repeated_functions(tmp_path: Path) -> None:
    from tunewright.core.tvm_adapter.graph import call_sites

    model = import_model(residual_net(tmp_path / "m.onnx"), target=TARGET)
    sites = {site.label: site.num_calls for site in call_sites(model.graph)}
    assert sites["conv2d_add_add_relu_multiply"] == 1
    # Two convolutions of one shape; the stem has another one.
    assert sorted(s.num_calls for s in call_sites(model.graph) if s.label == "conv2d_add_relu") == [1, 2]


def test_what_layers_have_written_is_joined_only_where_it_is_normed(tmp_path: Path) -> None:
    from tunewright.core.tvm_adapter.graph import call_sites

    path = densely_connected_net(tmp_path / "m.onnx")
    model = import_model(path, target=TARGET)
    labels = {site.label for site in call_sites(model.graph)}
    assert "concatenate_multiply_add_relu" in labels and "concatenate" not in labels
    compile_model(model, tmp_path / "bundle", log=None, replay=replay)
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)}
    expected = run_onnxruntime(path, feed)["y"]
    np.testing.assert_allclose(load(tmp_path / "bundle").run_named(feed)["y"], expected, rtol=1e-4, atol=1e-4)


def test_a_label_does_not_repeat_itself(tmp_path: Path) -> None:
    from tunewright.core.tvm_adapter.graph import call_sites

    b = ModelBuilder(seed=0)
    y = "x"
    for n in range(5):
        y = b.node("Sqrt", b.node("Abs", y, name=f"abs{n}"), name=f"sqrt{n}")
    path = b.save(tmp_path / "m.onnx", inputs={"x": (1, [4, 16])}, outputs={"y": b.node("Relu", y, name="r")})
    (site,) = call_sites(import_model(path, target=TARGET).graph)
    assert site.label == "tir_abs_tir_sqrt_relu"


def test_only_weights_with_two_axes_may_change_layout(tmp_path: Path) -> None:
    model = import_model(dense_net(tmp_path / "m.onnx"), target=TARGET)
    free = [list(map(int, site.attrs["layout_free_buffers"])) for site in _functions(model)]
    assert free == [[1], [1]]  # x, weight, bias, output: never the bias


def test_stitching_equals_tvms_own_application_of_records(tmp_path: Path) -> None:
    """MetaScheduleApplyDatabase, given the same traces, must give the same module."""
    import tvm
    from tvm import relax
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule as ms
    from tvm_ffi import structural_equal

    from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
    from tunewright.core.tvm_adapter.graph import stitch
    from tunewright.core.tvm_adapter.target import tvm_target
    from tunewright.core.tvm_adapter.traces import replay_trace

    model = import_model(dense_net(tmp_path / "m.onnx"), target=TARGET)
    parts = partition(model)
    tasks = {task.key: task for task in parts.tasks}
    traces = {key: sampled_trace(task, packs_weights=True) for key, task in tasks.items()}

    @derived_object
    class Records(ms.database.PyDatabase):  # type: ignore[misc]
        def query_tuning_record(self, mod, target, workload_name=None):  # type: ignore[no-untyped-def]
            workload = canonical_workload(mod["main"], name="")
            key = next((key for key, task in tasks.items() if task.workload.key == workload.key), None)
            if key is None:  # a function that prepares weights
                return None
            stored = load_module(workload.mod_json)
            trace = replay_trace(stored, traces[key]).trace
            return ms.database.TuningRecord(trace, ms.database.Workload(stored), [1.0], target, None)

    with tvm_target(TARGET), Records():
        applied = relax.transform.MetaScheduleApplyDatabase(enable_warning=True)(model.graph.mod)
    passes = relax.transform
    lift = tvm.transform.Sequential([passes.SplitLayoutRewritePreproc(), passes.LiftTransformParams()])

    results = replay([(tasks[key].workload.mod_json, traces[key]) for key in parts.functions.values()])
    scheduled = {f: r for f, r in zip(parts.functions, results, strict=True) if isinstance(r, str)}
    stitched = stitch(model.graph, scheduled)
    assert structural_equal(stitched, lift(applied))
    assert "prepack" in stitched["main_transform_params"].script()
    assert "weight_prepack" not in stitched["main"].script()


def test_weights_are_not_part_of_the_module_text(tmp_path: Path) -> None:
    from tunewright.core.tvm_adapter.graph import graph_to_json

    model = import_model(dense_net(tmp_path / "m.onnx", hidden=4096), target=TARGET)
    weight_bytes = sum(array.nbytes for array in model.params)
    assert weight_bytes > 500_000
    assert len(graph_to_json(model.graph.mod)) < weight_bytes / 5
    assert {array.dtype for array in model.params} == {np.dtype("float32")}


def _functions(model: ImportedModel) -> list[Any]:
    from tunewright.core.tvm_adapter.graph import call_sites

    return [site.func for site in call_sites(model.graph)]
