"""What a tuning session costs besides building and running candidates, on a 512 x 512 x 512 float32 product.

    python benchmarks/session_overhead.py [--threads 2] [--trials 128] [--seeds 2]

Each seed is a session with a log of its own in memory. The ratio is the share of the wall time outside
building and running: search, cost model, log, and the rest.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TuningTask
from tunewright.scheduler.events import SessionFinished
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import STRATEGIES, TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, ProcessSpace, WorkerConfig

SIZE = 512


def matmul_task(num_threads: int) -> TuningTask:
    """The product with its second factor a weight, as in a dense layer."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "xy")
    weight = helper.make_tensor("w", TensorProto.FLOAT, [SIZE, SIZE], [0.5] * SIZE**2)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "mm", [x], [y], [weight])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "matmul.onnx"
        onnx.save(model, path)
        (task,) = partition(import_model(path, target=host_target(num_threads))).tasks
    return task


def run(task: TuningTask, strategy: str, *, seed: int, num_trials: int) -> SessionFinished:
    """One session from an empty log."""
    config = WorkerConfig.for_threads(task.target.num_threads)
    with TuningLog.open("sqlite://") as log, LocalMeasurer(config) as measurer:
        return tune_tasks(
            [task],
            TuneOptions(Budget(num_trials=num_trials), strategy=strategy, seed=seed),
            model_name="matmul",
            store=log,
            measurer=measurer,
            make_space=lambda one: ProcessSpace(one, measurer.pool),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    task = matmul_task(args.threads)
    print(f"{'strategy':14}{'seed':>5}{'secs':>8}{'build':>8}{'run':>8}{'overhead':>10}{'best ms':>9}")
    for seed in range(args.seeds):
        for strategy in STRATEGIES:
            finished = run(task, strategy, seed=seed, num_trials=args.trials)
            split, best_secs = finished.split, finished.status.tasks[0].best_secs
            print(
                f"{strategy:14}{seed:5}{split.total_secs:8.1f}{split.build_secs:8.1f}{split.run_secs:8.1f}"
                f"{split.overhead_ratio:10.1%}{1e3 * (best_secs or 0):9.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
