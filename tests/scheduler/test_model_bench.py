from pathlib import Path

import numpy as np
import pytest

from tests.models import dense_net
from tests.scheduler.in_process import replay
from tunewright.core.errors import ConfigError
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TensorSpec
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.kernel_choice import Variant
from tunewright.scheduler.model_bench import (
    BenchOptions,
    Contestant,
    bench_models,
    compare_outputs,
    make_input,
)
from tunewright.scheduler.stitch import CompileOptions, compile_model


@pytest.mark.tvm
@pytest.mark.slow
def test_contestants_are_timed_and_compared_and_a_broken_one_drops_out(tmp_path: Path) -> None:
    path = dense_net(tmp_path / "m.onnx")
    other = dense_net(tmp_path / "other.onnx", seed=1)
    folder = tmp_path / "out"
    options = CompileOptions(Variant.DEFAULT)
    model = import_model(path, target=host_target(num_threads=1))
    compile_model(model, folder, log=None, replay=replay, options=options)
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    (tmp_path / "number").write_text("7")
    contestants = [
        Contestant("ours", folder),
        Contestant("onnxruntime", path),
        Contestant("broken", tmp_path / "broken.onnx"),
        Contestant("other weights", other),
        Contestant("constant", tmp_path / "number", runner="tests.scheduler.runners:make_constant"),
        Contestant("unknown", tmp_path / "number", runner="tests.scheduler.runners:make_nothing"),
    ]
    report = bench_models(contestants, BenchOptions(num_threads=1, num_rounds=3, min_turn_secs=0.001))
    ours, ort, broken, changed, constant, unknown = report.results
    assert report.reference == "onnxruntime"
    assert len(ours.turn_secs) == len(ort.turn_secs) == 3
    assert ours.agrees and ours.max_rel_error is not None and ours.max_rel_error < 1e-4
    assert changed.agrees is False
    assert len(constant.turn_secs) == 3 and constant.agrees is False
    assert "make_nothing" in unknown.problem and not unknown.turn_secs
    assert "broken.onnx" in broken.problem and broken.median_secs is None
    assert [(s.label, s.against) for s in report.speedups] == [
        ("ours", "onnxruntime"),
        ("ours", "other weights"),
        ("ours", "constant"),
    ]
    speedup = report.speedups[0]
    assert 0 < speedup.low <= speedup.ratio <= speedup.high
    assert ours.p10_secs is not None and ours.median_secs is not None and ours.p90_secs is not None
    assert ours.p10_secs <= ours.median_secs <= ours.p90_secs


def test_a_turn_begins_when_the_threads_of_the_one_before_are_at_rest(tmp_path: Path) -> None:
    names = ("left", "right")
    contestants = [
        Contestant(name, tmp_path / name, runner="tests.scheduler.runners:make_spinning") for name in names
    ]
    options = BenchOptions(num_threads=1, num_rounds=4, min_turn_secs=1e-6)
    bench_models(contestants, options, inputs=[("x", TensorSpec((1,), "float32"))])
    spells = {
        name: [tuple(map(float, line.split())) for line in (tmp_path / name).read_text().splitlines()]
        for name in names
    }
    turns = {name: own[-2 * options.num_rounds :] for name, own in spells.items()}  # those before were set-up
    assert min(map(len, turns.values())) == 2 * options.num_rounds
    for left_start, left_end in turns["left"]:
        for right_start, right_end in turns["right"]:
            assert left_end <= right_start or right_end <= left_start


def test_too_few_cpus_and_no_bundle_are_refused(tmp_path: Path) -> None:
    contestant = Contestant("m", tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="2 threads need as many CPUs, but only 1"):
        bench_models([contestant], BenchOptions(num_threads=2, cpus=(0,)))
    with pytest.raises(ConfigError, match="needs a compiled model"):
        bench_models([contestant], BenchOptions(num_threads=1))


def test_outputs_that_differ_in_number_shape_or_nan_disagree() -> None:
    one = np.array([1.0, 2.0], dtype=np.float32)
    assert compare_outputs([one], [one]) == (0.0, 0.0, True)
    assert compare_outputs([one], [one, one])[2] is False
    assert compare_outputs([one[:1]], [one])[2] is False
    assert compare_outputs([np.array([np.nan, 2.0])], [one]) == (np.inf, np.inf, False)
    special = np.array([np.nan, np.inf])
    assert compare_outputs([special], [special])[2] is True
    assert compare_outputs([one * 1.0005], [one])[2] is True
    max_abs, max_rel, agrees = compare_outputs([one + 0.1], [one])
    assert (round(max_abs, 3), round(max_rel, 3), agrees) == (0.1, 0.05, False)


def test_inputs_are_seeded_and_integers_are_small() -> None:
    spec = TensorSpec((3, 5), "int64")
    first, second = (make_input(spec, np.random.default_rng(7)) for _ in range(2))
    assert first.dtype == np.int64 and np.array_equal(first, second)
    assert set(first.flatten().tolist()) <= {0, 1}
    assert make_input(TensorSpec((2,), "bool"), np.random.default_rng(0)).dtype == np.bool_


def test_quantised_outputs_agree_if_they_are_a_step_apart() -> None:
    rng = np.random.default_rng(4)
    steps = rng.integers(0, 256, (2, 50))
    expected = (steps.astype(np.float32) - np.float32(113)) * np.float32(0.0371)
    one, two = expected.copy(), expected.copy()
    one[0, :9] += np.float32(0.0371)
    two[1, 3] += np.float32(2 * 0.0371)
    assert compare_outputs([one], [expected])[2]
    assert not compare_outputs([two], [expected])[2]
    floats = rng.standard_normal((2, 50)).astype(np.float32)
    assert not compare_outputs([floats + np.float32(0.01)], [floats])[2]
