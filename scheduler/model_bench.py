"""Latency of whole models, side by side: interleaved rounds, one process per contestant.

A shared machine's speed drifts by tens of per cent within minutes, so contestants take turns in random
order within every round, on the same CPUs, and are compared round by round.
"""

import contextlib
import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.core.errors import ConfigError, TunewrightError
from tunewright.core.types import TensorSpec
from tunewright.scheduler import bench_child
from tunewright.scheduler.array_file import load_arrays, save_arrays
from tunewright.scheduler.manifest import read_manifest
from tunewright.workers.inputs import is_float, numpy_dtype

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# Outputs agree within this, relative to each value, and to a tenth of it of the largest value.
RELATIVE_TOLERANCE = 1e-3
# Outputs are compared on all of them; the first one is timed.
NUM_INPUT_SETS = 3
_NUM_RESAMPLES = 2000
# Fewer numbers may be evenly spaced by chance.
_LEAST_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Contestant:
    """A compiled model's directory, or an ONNX file that ONNX Runtime runs.

    `runner`: for anything else, "module:function"; it is called as `function(path, num_threads)` in the
    contestant's own process, and returns what `bench_child` calls a Runner.
    """

    label: str
    path: Path
    runner: str = ""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """A turn is as many calls as last `min_turn_secs`; the first `num_threads` of `cpus` are used.

    `cpus` None: those that this process may run on.
    """

    num_threads: int
    num_rounds: int = 20
    min_turn_secs: float = 0.1
    setup_timeout_secs: float = 300.0
    turn_timeout_secs: float = 120.0
    seed: int = 0
    cpus: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class ContestantResult:
    """`turn_secs`: mean seconds per call of each turn, in order of rounds; () where it failed.

    `max_abs_error` and `max_rel_error` (of the largest reference value) compare outputs with the reference
    contestant's; None for the reference itself and for failures. `problem`: why it failed, else empty.
    """

    label: str
    path: Path
    turn_secs: tuple[float, ...] = ()
    setup_secs: float = 0.0
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    agrees: bool | None = None
    problem: str = ""

    @property
    def median_secs(self) -> float | None:
        return self._percentile(50)

    @property
    def p10_secs(self) -> float | None:
        return self._percentile(10)

    @property
    def p90_secs(self) -> float | None:
        return self._percentile(90)

    def _percentile(self, percent: float) -> float | None:
        return float(np.percentile(self.turn_secs, percent)) if self.turn_secs else None


@dataclass(frozen=True, slots=True)
class Speedup:
    """`label` is `ratio` times as fast as `against`: median over rounds with its 95 % bootstrap interval."""

    label: str
    against: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Results in the order of the contestants; `speedups` of the first one against each other one."""

    results: tuple[ContestantResult, ...]
    speedups: tuple[Speedup, ...]
    reference: str
    cpus: tuple[int, ...]


class ContestantProblem(TunewrightError):
    """A contestant cannot be loaded, crashed or hangs; the others go on."""


def bench_models(
    contestants: Sequence[Contestant],
    options: BenchOptions,
    *,
    inputs: Sequence[tuple[str, TensorSpec]] | None = None,
) -> BenchReport:
    """Time the contestants against each other on the same random inputs, and compare their outputs.

    Args:
        inputs: names, shapes and dtypes, in order; None: a compiled model among the contestants tells them.

    Raises:
        ConfigError: nothing tells the inputs, or there are too few CPUs.
    """
    available = options.cpus or tuple(sorted(os.sched_getaffinity(0)))
    cpus = available[: options.num_threads]
    if len(cpus) < options.num_threads:
        raise ConfigError(
            f"{options.num_threads} threads need as many CPUs, but only {len(available)} are available"
        )
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="tunewright-bench-") as scratch, contextlib.ExitStack() as stack:
        job = _write_inputs(inputs or _inputs_of(contestants), Path(scratch), rng)
        job |= {"cpus": cpus, "num_threads": options.num_threads}
        entrants = [_Entrant(c, Path(scratch) / str(i), job) for i, c in enumerate(contestants)]
        for entrant in entrants:
            stack.callback(entrant.close)
            entrant.start(options.setup_timeout_secs)
        for _ in range(options.num_rounds):
            for index in rng.permutation(len(entrants)):
                entrants[index].take_turn(options)
        reference = next((e for e in entrants if e.is_onnx and not e.problem), entrants[0])
        expected = reference.outputs()
        results = tuple(entrant.result(None if entrant is reference else expected) for entrant in entrants)
    return BenchReport(
        results=results,
        speedups=tuple(_speedups(results, rng)),
        reference=reference.contestant.label,
        cpus=cpus,
    )


class _Entrant:
    """A contestant and its process."""

    def __init__(self, contestant: Contestant, folder: Path, job: Mapping[str, Any]) -> None:
        folder.mkdir()
        self.contestant = contestant
        self.problem = ""
        self.is_onnx = not contestant.runner and not contestant.path.is_dir()
        self._turn_secs: list[float] = []
        self._setup_secs = 0.0
        self._outputs = folder / "outputs.npz"
        job_file = folder / "job.json"
        own = {"path": str(contestant.path), "runner": contestant.runner, "outputs": str(self._outputs)}
        job_file.write_text(json.dumps({**job, **own}), encoding="utf-8")
        self._noise = folder / "noise.txt"
        with self._noise.open("wb") as noise:
            self._process = subprocess.Popen(
                [sys.executable, "-m", bench_child.__name__, str(job_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
            )

    def start(self, timeout_secs: float) -> None:
        """Wait until it has run once."""
        answer = self._answer(timeout_secs)
        if answer is not None:
            self._setup_secs = answer["setup_secs"]
            self._call_secs = answer["call_secs"]

    def take_turn(self, options: BenchOptions) -> None:
        if self.problem or self._process.stdin is None:
            return
        num_calls = max(1, math.ceil(options.min_turn_secs / self._call_secs))
        with contextlib.suppress(BrokenPipeError):  # its death shows in the answer
            self._process.stdin.write(f"{num_calls}\n".encode())
            self._process.stdin.flush()
        answer = self._answer(options.turn_timeout_secs)
        if answer is not None:
            self._turn_secs.append(answer["secs"])

    def outputs(self) -> list[Array]:
        if not self._outputs.exists():
            return []
        return load_arrays(self._outputs)

    def result(self, expected: Sequence[Array] | None) -> ContestantResult:
        label, path = self.contestant.label, self.contestant.path
        if self.problem:
            return ContestantResult(label, path, problem=self.problem)
        turns = tuple(self._turn_secs)
        if not expected:
            return ContestantResult(label, path, turns, self._setup_secs)
        max_abs, max_rel, agrees = compare_outputs(self.outputs(), expected)
        return ContestantResult(label, path, turns, self._setup_secs, max_abs, max_rel, agrees)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self, timeout_secs: float) -> dict[str, float] | None:
        """The next line of the process, or None and a `problem`."""
        try:
            line = _read_line(self._process, timeout_secs)
        except ContestantProblem as exc:
            self._process.kill()
            code = self._process.wait()
            tail = self._noise.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            signal_name = f"ended by {signal.Signals(-code).name}" if code < 0 and str(exc) == "" else ""
            self.problem = ": ".join(filter(None, [str(exc), signal_name, *tail])) or f"exit status {code}"
            logger.warning("%s dropped out: %s", self.contestant.label, self.problem)
            return None
        answer: dict[str, float] = json.loads(line)
        return answer


def _read_line(process: "subprocess.Popen[bytes]", timeout_secs: float) -> bytes:
    """Raises: ContestantProblem: no line in time, or (with an empty message) the process ended."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + timeout_secs
    while not line.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not select.select([process.stdout], [], [], remaining)[0]:
            raise ContestantProblem(f"no answer within {timeout_secs:g} s")
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            process.wait()
            raise ContestantProblem("")
        line += chunk
    return line


def compare_outputs(actual: Sequence[Array], expected: Sequence[Array]) -> tuple[float, float, bool]:
    """Largest absolute error, the same relative to the largest expected value, and whether all agree.

    Outputs of other number or shape, and NaN where none is expected, disagree with infinite error. Quantised
    outputs agree if they are a step apart: a float before a rounding may lie between two.
    """
    if len(actual) != len(expected):
        return math.inf, math.inf, False
    max_abs = max_rel = 0.0
    agrees = True
    for left, right in zip(actual, expected, strict=True):
        if left.shape != right.shape:
            return math.inf, math.inf, False
        a, b = left.astype(np.float64), right.astype(np.float64)
        scale = float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b)))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):  # infinity minus infinity, where they are the same
            errors = np.where(same, 0.0, np.abs(a - b))
        error = float(np.max(np.where(np.isnan(errors), np.inf, errors), initial=0.0))
        max_abs = max(max_abs, error)
        max_rel = max(max_rel, error / scale if scale else error)
        may_be_quantised = right.dtype.kind == "f" or right.dtype.itemsize == 1
        step = quantisation_step(b) if may_be_quantised else 0.0
        tolerance = max(RELATIVE_TOLERANCE * scale / 10, step)
        agrees &= bool(np.allclose(a, b, rtol=RELATIVE_TOLERANCE, atol=tolerance, equal_nan=True))
    return max_abs, max_rel, agrees


def quantisation_step(values: Array) -> float:
    """The distance of neighbours among at most 256 evenly spaced levels that all values are of; else 0."""
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < _LEAST_LEVELS:
        return 0.0
    step = float(np.diff(levels).min())
    places = (levels - levels[0]) / step
    is_even = np.allclose(places, np.round(places), rtol=0.0, atol=0.05)
    return step if is_even and places[-1] < 256 else 0.0


def make_input(spec: TensorSpec, rng: np.random.Generator) -> Array:
    """Standard normal floats; integers and booleans of 0 and 1, which are valid indices nearly everywhere."""
    dtype = numpy_dtype(spec.dtype)
    if is_float(dtype):
        return rng.standard_normal(spec.shape).astype(dtype)
    return rng.integers(0, 2, spec.shape).astype(dtype)


def _inputs_of(contestants: Sequence[Contestant]) -> Sequence[tuple[str, TensorSpec]]:
    bundle = next((c.path for c in contestants if not c.runner and c.path.is_dir()), None)
    if bundle is None:
        raise ConfigError("a benchmark needs a compiled model: make one with tunewright compile MODEL -o DIR")
    return read_manifest(bundle).inputs


def _write_inputs(
    inputs: Sequence[tuple[str, TensorSpec]], folder: Path, rng: np.random.Generator
) -> dict[str, Any]:
    path = folder / "inputs.npz"
    save_arrays(path, (make_input(spec, rng) for _ in range(NUM_INPUT_SETS) for _, spec in inputs))
    return {"inputs": str(path), "input_names": [name for name, _ in inputs]}


def _speedups(results: Sequence[ContestantResult], rng: np.random.Generator) -> Iterator[Speedup]:
    first = results[0]
    for other in results[1:]:
        if first.problem or other.problem:
            continue
        ratios = np.array(other.turn_secs) / np.array(first.turn_secs)
        resampled = rng.choice(ratios, (_NUM_RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
        yield Speedup(first.label, other.label, float(np.median(ratios)), float(low), float(high))
