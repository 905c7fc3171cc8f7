"""A cost model in a file of its own, to tune with where the log that it learnt from is not."""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tunewright.core.errors import ConfigError, ModelError
from tunewright.core.files import read_limited, write_whole
from tunewright.core.types import ModelSnapshot
from tunewright.cost_model.xgboost_model import check_usable

FORMAT = "tunewright cost model 1"
_MAX_BYTES = 256 << 20
_REMEDY = "name a file that `tunewright model train` made"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A cost model and what it learnt from: `num_tasks` tasks of targets with that `mcpu`."""

    snapshot: ModelSnapshot
    mcpu: str
    num_tasks: int
    num_failures: int


def write_model(path: Path, model: ModelFile) -> None:
    """Write a model as one JSON object; a file of that name is replaced, in one step.

    Raises:
        ConfigError: the file cannot be written.
    """
    snapshot = model.snapshot
    metrics = {name: value if math.isfinite(value) else None for name, value in snapshot.metrics.items()}
    text = json.dumps(
        {
            "format": FORMAT,
            "model_id": snapshot.model_id,
            "kind": snapshot.kind,
            "feature_version": snapshot.feature_version,
            "mcpu": model.mcpu,
            "num_records": snapshot.n_records,
            "num_tasks": model.num_tasks,
            "num_failures": model.num_failures,
            "metrics": metrics,
            "trained_at": snapshot.trained_at.isoformat(),
            "booster_ubj": base64.b64encode(snapshot.booster_ubj).decode("ascii"),
        },
        indent=1,
        allow_nan=False,
    )
    write_whole(path, text + "\n")


def read_model(path: Path) -> ModelFile:
    """Read what `write_model` wrote.

    Raises:
        ConfigError: there is no such file, it is no cost model, is damaged, or is of another version.
    """
    content = read_limited(path, _MAX_BYTES, remedy=_REMEDY)
    try:
        model = _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise ConfigError(f"{path} is no cost model, or a damaged one: {_REMEDY}") from None
    try:
        check_usable(model.snapshot)
    except ModelError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    return model


def _parse(text: bytes) -> ModelFile:
    fields = json.loads(text)
    if fields["format"] != FORMAT:
        raise ValueError(f"format {fields['format']!r}")
    snapshot = ModelSnapshot(
        model_id=str(fields["model_id"]),
        kind=str(fields["kind"]),
        booster_ubj=base64.b64decode(fields["booster_ubj"], validate=True),
        feature_version=str(fields["feature_version"]),
        n_records=int(fields["num_records"]),
        metrics={k: math.nan if v is None else float(v) for k, v in fields["metrics"].items()},
        trained_at=datetime.fromisoformat(fields["trained_at"]),
    )
    return ModelFile(snapshot, str(fields["mcpu"]), int(fields["num_tasks"]), int(fields["num_failures"]))
