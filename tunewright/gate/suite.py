"""A suite: what is compared, and when a change counts. A TOML file, or a table of pyproject.toml."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.core.errors import ConfigError
from tunewright.gate.statistics import DEFAULT_LOOKS

PYPROJECT = "pyproject.toml"
ACCEPTED_FILE = "gate-accepted.toml"
DEFAULT_EFFECT_RATIO = 0.02
LEAST_EFFECT_RATIO = 1e-4
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A compiled model's directory; `base` None: the command line says."""

    name: str
    base: Path | None
    head: Path
    min_effect_ratio: float


@dataclass(frozen=True, slots=True)
class KernelsEntry:
    """The kernels of lock files (`*.lock`), or the champions of logs.

    `base` and `head`: a lock's path or a log's URL. `log`: where the schedules of locks are. `tasks`:
    patterns of names, empty for all.
    """

    name: str
    base: str | None
    head: str
    log: str | None
    tasks: tuple[str, ...]
    min_effect_ratio: float


@dataclass(frozen=True, slots=True)
class Suite:
    """What a file says, with the defaults where it does not.

    Relative paths are seen from the file's folder. `calibration`: a file that `calibrate` wrote, else the
    machine's own. `inconclusive_fails`: whether that is exit status 4. `min_effect_ratio`: of entries that
    have none of their own. `folder`: of the file. `build`: a line of the shell that makes the heads, run
    there before they are timed, and in a checkout of the revision that is the base.
    """

    models: tuple[ModelEntry, ...] = ()
    kernels: tuple[KernelsEntry, ...] = ()
    alpha: float = 0.01
    looks: tuple[int, ...] = DEFAULT_LOOKS
    sample_secs: float = 0.05
    min_cost_ratio: float = 0.001
    inconclusive_fails: bool = True
    calibration: Path | None = None
    accepted: Path = Path(ACCEPTED_FILE)
    min_effect_ratio: float = DEFAULT_EFFECT_RATIO
    folder: Path = Path()
    build: str | None = None


# Three in each of three groups.
_LEAST_PAIRS = 9


def read_suite(path: Path | None) -> Suite:
    """Read a suite; None: `pyproject.toml` of the working directory.

    Raises:
        ConfigError: there is none, or something in it is unknown or of the wrong type.
    """
    place = path or Path(PYPROJECT)
    fields = _fields(place)
    if not fields:
        where = "[tool.tunewright.gate]" if place.name == PYPROJECT else "entry"
        raise ConfigError(f"{place} has no {where}: add one, or give the suite with --suite FILE")
    return _suite(_Table(fields, str(place)), place.parent)


def has_suite(path: Path) -> bool:
    """Whether the file is there and holds a suite.

    Raises:
        ConfigError: it is no TOML.
    """
    return path.is_file() and bool(_fields(path))


def _fields(path: Path) -> Mapping[str, Any]:
    """What the file says of the gate."""
    try:
        fields: object = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read ({exc.strerror}); give the suite with --suite FILE"
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is no TOML: {exc}") from exc
    for name in ("tool", "tunewright", "gate") if path.name == PYPROJECT else ():
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields if isinstance(fields, Mapping) else {}


def parse_ratio(value: object, name: str, *, least: float = 0.0) -> float:
    """0.02 of 0.02 or "2%".

    Raises:
        ConfigError: it is no such number, or less than `least`.
    """
    ratio: float | None = None
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        ratio = float(match[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        ratio = float(value)
    if ratio is None or not 0 <= ratio < 1:
        raise ConfigError(f'{name} is {value!r}; write a ratio such as 0.02, or "2%"')
    if ratio < least:
        raise ConfigError(f"{name} is {ratio:g}, expected at least {least:g}")
    return ratio


class _Table:
    """A table of a file, whose names are taken one by one; what is left at the end is unknown."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self._fields = dict(fields)
        self._where = where

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self._fields.pop(name, default)
        is_flag = isinstance(value, bool) and kind is not bool
        if value is not None and (not isinstance(value, kind) or is_flag):
            raise ConfigError(f"{self._where}: {name} is {value!r}, which is of the wrong type")
        return value

    def need(self, name: str) -> str:
        value: str | None = self.take(name, str)
        if not value:
            raise ConfigError(f"{self._where}: {name} is missing")
        return value

    def ratio(self, name: str, default: float, *, least: float = 0.0) -> float:
        return parse_ratio(self._fields.pop(name, default), f"{self._where}: {name}", least=least)

    def texts(self, name: str) -> tuple[str, ...]:
        values: list[object] = self.take(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise ConfigError(f"{self._where}: {name} is no list of texts")
        return tuple(map(str, values))

    def tables(self, name: str) -> list["_Table"]:
        values: list[object] = self.take(name, list, [])
        found = []
        for number, value in enumerate(values, 1):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{self._where}: {name} is no list of tables: write [[{name}]]")
            found.append(_Table(value, f"{self._where}, {name} {number}"))
        return found

    def check_empty(self) -> None:
        if self._fields:
            raise ConfigError(f"{self._where}: {', '.join(sorted(self._fields))} is not known")


def _suite(table: _Table, folder: Path) -> Suite:
    effect = table.ratio("min_effect", DEFAULT_EFFECT_RATIO, least=LEAST_EFFECT_RATIO)
    models = tuple(_model(one, folder, effect) for one in table.tables("model"))
    kernels = tuple(_kernels(one, folder, effect) for one in table.tables("kernels"))
    names = [model.name for model in models] + [entry.name for entry in kernels]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two entries of the suite have the name {min(doubled)!r}; give each its own")
    looks = tuple(table.take("looks", list, list(DEFAULT_LOOKS)))
    if not all(type(look) is int and look >= _LEAST_PAIRS for look in looks):
        raise ConfigError(f"looks is {list(looks)}; give whole numbers of pairs from {_LEAST_PAIRS}")
    if not looks or list(looks) != sorted({*looks}):
        raise ConfigError(f"looks is {list(looks)}; give rising numbers of pairs, as {list(DEFAULT_LOOKS)}")
    alpha = table.ratio("alpha", 0.01, least=1e-6)
    if alpha >= 0.5:
        raise ConfigError(f"alpha is {alpha:g}, expected less than 0.5")
    policy = table.take("inconclusive", str, "fail")
    if policy not in ("fail", "pass"):
        raise ConfigError(f"inconclusive is {policy!r}; write 'fail' (exit status 4) or 'pass'")
    sample_ms = table.take("sample_ms", (int, float), 50)
    if not 0.1 <= sample_ms <= 60_000:
        raise ConfigError(f"sample_ms is {sample_ms}, expected 0.1 to 60000")
    calibration = table.take("calibration", str)
    suite = Suite(
        models=models,
        kernels=kernels,
        alpha=alpha,
        looks=looks,
        sample_secs=sample_ms / 1e3,
        min_cost_ratio=table.ratio("min_cost", 0.001),
        inconclusive_fails=policy == "fail",
        calibration=folder / calibration if calibration else None,
        accepted=folder / table.take("accepted", str, ACCEPTED_FILE),
        min_effect_ratio=effect,
        folder=folder,
        build=table.take("build", str),
    )
    table.check_empty()
    return suite


def _model(table: _Table, folder: Path, effect: float) -> ModelEntry:
    head, base = folder / table.need("head"), table.take("base", str)
    entry = ModelEntry(
        table.take("name", str, head.name),
        folder / base if base else None,
        head,
        table.ratio("min_effect", effect, least=LEAST_EFFECT_RATIO),
    )
    table.check_empty()
    return entry


def _kernels(table: _Table, folder: Path, effect: float) -> KernelsEntry:
    head, base, log = table.need("head"), table.take("base", str), table.take("log", str)
    entry = KernelsEntry(
        table.take("name", str, Path(head).stem),
        place_of(base, folder) if base else None,
        place_of(head, folder),
        place_of(log, folder) if log else None,
        table.texts("tasks"),
        table.ratio("min_effect", effect, least=LEAST_EFFECT_RATIO),
    )
    table.check_empty()
    return entry


def place_of(text: str, folder: Path) -> str:
    """A URL as it is, a path as seen from the folder."""
    return text if "://" in text else str(folder / text)
