from dataclasses import replace
from pathlib import Path

import pytest
from runtimes.results import (
    ONNX_RUNTIME,
    OURS,
    PYTORCH,
    KernelTime,
    ModelRun,
    OpTime,
    Timing,
    load_runs,
    paired_ratio,
    save_run,
)


def timing(label: str, *turn_secs: float, agrees: bool | None = True, problem: str = "") -> Timing:
    return Timing(label, turn_secs, 0.5, 1e-6, agrees, problem)


RUN = ModelRun(
    model="net",
    batch=1,
    recipe="a net",
    tune_secs=0.0,
    num_threads=1,
    machine={"fingerprint": "f", "cpu_model": "CPU", "num_cpus": 4, "has_smt": False, "os_kernel": "6"},
    versions={"python": "3"},
    load_before=[0.0, 0.0, 0.0],
    finished_at="2026-01-01T00:00:00+00:00",
    timings=[
        timing(OURS, 1.0, 2.0, 4.0),
        timing(ONNX_RUNTIME, 2.0, 4.0, 8.0),
        timing(PYTORCH, 3.0, 3.0, 9.0),
    ],
    kernels=[KernelTime("f", "conv2d 1 * 2 -> 3", 2, 0.25, "record", 1e9, 1000, 0.1, 2e9)],
    model_secs=0.6,
    between_secs=0.1,
    peer_ops=[OpTime("Conv", 2, 0.4)],
    peak_flop_per_sec=2e10,
)


def test_ratios_are_paired_by_round_so_that_drift_cancels() -> None:
    ratio = paired_ratio(timing(OURS, 1.0, 2.0, 4.0), timing(ONNX_RUNTIME, 2.0, 4.0, 8.0))
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.5, 0.5)


def test_the_interval_holds_the_median_and_is_the_same_every_time() -> None:
    ours, theirs = timing(OURS, *range(1, 21)), timing(ONNX_RUNTIME, *[10.0] * 20)
    ratio = paired_ratio(ours, theirs)
    assert 0.1 <= ratio.low < ratio.median < ratio.high <= 2.0
    assert ratio == paired_ratio(ours, theirs)


def test_the_best_peer_is_the_fastest_whose_outputs_are_right() -> None:
    assert RUN.best_peer is not None and RUN.best_peer.label == PYTORCH
    wrong = timing(PYTORCH, 0.1, 0.1, 0.1, agrees=False)
    failed = timing("torch.compile", problem="no compiler")
    run = replace(RUN, timings=[*RUN.timings[:2], wrong, failed])
    assert run.best_peer is not None and run.best_peer.label == ONNX_RUNTIME
    assert run.ratio is not None and run.ratio.median == 0.5


def test_a_wrong_model_has_no_ratio_however_fast_it_is() -> None:
    assert replace(RUN, timings=[timing(OURS, 0.1, agrees=False), *RUN.timings[1:]]).ratio is None
    assert replace(RUN, timings=RUN.timings[1:]).ratio is None


def test_runs_come_back_from_their_files_as_they_were(tmp_path: Path) -> None:
    other = replace(RUN, model="another", batch=8, timings=[], kernels=[], peer_ops=[], problem="it failed")
    for run in (other, RUN):
        save_run(run, tmp_path)
    first, second = load_runs(tmp_path)
    assert (first.title, second.title) == ("net, batch 1", "another, batch 8")
    assert first.kernels == RUN.kernels and first.peer_ops == RUN.peer_ops
    assert first.ratio == RUN.ratio and second.problem == "it failed"
    assert first.kernels[0].total_secs == pytest.approx(0.5)
