"""The demonstration: tune SqueezeNet, compile it, and compile it again with other weights for nothing.

Everything it does is what a user types; each command is shown before it runs.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from random_weights import light_model, randomise_weights

OUTPUT = Path("demo-output")
TIME_BUDGET = os.environ.get("DEMO_TIME_BUDGET", "3m")


def run(*args: str) -> None:
    """Show a tunewright command, then run it."""
    print(f"\n$ tunewright {shlex.join(args)}", flush=True)
    subprocess.run([sys.executable, "-m", "tunewright", *args], check=True)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    os.environ["TUNEWRIGHT_LOG"] = str(OUTPUT / "tuning.db")
    first, second = OUTPUT / "squeezenet.onnx", OUTPUT / "squeezenet-other-weights.onnx"
    for seed, path in enumerate((first, second)):
        randomise_weights(light_model("squeezenet"), path, seed=seed)
    tuned, plain, other = (str(OUTPUT / name) for name in ("tuned", "unscheduled", "tuned-other-weights"))
    run("tune", str(first), "--time-budget", TIME_BUDGET, "-o", tuned)
    run("plot", "curve", "-x", "seconds", "-o", str(OUTPUT / "curve.png"))
    run("compile", str(first), "--schedules", "unscheduled", "-o", plain)
    run("bench", tuned, "--against", plain, "--against", str(first), "--rounds", "10")
    run("compile", str(second), "--strict", "-o", other)
    run("bench", other, "--against", str(second))
    print(f"\nThe tuning log, the compiled models and the curve are in {OUTPUT}/")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said why
