"""Would a convolution be faster with blocked channels (NCHWc) than with channels last (NHWC)?

    python benchmarks/layouts.py [--threads 1] [--trials 64] [--streamed-mib 14] [SHAPE ...]

A SHAPE is image-channels-filters-window-stride, as 14-1024-256-1-1; without any, ten layers of ResNets. Both
layouts of a layer are tasks of their own, in the same design space, with packed weights, each tuned from an
empty log. The two best kernels of each then take turns; printed are the speeds of the faster ones and the
ratio of their times, taken round by round, with its 10 % and 90 % quantiles. Layout changes are not counted:
they would come on top of NCHWc wherever a neighbour needs another layout.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import te

from tunewright.core.tvm_adapter.canonical import canonical_workload
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import EvaluatorConfig, MeasureInput, MeasureSuccess, TargetSpec, TuningTask
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

_BLOCK = 16
_ROUNDS = 40
_FINALISTS = 2
_SHAPES = [
    *("28-512-128-1-1", "14-256-1024-1-1", "14-1024-256-1-1", "56-64-256-1-1", "14-1024-2048-1-2"),
    *("28-128-128-3-1", "14-256-256-3-1", "7-512-512-3-1", "14-256-512-3-2", "28-256-256-3-2"),
]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution of one square image, padded so that a stride of 1 keeps its size."""

    size: int
    channels: int
    filters: int
    window: int
    stride: int

    @property
    def padding(self) -> int:
        return self.window // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.window) // self.stride + 1


def channels_last(layer: Layer) -> tvm.tirx.PrimFunc:
    """(1, y, x, channels) and (window, window, channels, filters)"""
    image = te.placeholder((1, layer.size, layer.size, layer.channels), "float32")
    weight = te.placeholder((layer.window, layer.window, layer.channels, layer.filters), "float32")
    padded = _padded(image, layer, rows=1)
    taps, channel = _taps(layer), te.reduce_axis((0, layer.channels))

    def pixel(n: Any, y: Any, x: Any, f: Any) -> Any:
        (row, column), (at_y, at_x) = _window(layer, taps, y, x)
        return te.sum(padded[n, at_y, at_x, channel] * weight[row, column, channel, f], axis=[*taps, channel])

    out = te.compute((1, layer.out_size, layer.out_size, layer.filters), pixel, name="conv")
    return te.create_prim_func([image, weight, out]).with_attr("layout_free_buffers", [1])


def blocked(layer: Layer) -> tvm.tirx.PrimFunc:
    """(1, channels / 16, y, x, 16) and (window, window, channels, filters / 16, 16)"""
    blocks = layer.channels // _BLOCK
    image = te.placeholder((1, blocks, layer.size, layer.size, _BLOCK), "float32")
    shape = (layer.window, layer.window, layer.channels, layer.filters // _BLOCK, _BLOCK)
    weight = te.placeholder(shape, "float32")
    padded = _padded(image, layer, rows=2)
    taps, block, lane = _taps(layer), te.reduce_axis((0, blocks)), te.reduce_axis((0, _BLOCK))

    def pixel(n: Any, group: Any, y: Any, x: Any, f: Any) -> Any:
        (row, column), (at_y, at_x) = _window(layer, taps, y, x)
        factor = weight[row, column, block * _BLOCK + lane, group, f]
        return te.sum(padded[n, block, at_y, at_x, lane] * factor, axis=[*taps, block, lane])

    extents = (1, layer.filters // _BLOCK, layer.out_size, layer.out_size, _BLOCK)
    out = te.compute(extents, pixel, name="conv")
    return te.create_prim_func([image, weight, out]).with_attr("layout_free_buffers", [1])


def _padded(image: Any, layer: Layer, *, rows: int) -> Any:
    """With a border of zeros around the axes `rows` and `rows` + 1."""
    border, size = layer.padding, layer.size
    if not border:
        return image

    def element(*index: Any) -> Any:
        at = [place - border if axis in (rows, rows + 1) else place for axis, place in enumerate(index)]
        is_inside = tvm.tirx.all(
            *(tvm.tirx.all(place >= border, place < size + border) for place in index[rows : rows + 2])
        )
        return tvm.tirx.if_then_else(is_inside, image[tuple(at)], tvm.tirx.const(0, "float32"))

    extents = [
        int(extent) + (2 * border if axis in (rows, rows + 1) else 0)
        for axis, extent in enumerate(image.shape)
    ]
    return te.compute(extents, element, name="padded")


def _taps(layer: Layer) -> list[Any]:
    return [te.reduce_axis((0, layer.window)) for _ in range(2)] if layer.window > 1 else []


def _window(layer: Layer, taps: list[Any], y: Any, x: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Where in the window, and where in the image."""
    row, column = taps or (0, 0)
    return (row, column), (y * layer.stride + row, x * layer.stride + column)


def finalists(
    task: TuningTask, evaluator: EvaluatorConfig, measurer: LocalMeasurer, num_trials: int
) -> list[MeasureInput]:
    """The best candidates of one session from an empty log."""
    with TuningLog.open("sqlite://") as log:
        tune_tasks(
            [task],
            TuneOptions(Budget(num_trials=num_trials), seed=1),
            model_name=task.workload.name,
            store=log,
            measurer=measurer,
            make_space=design_spaces(measurer.pool),
        )
        best = log.best(task.key, k=_FINALISTS)
    return [MeasureInput(task, one.trial.record.candidate, evaluator) for one in best]


def compare(layer: Layer, target: TargetSpec, *, num_trials: int, streamed_bytes: int) -> str:
    """One line about a layer."""
    evaluator = EvaluatorConfig(streamed_bytes=streamed_bytes)
    entrants: list[tuple[str, MeasureInput]] = []
    with LocalMeasurer(WorkerConfig.for_threads(target.num_threads)) as measurer:
        for name, made in (("NHWC", channels_last), ("NCHWc", blocked)):
            task = TuningTask(canonical_workload(made(layer), name=name), target)
            entrants += [(name, one) for one in finalists(task, evaluator, measurer, num_trials)]
        raced = measurer.interleave(
            [one for _, one in entrants], rounds=_ROUNDS, rng=np.random.default_rng(0)
        )
    best: dict[str, Any] = {}
    for (name, one), result in zip(entrants, raced, strict=True):
        if not isinstance(result, MeasureSuccess):
            return f"{name} was not timed: {result.message}"
        secs = np.asarray(result.run_secs)
        if name not in best or np.median(secs) < np.median(best[name]):
            best[name] = secs
        flop = one.task.workload.flop
    speeds = ", ".join(f"{name} {flop / np.median(secs) / 1e9:.0f} GFLOP/s" for name, secs in best.items())
    ratios = best["NCHWc"] / best["NHWC"]
    low, high = np.quantile(ratios, [0.1, 0.9])
    return f"{speeds}, NCHWc / NHWC {np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    args = _parse_args()
    for shape in args.shapes or _SHAPES:
        line = compare(
            Layer(*map(int, shape.split("-"))),
            host_target(args.threads),
            num_trials=args.trials,
            streamed_bytes=args.streamed_mib << 20,
        )
        print(f"{shape}: {line}", flush=True)


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", metavar="SHAPE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=64, help="of each layout")
    parser.add_argument(
        "--streamed-mib", type=int, default=14, help="the model's weights, which the caches do not hold"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
