"""The node tests of the package onnx: which operators are imported, compiled, and computed rightly?

    python benchmarks/onnx_node_tests.py --out RESULTS.jsonl [--only softmax,resize]        # all: 15 minutes

Each is compiled with default schedules, on one thread, in a child of its own, and its outputs compared with
those that come with it. Small inputs that are weights in real models (axes, shapes, scales) are made weights
here. What is in RESULTS.jsonl is not run again. `right`; `refused`: with a sentence for people; `wrong`;
`failed`: with a stack trace; `died`; `skipped`: texts, sequences, optional values, operators for training.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from tunewright.core.errors import TunewrightError
from tunewright.core.tvm_adapter.kernel import replay
from tunewright.core.tvm_adapter.target import host_target
from tunewright.scheduler.bundle import load
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.stitch import compile_model
from tunewright.workers.process_space import ReplayFailure

_LIMIT_SECS = 120
_TOLERANCE = {"rtol": 2e-3, "atol": 1e-4}
_WEIGHTS = set(
    "Axes K axes axis depth ends k new_shape output_shape pads repeats roi scales shape sizes split starts "
    "steps target_shape value".split()
)


def main() -> int:
    args = _parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"
    known = _results(args.out)
    for test in load_model_tests(kind="node"):
        name = test.name.removeprefix("test_")
        if name in known or "_expanded" in name or not any(part in name for part in args.only):
            continue
        status, text = _in_child(test)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "status": status, "text": text}) + "\n")
    _report(_results(args.out))
    return 0


def _results(path: Path) -> dict[str, tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {one["name"]: (one["status"], one["text"]) for one in map(json.loads, lines)}


def _report(results: Mapping[str, tuple[str, str]]) -> None:
    for name, (status, text) in results.items():
        if status in ("wrong", "failed", "died"):
            print(f"{status:7} {name}: {text}")
    counts = Counter(status for status, _ in results.values())
    print(", ".join(f"{count} {status}" for status, count in counts.most_common()))


def _in_child(test: Any) -> tuple[str, str]:
    """TVM's passes may crash; a child costs nothing as long as this process runs no kernel."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(_LIMIT_SECS)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            found = _outcome(test)
        except BaseException as exc:
            found = "failed", traceback.format_exception_only(exc)[-1].strip()[:300]
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        return "died", f"status {status}"
    kind, reason = json.loads(text)
    return kind, reason


def _outcome(test: Any) -> tuple[str, str]:
    model = onnx.ModelProto.FromString(test.model.SerializeToString())
    values = [*model.graph.input, *model.graph.output]
    is_plain = all(value.type.WhichOneof("value") == "tensor_type" for value in values)
    if not is_plain or "preview.training" in str(model):
        return "skipped", ""
    arrays = [np.asarray(value) for values in test.data_sets[0] for value in values]
    if any(array.dtype.kind in "OSU" for array in arrays):
        return "skipped", ""
    feed = {value.name: array for value, array in zip(model.graph.input, arrays, strict=False)}
    expected = arrays[len(feed) :]
    for value in list(model.graph.input):
        if value.name in _WEIGHTS and feed[value.name].ndim <= 1:
            model.graph.initializer.append(numpy_helper.from_array(feed.pop(value.name), value.name))
            model.graph.input.remove(value)
    with tempfile.TemporaryDirectory(prefix="node-test-") as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(model, path)
        free = {
            value.name: feed[value.name].shape
            for value in model.graph.input
            if any(dim.dim_value < 1 for dim in value.type.tensor_type.shape.dim)
        }
        try:
            imported = import_model(path, target=host_target(1), input_shapes=free)
            compile_model(imported, path.with_name("out"), log=None, replay=_replay)
            found = load(path.with_name("out")).run_named(feed)
        except TunewrightError as exc:
            return "refused", str(exc).replace(scratch, "")[:300]
    wrong = [
        value.name
        for value, truth in zip(model.graph.output, expected, strict=True)
        if not _is_right(np.asarray(found[value.name]), truth)
    ]
    return ("wrong", ", ".join(wrong)) if wrong else ("right", "")


def _replay(traces: Sequence[tuple[str, str]]) -> list[str | ReplayFailure]:
    """As `workers.replay_all`, in this process, which may die."""
    return [tvm.ir.save_json(replay(mod_json, trace)) for mod_json, trace in traces]


def _is_right(found: np.ndarray, truth: np.ndarray) -> bool:
    if found.shape != truth.shape:
        return False
    if truth.dtype.kind in "biu":
        return bool((found == truth).all())
    return np.allclose(found.astype(np.float64), truth.astype(np.float64), equal_nan=True, **_TOLERANCE)


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a line for each test")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[""], help="parts of names")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
