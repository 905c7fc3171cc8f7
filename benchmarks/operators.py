"""Models of one operator, untuned, beside ONNX Runtime: which operator does not run in vectors?

    python benchmarks/operators.py [--only Sigmoid,Resize] [--rounds 15]

Compiles each with default schedules, on one thread, and calls both in turns. Prints medians, ours / ONNX
Runtime's, the largest difference of the outputs relative to the largest of them, and the kernels. A call of
ours contains the conversion of its input and output, some 10 us.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition
from tunewright.scheduler.stitch import compile_model
from tunewright.workers.pool import Pool
from tunewright.workers.process_space import replay_all

_OPSET, _IR_VERSION = 20, 9
_SAMPLE_SECS = 0.002
ROWS, IMAGE, TOKENS = (64, 3024), (1, 64, 56, 56), (8, 128, 96)


@dataclass(frozen=True)
class Case:
    """One node. `constants`: inputs behind `shapes`, in the order in which the operator takes them."""

    op: str
    shapes: Sequence[tuple[int, ...]] = (ROWS,)
    constants: Sequence[np.ndarray | None] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        return " ".join([self.op, shapes, *(f"{name}={value}" for name, value in self.attributes.items())])


def _number(*values: float) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def _sizes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


_UNARY = (
    "Abs Atan Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log LogSoftmax Mish Neg "
    "Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh ThresholdedRelu"
).split()
_WINDOW: Mapping[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
CASES = [
    *(Case(op) for op in _UNARY),
    *(Case("Pow", constants=[_number(exponent)]) for exponent in (2.0, 3.0, 0.5, 0.3)),
    Case("Clip", constants=[_number(0.2), _number(0.8)]),
    Case("PRelu", (IMAGE,), [_weights(64, 1, 1)]),
    *(Case(op, (ROWS, ROWS)) for op in ("Add", "Div", "Max")),
    Case("Mul", ((8, 128, 96), (1, 1, 96))),
    *(Case(op, (ROWS, ROWS)) for op in ("Min", "Mean", "Mod", "Greater")),
    *(Case(op, constants=[_sizes(-1)]) for op in ("ReduceMean", "ReduceMax", "ReduceSum")),
    Case("ReduceL2", constants=[_sizes(1)]),
    Case("ReduceMean", (IMAGE,), [_sizes(2, 3)]),
    Case("ReduceMean", (TOKENS,), [_sizes(1)]),
    Case("ArgMax", attributes={"axis": 1}),
    Case("CumSum", constants=[np.array(1, np.int64)]),
    Case("TopK", constants=[_sizes(5)]),
    Case("LayerNormalization", (TOKENS,), [_weights(96), _weights(96)]),
    Case("BatchNormalization", (IMAGE,), [*[_weights(64)] * 3, np.abs(_weights(64)) + 1]),
    Case("InstanceNormalization", (IMAGE,), [_weights(64), _weights(64)]),
    Case("LRN", (IMAGE,), attributes={"size": 5, "alpha": 1e-2}),
    Case("MaxPool", (IMAGE,), attributes=_WINDOW),
    Case("AveragePool", (IMAGE,), attributes=_WINDOW),
    Case("GlobalAveragePool", (IMAGE,)),
    *(
        Case("Resize", (IMAGE,), [None, _number(1.0, 1.0, 2.0, 2.0)], {"mode": mode})
        for mode in ("nearest", "linear")
    ),
    Case("ConvTranspose", (IMAGE,), [_weights(64, 32, 4, 4)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("Conv", (IMAGE,), [_weights(64, 64, 3, 3)], {"pads": [1, 1, 1, 1]}),
    Case("Conv", (IMAGE,), [_weights(64, 64, 3, 3)], {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    Case("Conv", (IMAGE,), [_weights(64, 16, 3, 3)], {"pads": [1, 1, 1, 1], "group": 4}),
    Case("Conv", (IMAGE,), [_weights(64, 1, 5, 5)], {"pads": [2, 2, 2, 2], "group": 64}),
    Case("Conv", ((1, 64, 3136),), [_weights(64, 64, 3)], {"pads": [1, 1]}),
    Case("Conv", ((1, 16, 16, 28, 28),), [_weights(16, 16, 3, 3, 3)], {"pads": [1] * 6}),
    Case("MatMul", (TOKENS, (8, 96, 128))),
    Case("MatMul", (TOKENS,), [_weights(96, 384)]),
    Case("Gemm", ((1, 1024),), [_weights(1000, 1024), _weights(1000)], {"transB": 1}),
    Case("Einsum", (TOKENS, TOKENS), attributes={"equation": "bqd,bkd->bqk"}),
    *(Case("Transpose", (TOKENS,), attributes={"perm": perm}) for perm in ([0, 2, 1], [1, 0, 2])),
    Case("Concat", (IMAGE, IMAGE), attributes={"axis": 1}),
    Case("Slice", (IMAGE,), [_sizes(8), _sizes(40), _sizes(1)]),
    Case("Pad", (IMAGE,), [_sizes(0, 0, 2, 2, 0, 0, 2, 2)]),
    Case("Pad", (IMAGE,), [_sizes(0, 0, 2, 2, 0, 0, 2, 2)], {"mode": "reflect"}),
    Case("Expand", ((1, 128, 96),), [_sizes(8, 128, 96)]),
    Case("Tile", ((1, 128, 96),), [_sizes(8, 1, 1)]),
    Case("Gather", ((3000, 96),), [_sizes(*(np.arange(1024) * 7919 % 3000).tolist())]),
    Case("DepthToSpace", (IMAGE,), attributes={"blocksize": 2}),
    Case("SpaceToDepth", (IMAGE,), attributes={"blocksize": 2}),
]


def main() -> int:
    args = _parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"
    ratios: list[float] = []
    print("| operator | ours (us) | ONNX Runtime | ratio | difference | kernels |\n|---|---|---|---|---|---|")
    with Pool(sorted(os.sched_getaffinity(0))[:1]) as pool:
        for case in CASES:
            if args.only and case.op not in args.only:
                continue
            with tempfile.TemporaryDirectory(prefix="operators-") as scratch:
                try:
                    ratio, row = _compared(case, Path(scratch), pool, args.rounds)
                except Exception as exc:  # what a user would see; the others go on
                    row = ["", "", "", "", f"{type(exc).__name__}: {str(exc).splitlines()[0][:150]}"]
                else:
                    ratios.append(ratio)
            print("| " + " | ".join([case.label, *row]) + " |", flush=True)
    if ratios:
        print(f"\nGeometric mean of {len(ratios)}: {statistics.geometric_mean(ratios):.2f}")
    return 0


def _compared(case: Case, scratch: Path, pool: Pool, rounds: int) -> tuple[float, list[str]]:
    path, feed = _model(case, scratch / "model.onnx")
    model = import_model(path, target=host_target(num_threads=1))
    compile_model(model, scratch / "bundle", log=None, replay=partial(replay_all, pool))
    compiled = load(scratch / "bundle")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    calls = (lambda: compiled.run_named(feed)["y"], lambda: session.run(["y"], feed)[0])
    found, expected = (np.asarray(call(), np.float64) for call in calls)
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, secs in zip(calls, samples, strict=True):
            start, number = perf_counter(), 0
            while perf_counter() - start < _SAMPLE_SECS or not number:
                call()
                number += 1
            secs.append((perf_counter() - start) / number)
    ours, theirs = (1e6 * statistics.median(secs) for secs in samples)
    ratio = statistics.median(mine / other for mine, other in zip(*samples, strict=True))
    kernels = ", ".join(task.workload.name.partition(" ")[0] for task in partition(model).tasks)
    return ratio, [f"{ours:.1f}", f"{theirs:.1f}", f"{ratio:.2f}", f"{difference:.1e}", kernels]


def _model(case: Case, path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The file, and positive inputs for it."""
    inputs = {f"x{n}": shape for n, shape in enumerate(case.shapes)}
    weights = {f"w{n}": value for n, value in enumerate(case.constants) if value is not None}
    names = [*inputs, *(f"w{n}" if value is not None else "" for n, value in enumerate(case.constants))]
    num_outputs = 2 if case.op == "TopK" else 1
    node = helper.make_node(case.op, names, ["y", "indices"][:num_outputs], **case.attributes)
    graph = helper.make_graph(
        [node],
        "operator",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    )
    onnx.save(model, path)
    rng = np.random.default_rng(0)
    return path, {name: rng.random(shape, np.float32) + 0.1 for name, shape in inputs.items()}


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda text: text.split(","), help="operators, with commas")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
