"""How well does the analytic tile model rank what was measured?

    python benchmarks/tile_model.py LOG

LOG is a tuning log, a file or a URL. For every task with ten or more timed register tilings of one sketch:
the rank correlation of the model with the measured speed, and how much longer the tiling that the model likes
best takes than the fastest one. Means over tasks by kind of kernel. The trials of a search are no random
sample: most of them are good, and the model has chosen some of them.
"""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from tunewright.core.errors import TunewrightError
from tunewright.core.log_url import log_url
from tunewright.core.types import JOINED, MeasureSuccess, TuningTask
from tunewright.scheduler.tuning import hardware_of
from tunewright.search.decisions import DecisionPoint, DecisionSpace, Sketch
from tunewright.tuning_logs import TuningLog

_LEAST_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Ranking:
    """Of one sketch of a task; `loss_ratio`: the model's favourite over the fastest, in seconds."""

    kind: str
    correlation: float
    loss_ratio: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log")
    place = parser.parse_args().log
    try:
        with TuningLog.open(log_url(place), read_only=True) as log:
            rankings = [
                ranking for summary in log.tasks() for ranking in rank(log, log.task(summary.task_key))
            ]
    except TunewrightError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print("| kernels | tasks | rank correlation | favourite takes |\n|---|---|---|---|")
    for kind in ("all", *sorted({one.kind for one in rankings})):
        chosen = [one for one in rankings if kind in ("all", one.kind)]
        correlation = statistics.fmean(one.correlation for one in chosen)
        loss = math.exp(statistics.fmean(math.log(one.loss_ratio) for one in chosen))
        print(f"| {kind} | {len(chosen)} | {correlation:.2f} | {loss:.2f} x the fastest |")
    return 0


def rank(log: TuningLog, task: TuningTask) -> Iterator[Ranking]:
    """The sketches of a task that the model can rank."""
    space = DecisionSpace(hardware_of(task.target))
    timed: dict[Sketch, list[tuple[DecisionPoint, float]]] = defaultdict(list)
    for trial in log.trials(task.key):
        result = trial.record.result
        point = space.learn(trial.record.candidate.trace_json)
        if isinstance(result, MeasureSuccess) and point is not None and _is_register_tiling(point.sketch):
            timed[point.sketch].append((point, result.median_secs))
    for pairs in timed.values():
        secs = np.array([one for _, one in pairs])
        speeds = space.guesses([point for point, _ in pairs])
        if len(pairs) >= _LEAST_TRIALS and np.ptp(speeds) > 0:
            correlation = float(spearmanr(speeds, -secs).statistic)
            yield Ranking(_kind(task), correlation, float(secs[np.argmax(speeds)] / secs.min()))


def _is_register_tiling(sketch: Sketch) -> bool:
    return sketch.nest is not None and sketch.nest.is_unrolled


def _kind(task: TuningTask) -> str:
    name = task.workload.name
    if "pool" in name:
        return "pooling"
    if name.startswith("conv2d"):
        weights = name.partition(" * ")[2].partition(" ")[0].split("x")
        return "depthwise" if len(weights) == 4 and weights[2] == "1" else "convolution"
    return "product" if name.removeprefix(JOINED).startswith("matmul") else "other"


if __name__ == "__main__":
    sys.exit(main())
