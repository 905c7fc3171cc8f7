"""What of the cost model a user may choose: in a file, so that no default changes unseen."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tunewright.core.errors import ConfigError
from tunewright.core.files import read_limited, write_whole

FORMAT = "tunewright model parameters 1"
_MAX_BYTES = 1 << 20
_REMEDY = "name a file that `tunewright model tune` made"
# Beyond these a fit takes minutes, or is none.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "num_rounds": (1, 4096),
    "max_depth": (1, 16),
    "max_bin": (2, 1024),
    "eta": (1e-4, 1.0),
    "min_child_weight": (0.0, 1e6),
    "subsample": (0.01, 1.0),
    "colsample_bynode": (0.01, 1.0),
    "reg_lambda": (0.0, 1e6),
}


@dataclass(frozen=True, slots=True)
class HyperParameters:
    """Of the boosted trees, named as XGBoost names them; `num_rounds` trees.

    The defaults were chosen with benchmarks/cost_model_objectives.py on real logs: more or deeper trees, and
    weights by label or by task, cost time and gain nothing. A share of columns per tree would halve the time,
    but finds failures that one column tells less well than a share per node.
    """

    num_rounds: int = 64
    max_depth: int = 5
    max_bin: int = 32
    eta: float = 0.15
    min_child_weight: float = 0.5
    subsample: float = 1.0
    colsample_bynode: float = 0.4
    reg_lambda: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")

    def of_xgboost(self) -> dict[str, Any]:
        """As `xgboost.train` takes them, without the number of rounds."""
        params = asdict(self)
        del params["num_rounds"]
        return params


DEFAULT = HyperParameters()


def write_hyper_parameters(path: Path, params: HyperParameters, *, found: Mapping[str, Any]) -> None:
    """Write parameters as one JSON object, with how they were found, for people; in one step.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, "params": asdict(params), "found": found}, indent=1, allow_nan=False)
    write_whole(path, text + "\n")


def read_hyper_parameters(path: Path) -> HyperParameters:
    """Read what `write_hyper_parameters` wrote, or what a person changed in it.

    Raises:
        ConfigError: there is no such file, or it holds no parameters, unknown ones, or absurd values.
    """
    content = read_limited(path, _MAX_BYTES, remedy=_REMEDY)
    try:
        given = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} holds no parameters of a cost model: {_REMEDY}") from None
    if (
        not isinstance(given, dict)
        or given.get("format") != FORMAT
        or not isinstance(given.get("params"), dict)
    ):
        raise ConfigError(f"{path} holds no parameters of a cost model: {_REMEDY}")
    try:
        return HyperParameters(**{name: _checked(name, value) for name, value in given["params"].items()})
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _checked(name: str, value: object) -> Any:
    types = {field.name: type(field.default) for field in fields(HyperParameters)}
    if name not in types:
        raise ValueError(f"parameter {name!r} is unknown; known are {', '.join(types)}")
    is_number = isinstance(value, int if types[name] is int else int | float) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{name} is {value!r}, expected a number of type {types[name].__name__}")
    return value
