"""Load and run compiled models."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.core.types import TensorSpec
from tunewright.scheduler import cpu_features
from tunewright.scheduler.manifest import LIBRARY_FILE, PARAMS_FILE, Manifest, read_manifest

if TYPE_CHECKING:
    from tunewright.core.tvm_adapter.graph_runtime import GraphExecutor

Array = npt.NDArray[Any]


class LoadedModel:
    """A compiled model in this process; `load` makes it. Safe to call from several threads in turn."""

    def __init__(self, manifest: Manifest, executor: "GraphExecutor") -> None:
        self.manifest = manifest
        self._executor = executor
        self._inputs = dict(manifest.inputs)
        self._outputs = dict(manifest.outputs)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The inputs by the model's own names, in order."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    @overload
    def run(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]: ...

    @overload
    def run(self, inputs: npt.ArrayLike) -> Array | dict[str, Array]: ...

    def run(self, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> Array | dict[str, Array]:
        """Run the model once.

        Args:
            inputs: one array where the model has one input, else name -> array.

        Returns: the array where the model has one output and `inputs` was an array, else name -> array.

        Raises:
            ConfigError: an input is missing, unknown, or of another shape or dtype.
        """
        if isinstance(inputs, Mapping):
            return self.run_named(inputs)
        if len(self.inputs) != 1:
            raise ConfigError(
                f"the model has {len(self.inputs)} inputs; pass name -> array for {self._names()}"
            )
        outputs = self.run_named({name: inputs for name in self.inputs})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run_named(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """As `run`, always name -> array."""
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            problem = f"has no input {unknown[0]!r}" if unknown else f"needs the input {missing[0]!r}"
            raise ConfigError(f"the model {problem}; its inputs are {self._names()}")
        arrays = [_checked(name, spec, inputs[name]) for name, spec in self.manifest.inputs]
        return dict(zip(self.outputs, self._executor.run(arrays), strict=True))

    def _names(self) -> str:
        return ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in self.manifest.inputs)


def load(folder: str | os.PathLike[str]) -> LoadedModel:
    """Load what `tunewright compile` wrote; its weights are prepared and packed here, once.

    It runs with the number of threads that it was compiled for.

    Raises:
        ConfigError: `folder` is no compiled model, or a damaged one.
        EnvironmentProblem: this machine's CPU lacks features that its code needs.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    missing = cpu_features.missing_features(manifest.cpu_features)
    if missing:
        raise EnvironmentProblem(
            f"{folder} was compiled for {manifest.target.mcpu}; this CPU lacks {', '.join(missing)}: "
            "compile the model for this machine"
        )
    for name in (LIBRARY_FILE, PARAMS_FILE):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} is damaged: it has no {name}; compile the model again")
    from tunewright.core.tvm_adapter.graph_runtime import GraphExecutor

    try:
        executor = GraphExecutor(
            folder / LIBRARY_FILE,
            folder / PARAMS_FILE,
            num_params=manifest.num_params,
            num_threads=manifest.target.num_threads,
        )
    except (RuntimeError, ValueError, KeyError, OSError) as exc:
        reason = str(exc).strip().splitlines()[-1] if str(exc).strip() else type(exc).__name__
        raise ConfigError(f"{folder} is damaged ({reason}); compile the model again") from exc
    return LoadedModel(manifest, executor)


@cache
def _name(dtype: np.dtype[Any]) -> str:
    """Making this text takes longer than copying a small input."""
    return str(dtype)


def _checked(name: str, spec: TensorSpec, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.shape != spec.shape or _name(array.dtype) != spec.dtype:
        raise ConfigError(
            f"input {name!r} is {array.dtype}{list(array.shape)}, "
            f"the model takes {spec.dtype}{list(spec.shape)}"
        )
    return np.asarray(array, order="C")  # np.ascontiguousarray would give a number an axis
