"""A measurer without machine code: seconds are a function of the trace, so sessions can be reproduced.

The landscape has what search and cost model live on: each decision has a best value, being off costs time
in proportion to the distance in powers of two, and a little of the time is noise by the program's hash.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tunewright.core.closeable import Closeable
from tunewright.core.keys import digest
from tunewright.core.types import (
    FailureKind,
    MachineInfo,
    MeasureFailure,
    MeasureInput,
    MeasureResult,
    MeasureSuccess,
)
from tunewright.workers.duplicates import KnownKernels, copy_result
from tunewright.workers.local import MeasurerStats

Landscape = Callable[[MeasureInput], float]
"""Seconds per call of a candidate; positive and finite."""

_PEAK_FLOP_PER_SEC = 1e11
_BUILD_SECS = 0.25
_RUN_SECS = 0.05
_ROUGHNESS = 0.1
_MACHINE = MachineInfo("simulated", 1, False, "none", "none", "none", "none", "none")


class SimulatableMeasurer(Protocol):
    """What the wrappers wrap."""

    @property
    def machine(self) -> MachineInfo: ...

    @property
    def stats(self) -> MeasurerStats: ...

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]: ...

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]: ...

    def close(self) -> None: ...


def analytic_landscape(measure_input: MeasureInput) -> float:
    """Seconds by the decisions of a trace; by its hash alone where the text is no trace."""
    key = measure_input.task.key
    floor_secs = max(measure_input.task.workload.flop, 1e3) / _PEAK_FLOP_PER_SEC
    penalty = 0.0
    for position, value in enumerate(_decisions(measure_input.candidate.trace_json)):
        weight = 0.05 + 0.25 * _uniform(key, "weight", str(position))
        best = 6.0 * _uniform(key, "best", str(position))
        penalty += weight * abs(math.log2(1 + abs(value)) - best)
    roughness = _ROUGHNESS * _uniform(key, "rough", measure_input.candidate.trace_json)
    return floor_secs * math.exp(min(penalty, 6.0) + roughness)


class SimulatedMeasurer(Closeable):
    """Answers from a landscape, at once; prunes as a real measurer does. Every success is verified."""

    def __init__(self, landscape: Landscape = analytic_landscape) -> None:
        self._landscape = landscape
        self._kernels = KnownKernels()
        self.machine = _MACHINE
        self.stats = MeasurerStats()

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """One result per input, in their order."""
        return [self._measured(measure_input) for measure_input in inputs]

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        """One result per input with `rounds` samples, in their order."""
        return [self._result(measure_input, num_samples=rounds, prunes=False) for measure_input in inputs]

    def close(self) -> None:
        """Nothing to close."""

    def _measured(self, measure_input: MeasureInput) -> MeasureResult:
        task_key = measure_input.task.key
        known = self._kernels.find(task_key, _object_key(measure_input))
        if known is not None:
            self.stats += MeasurerStats(1, _BUILD_SECS, 0.0)
            return copy_result(known, build_secs=_BUILD_SECS)
        result = self._result(measure_input, num_samples=3, prunes=True)
        self._kernels.add(task_key, result)
        return result

    def _result(self, measure_input: MeasureInput, *, num_samples: int, prunes: bool) -> MeasureResult:
        secs = self._landscape(measure_input)
        incumbent_secs = measure_input.incumbent_secs
        self.stats += MeasurerStats(1, _BUILD_SECS, _RUN_SECS)
        wall_secs = _BUILD_SECS + _RUN_SECS
        if (
            prunes
            and incumbent_secs is not None
            and secs > measure_input.evaluator.prune_ratio * incumbent_secs
        ):
            text = f"the first sample was {secs / incumbent_secs:.1f} times the incumbent's"
            return MeasureFailure(
                FailureKind.PRUNED,
                text,
                wall_secs,
                _BUILD_SECS,
                (secs,),
                object_key=_object_key(measure_input),
            )
        return MeasureSuccess(
            (secs,) * num_samples,
            _BUILD_SECS,
            wall_secs,
            is_verified=True,
            object_key=_object_key(measure_input),
        )


class _Wrapper(Closeable):
    """Passes everything on, results through `_changed`."""

    def __init__(self, inner: SimulatableMeasurer) -> None:
        self._inner = inner

    @property
    def machine(self) -> MachineInfo:
        return self._inner.machine

    @property
    def stats(self) -> MeasurerStats:
        return self._inner.stats

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        results = self._inner.measure(inputs)
        return [self._changed(one, result) for one, result in zip(inputs, results, strict=True)]

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        results = self._inner.race(inputs, rounds=rounds)
        return [self._changed(one, result) for one, result in zip(inputs, results, strict=True)]

    def close(self) -> None:
        self._inner.close()

    def _changed(self, measure_input: MeasureInput, result: MeasureResult) -> MeasureResult:
        raise NotImplementedError


class Noisy(_Wrapper):
    """Multiplies every sample by log-normal noise; a candidate's noise depends on `seed` and its key only."""

    def __init__(self, inner: SimulatableMeasurer, *, relative_std: float, seed: int) -> None:
        super().__init__(inner)
        self._relative_std = relative_std
        self._seed = seed

    def _changed(self, measure_input: MeasureInput, result: MeasureResult) -> MeasureResult:
        if not isinstance(result, MeasureSuccess):
            return result
        rng = np.random.default_rng((self._seed, int(measure_input.candidate.key[:12], 16)))
        factors = np.exp(rng.normal(0.0, self._relative_std, len(result.run_secs)))
        run_secs = tuple(float(secs * factor) for secs, factor in zip(result.run_secs, factors, strict=True))
        return replace(result, run_secs=run_secs)


class Failing(_Wrapper):
    """Lets a share of the candidates fail, always the same ones for a seed."""

    def __init__(
        self, inner: SimulatableMeasurer, *, ratio: float, seed: int, kind: FailureKind = FailureKind.RUN
    ) -> None:
        super().__init__(inner)
        self._ratio = ratio
        self._seed = seed
        self._kind = kind

    def _changed(self, measure_input: MeasureInput, result: MeasureResult) -> MeasureResult:
        if _uniform("failing", str(self._seed), measure_input.candidate.key) >= self._ratio:
            return result
        return MeasureFailure(self._kind, "a simulated failure", result.wall_secs)


def _object_key(measure_input: MeasureInput) -> str:
    """Only equal traces make equal kernels here."""
    return digest("object", measure_input.candidate.trace_json)[:16]


def _decisions(trace_json: str) -> list[float]:
    """All numbers in the decisions of a trace, in order; none where the text is no trace."""
    try:
        trace: Any = json.loads(trace_json)
        values = [decision for _, decision in trace[1]]
    except (ValueError, TypeError, IndexError, KeyError):
        return []
    flat: list[float] = []
    for value in values:
        numbers = value if isinstance(value, list) else [value]
        flat.extend(float(number) for number in numbers if isinstance(number, int | float))
    return flat


def _uniform(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts."""
    return int(digest(*parts)[:13], 16) / 16**13
