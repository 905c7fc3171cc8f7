"""The demonstration: tune SqueezeNet, compile it, and compile it again with other weights for nothing.

Everything it does is what a user types; each command is shown before it runs.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

OUTPUT = Path("demo-output")
TIME_BUDGET = os.environ.get("DEMO_TIME_BUDGET", "3m")


def run(*args: str) -> None:
    """Show a tunewright command, then run it."""
    print(f"\n$ tunewright {shlex.join(args)}", flush=True)
    subprocess.run([sys.executable, "-m", "tunewright", *args], check=True)


def light_model(name: str) -> Path:
    """A model that ships inside the onnx package."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def randomise_weights(source: Path, target: Path, *, seed: int) -> None:
    """The same network with other weights: He-scaled normal ones in place of the file's constants."""
    model = onnx.load(source)
    rng = np.random.default_rng(seed)
    shapes = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    keep, weights = [], []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            keep.append(node)
            continue
        shape = tuple(int(n) for n in shapes[node.input[0]])
        fan_in = int(np.prod(shape[1:])) or 1
        values = rng.standard_normal(shape) * np.sqrt(2.0 / fan_in) if len(shape) > 1 else np.zeros(shape)
        weights.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(keep)
    model.graph.initializer.extend(weights)
    model.ir_version = max(8, model.ir_version)  # from here on, initialisers need not be inputs as well
    onnx.save(model, target)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    os.environ["TUNEWRIGHT_LOG"] = f"sqlite:///{OUTPUT / 'tuning.db'}"
    first, second = OUTPUT / "squeezenet.onnx", OUTPUT / "squeezenet-other-weights.onnx"
    randomise_weights(light_model("squeezenet"), first, seed=0)
    randomise_weights(light_model("squeezenet"), second, seed=1)
    tuned, plain, other = (str(OUTPUT / name) for name in ("tuned", "unscheduled", "tuned-other-weights"))
    run("tune", str(first), "--time-budget", TIME_BUDGET, "-o", tuned)
    run("plot", "curve", "-x", "seconds", "-o", str(OUTPUT / "curve.png"))
    run("compile", str(first), "--schedules", "unscheduled", "-o", plain)
    run("bench", tuned, "--against", plain, "--against", str(first), "--rounds", "10")
    run("compile", str(second), "--strict", "-o", other)
    run("bench", other, "--against", str(second))
    print(f"\nThe tuning log, both compiled models and the curve are in {OUTPUT}/")


if __name__ == "__main__":
    main()
