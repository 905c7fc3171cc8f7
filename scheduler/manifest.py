"""The manifest of a compiled model: what it is, what it runs on, and where each kernel came from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunewright.core.errors import ConfigError
from tunewright.core.types import MachineInfo, TargetSpec, TensorSpec

BUNDLE_FORMAT = "tunewright-bundle/1"
MANIFEST_FILE = "manifest.json"
LIBRARY_FILE = "lib.so"
PARAMS_FILE = "params.bin"


class KernelSource(StrEnum):
    """What a kernel of a compiled model was scheduled by."""

    RECORD = "record"  # the best usable record of the tuning log
    DEFAULT = "default"  # our default schedule
    UNSCHEDULED = "unscheduled"  # as it came from the model


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """One function of the compiled model. `num_calls` per run; `measured_secs` per call, from the record."""

    function: str
    name: str
    task_key: str | None
    num_calls: int
    source: KernelSource
    record_id: int | None = None
    candidate_key: str | None = None
    measured_secs: float | None = None
    predicted_secs: float | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a compiled model but its code and weights.

    `cpu_features`: the vector features that its code needs, as /proc/cpuinfo names them.
    """

    model_name: str
    inputs: tuple[tuple[str, TensorSpec], ...]
    outputs: tuple[tuple[str, TensorSpec], ...]
    num_params: int
    target: TargetSpec
    cpu_features: tuple[str, ...]
    machine: MachineInfo
    tunewright_version: str
    kernels: tuple[KernelEntry, ...]

    def write(self, folder: Path) -> None:
        fields = {
            "format": BUNDLE_FORMAT,
            "tunewright_version": self.tunewright_version,
            "model_name": self.model_name,
            "inputs": _specs_to_json(self.inputs),
            "outputs": _specs_to_json(self.outputs),
            "num_params": self.num_params,
            "target": asdict(self.target),
            "cpu_features": list(self.cpu_features),
            "machine": asdict(self.machine),
            "kernels": [asdict(kernel) for kernel in self.kernels],
        }
        (folder / MANIFEST_FILE).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a compiled model.

    Raises:
        ConfigError: the folder is no compiled model, or one of another format version.
    """
    path = folder / MANIFEST_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{folder} is no compiled model (it has no {MANIFEST_FILE}); "
            "make one with tunewright compile MODEL -o DIR"
        ) from None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read ({exc}); {_REMEDY}") from exc
    version = fields.get("format") if isinstance(fields, dict) else None
    if version != BUNDLE_FORMAT:
        raise ConfigError(f"{path} has format {version!r}, this program reads {BUNDLE_FORMAT!r}; {_REMEDY}")
    try:
        return _from_json(fields)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{path} is damaged ({type(exc).__name__}: {exc}); {_REMEDY}") from exc


_REMEDY = "compile the model again"


def _from_json(fields: Mapping[str, Any]) -> Manifest:
    target = dict(fields["target"])
    target["mattr"] = tuple(target["mattr"])
    return Manifest(
        model_name=fields["model_name"],
        inputs=_specs_from_json(fields["inputs"]),
        outputs=_specs_from_json(fields["outputs"]),
        num_params=fields["num_params"],
        target=TargetSpec(**target),
        cpu_features=tuple(fields["cpu_features"]),
        machine=MachineInfo(**fields["machine"]),
        tunewright_version=fields["tunewright_version"],
        kernels=tuple(
            KernelEntry(**{**entry, "source": KernelSource(entry["source"])}) for entry in fields["kernels"]
        ),
    )


def _specs_to_json(specs: Sequence[tuple[str, TensorSpec]]) -> list[dict[str, object]]:
    return [{"name": name, "shape": list(spec.shape), "dtype": spec.dtype} for name, spec in specs]


def _specs_from_json(specs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, TensorSpec], ...]:
    return tuple((spec["name"], TensorSpec(tuple(spec["shape"]), spec["dtype"])) for spec in specs)
