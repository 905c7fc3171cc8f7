from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtimes.goals import Verdict, is_product, judge, products_ratio
from runtimes.profiles import op_times
from runtimes.report import summary_line, write_report
from runtimes.results import OURS, PYTORCH, KernelTime, ModelRun, OpTime, save_run

from tests.benchmarks.test_runtimes_results import RUN, timing


def verdict(text: str, *runs: ModelRun) -> Verdict:
    (found,) = (verdict for verdict in judge(runs) if text in verdict.text)
    return found


def with_ratio(model: str, ratio: float, *, tune_secs: float = 0.0) -> ModelRun:
    ours = timing(OURS, *[3.0 * ratio] * 3)
    return replace(RUN, model=model, tune_secs=tune_secs, timings=[ours, timing(PYTORCH, 3.0, 3.0, 3.0)])


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    assert all(verdict.value is None and verdict.is_met is None for verdict in judge([]))


def test_the_mean_and_the_worst_model_are_judged_apart() -> None:
    runs = (with_ratio("good", 0.5), with_ratio("bad", 1.28))
    mean, worst = verdict("geometric mean, after full", *runs), verdict("worst model", *runs)
    assert mean.value == pytest.approx(0.8) and mean.is_met
    assert worst.value == pytest.approx(1.28) and worst.is_met is False and "worst is bad" in worst.note


def test_short_tuning_has_a_goal_of_its_own_and_batch_8_has_none() -> None:
    short, large = with_ratio("short", 1.0, tune_secs=900.0), replace(with_ratio("large", 9.0), batch=8)
    assert verdict("geometric mean, after full", with_ratio("m", 0.5), short, large).value == pytest.approx(
        0.5
    )
    assert verdict("15 minutes", with_ratio("m", 0.5), short, large).value == pytest.approx(1.0)


def test_of_several_times_of_tuning_the_longest_counts(tmp_path: Path) -> None:
    runs = [
        with_ratio("net", ratio, tune_secs=secs)
        for ratio, secs in ((0.9, 120.0), (0.6, 900.0), (0.5, 3600.0))
    ]
    assert verdict("15 minutes", *runs).value == pytest.approx(0.6)
    assert verdict("worst model, after full", *runs).value == pytest.approx(0.5)
    assert verdict("worst model, after full", with_ratio("net", 2.0), runs[0]).value is None
    for run, spent_secs in zip(runs, (None, 870.0, 1100.4), strict=True):
        save_run(replace(run, spent_secs=spent_secs), tmp_path)
    report = write_report(tmp_path)
    rows = [line.split("|")[1].strip() for line in report.splitlines() if "| net, " in line]
    assert rows[:3] == ["net, 120 s", "net, 900 s", "net, 3600 s (ended after 1100)"]


def test_the_share_of_the_peak_is_weighted_by_time_and_leaves_out_what_only_moves_bytes() -> None:
    fast = KernelTime("a", "conv2d a", 1, 1.0, "record", 8e9, 1000, 0.8)
    slow = KernelTime("b", "conv2d b", 3, 1.0, "record", 4e9, 1000, 0.4)
    copy = KernelTime("c", "copy", 1, 9.0, "record", 1e3, 1000, 0.1)
    run = replace(RUN, kernels=[fast, slow, copy], peak_flop_per_sec=1e10)
    assert verdict("share of the measured peak", run).value == pytest.approx((0.8 + 3 * 0.4) / 4)
    beside = [replace(fast, peak_flop=8e9), replace(slow, peak_flop=5e9), copy]
    slower = verdict("share of the measured peak", replace(run, kernels=beside))
    assert slower.value == pytest.approx((1.0 + 3 * 0.8) / 4)
    assert "2 kernels; 0.500 of the fastest" in slower.note


def test_convolutions_and_products_are_compared_together() -> None:
    kernels = [
        KernelTime("a", "conv2d_add_relu 3x8x8 * 4x3x3x3 -> 4x8x8", 2, 0.5, "record", None, None, None),
        KernelTime("b", "matmul_add 8x8 * 8x8 -> 8x8", 1, 3.0, "record", None, None, None),
        KernelTime("c", "softmax 1x1000 -> 1x1000", 1, 9.0, "default", None, None, None),
    ]
    ops = [OpTime("FusedConv", 1, 0.5), OpTime("Conv", 1, 0.5), OpTime("FusedGemm", 2, 1.0)]
    run = replace(RUN, kernels=kernels, peer_ops=[*ops, OpTime("Softmax", 1, 5.0)])
    assert products_ratio(run) == 2.0
    assert products_ratio(replace(run, peer_ops=[])) is None
    assert is_product("depthwise_conv2d 3 -> 3") and is_product("dense_gelu 1 -> 1")
    assert not is_product("max_pool2d conv -> 1")


def node(name: str, op: str, *micros: int) -> Sequence[dict[str, Any]]:
    return [
        {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": {"op_name": op}} for dur in micros
    ]


def test_a_profile_is_added_up_by_operator_without_its_first_runs() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 9999},
        *node("one", "Conv", 5000, 100, 102, 900),
        *node("two", "Conv", 5000, 10, 12, 11),
        *node("three", "Softmax", 9000, 4, 4, 4),
        {"cat": "Node", "name": "one_fence_before", "dur": 9999, "args": {"op_name": "Conv"}},
    ]
    conv, softmax = op_times(events, num_warm_up_runs=1)
    assert (conv["op"], conv["num_nodes"]) == ("Conv", 2)
    assert conv["secs"] == pytest.approx(113e-6) and softmax["secs"] == pytest.approx(4e-6)


def test_the_report_names_what_failed_what_is_wrong_and_what_is_missing(tmp_path: Path) -> None:
    wrong = replace(RUN, model="wrong", timings=[timing(OURS, 1.0, agrees=False), *RUN.timings[1:]])
    compiled = timing("torch.compile", agrees=None, problem="InvalidCxxCompiler")
    runs = [
        replace(RUN, timings=[*RUN.timings, compiled]),
        wrong,
        replace(RUN, model="broken", timings=[], kernels=[], problem="CommandFailed: tunewright compile"),
    ]
    for run in runs:
        save_run(run, tmp_path)
    text = write_report(tmp_path)
    assert (tmp_path / "report.md").read_text() == text + "\n"
    assert "**outputs differ** from ONNX Runtime's: Tunewright" in text
    assert "net: torch.compile failed: InvalidCxxCompiler" in text
    assert "**broken** failed: CommandFailed" in text
    assert "| conv2d 1 * 2 -> 3 | 2 | 100.0% | 250 | 4.0 | 50% | 100 | 40% | record |" in text
    assert "FAILED" in summary_line(runs[2]) and "0.33" in summary_line(runs[0])


def test_an_empty_folder_gives_an_empty_report(tmp_path: Path) -> None:
    assert "No model is finished" in write_report(tmp_path)
