"""The goals of the comparison, judged from the raw runs. Ratios are ours / theirs."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from runtimes.results import ModelRun, longest_tuned

FULL_TUNING_SECS = 900.0  # what was tuned for so long or less has not been tuned fully
# A 1 x 1 convolution is a product to one of the two, so both are compared together.
_OUR_PRODUCTS = re.compile("conv|matmul|dense|gemm")
_PEER_PRODUCTS = ("Conv", "MatMul", "Gemm", "Attention")
_HIGH_INTENSITY = 100.0  # FLOP per byte
# Models whose convolutions are compared with ONNX Runtime's.
_CONVOLUTIONAL = ("resnet50", "light_resnet50", "light_squeezenet")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value`: None where nothing was measured."""

    text: str
    limit: str
    value: float | None
    is_met: bool | None
    note: str = ""


def judge(runs: Sequence[ModelRun]) -> list[Verdict]:
    """One verdict per goal, of batch 1; a log that was only taken as it was counts as full tuning.

    Of several times of tuning the longest counts, and for a short one the longest of those.
    """
    single = [run for run in runs if run.batch == 1]
    full = [run for run in longest_tuned(single) if not 0 < run.tune_secs <= FULL_TUNING_SECS]
    short = longest_tuned(run for run in single if 0 < run.tune_secs <= FULL_TUNING_SECS)
    single = longest_tuned(single)
    return [
        _geometric_mean("latency / best peer, geometric mean, after full tuning", full, 0.90),
        _worst("latency / best peer, worst model, after full tuning", full, 1.05),
        _geometric_mean("latency / best peer, geometric mean, tuned 15 minutes or less", short, 1.05),
        _at_most(
            "convolutions and products of ResNet-50 and SqueezeNet / ONNX Runtime's, worst",
            {run.model: products_ratio(run) for run in single if run.model in _CONVOLUTIONAL},
            1.0,
        ),
        _of_peak(single),
        _at_most(
            "share of a model's time between kernels, worst",
            {
                run.model: run.between_secs / run.model_secs
                for run in single
                if run.between_secs is not None and run.model_secs
            },
            0.02,
        ),
    ]


def geometric_mean_ratio(runs: Sequence[ModelRun]) -> float | None:
    ratios = [run.ratio.median for run in runs if run.ratio]
    return statistics.geometric_mean(ratios) if ratios else None


def products_ratio(run: ModelRun) -> float | None:
    """Seconds of all our convolutions and matrix products, with what is fused into them, over the peer's."""
    ours = sum(kernel.total_secs for kernel in run.kernels if is_product(kernel.name))
    theirs = sum(op.secs for op in run.peer_ops if any(name in op.op for name in _PEER_PRODUCTS))
    return ours / theirs if ours and theirs else None


def is_product(name: str) -> bool:
    """Whether a kernel of this name is a convolution or matrix product; shapes follow the first space."""
    return _OUR_PRODUCTS.search(name.split(" ")[0]) is not None


def _geometric_mean(text: str, runs: Sequence[ModelRun], limit: float) -> Verdict:
    value = geometric_mean_ratio(runs)
    rated = [run for run in runs if run.ratio]
    note = f"{len(rated)} of {len(runs)} models" if runs else ""
    return Verdict(text, f"≤ {limit:.2f}", value, None if value is None else value <= limit, note)


def _worst(text: str, runs: Sequence[ModelRun], limit: float) -> Verdict:
    return _at_most(text, {run.model: run.ratio.median if run.ratio else None for run in runs}, limit)


def _at_most(text: str, values: dict[str, float | None], limit: float) -> Verdict:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return Verdict(text, f"≤ {limit:.2f}", None, None)
    worst = max(known, key=lambda name: known[name])
    within = sum(value <= limit for value in known.values())
    note = f"within on {within} of {len(known)}; worst is {worst}"
    return Verdict(text, f"≤ {limit:.2f}", known[worst], known[worst] <= limit, note)


def _of_peak(runs: Sequence[ModelRun]) -> Verdict:
    """Time-weighted over the kernels that do much with every byte.

    Of the peak that was measured in turns with them. Else, and in the note, of the fastest that a run of the
    same machine and threads knew: others were taken in slow moments.
    """
    peaks: dict[tuple[str, int], float] = {}
    for run in runs:
        place = (run.machine["fingerprint"], run.num_threads)
        peaks[place] = max(run.peak_flop_per_sec or 0.0, peaks.get(place, 0.0))
    work_secs = work_secs_at_fastest = spent_secs = 0.0
    names = set()
    for run in runs:
        fastest = peaks[run.machine["fingerprint"], run.num_threads]
        for kernel in run.kernels:
            if not (fastest and kernel.flop and kernel.num_bytes and kernel.secs):
                continue
            if kernel.flop / kernel.num_bytes > _HIGH_INTENSITY:
                share = kernel.flop / (kernel.peak_flop or fastest * kernel.secs)
                work_secs += kernel.total_secs * share
                work_secs_at_fastest += kernel.num_calls * kernel.flop / fastest
                spent_secs += kernel.total_secs
                names.add(kernel.name)
    value = work_secs / spent_secs if spent_secs else None
    note = f"{len(names)} kernels"
    if spent_secs:
        note += f"; {work_secs_at_fastest / spent_secs:.3f} of the fastest peak of all runs"
    text = f"share of the measured peak, kernels above {_HIGH_INTENSITY:.0f} FLOP/byte"
    return Verdict(text, "≥ 0.75", value, None if value is None else value >= 0.75, note)
