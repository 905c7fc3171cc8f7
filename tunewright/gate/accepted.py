"""Regressions that were accepted, with a reason, a limit, and a day on which that ends: a text file."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tunewright.core.errors import ConfigError
from tunewright.gate.results import ItemResult
from tunewright.gate.statistics import Verdict

_HEADER = """\
# Slowdowns that were accepted. Written by tunewright gate accept; keep it beside the suite.
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Head may take `max_ratio` times as long as base, up to the day `until` and on it."""

    name: str
    max_ratio: float
    reason: str
    until: date

    def covers(self, result: ItemResult, today: date) -> bool:
        """Whether this slowdown is accepted today."""
        judgement = result.judgement
        is_small = judgement is not None and judgement.ratio <= self.max_ratio
        return result.item.name == self.name and is_small and today <= self.until


def read_accepted(path: Path) -> list[Accepted]:
    """What a file accepts; nothing where there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} cannot be read ({exc}); accept again with tunewright gate accept") from exc
    try:
        return [
            Accepted(str(one["name"]), float(one["max_ratio"]), str(one["reason"]), _day(one["until"]))
            for one in fields.get("accepted", [])
        ]
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{path} is damaged ({type(exc).__name__}: {exc})") from exc


def accept(result: ItemResult, path: Path, *, reason: str, until: date, today: date) -> Accepted:
    """Write that a slowdown is accepted, up to the upper limit of what was measured.

    An earlier acceptance of the same item is replaced, those that have expired are dropped.

    Raises:
        ConfigError: it is no regression, no reason is given, or the day is over.
    """
    if result.verdict is not Verdict.REGRESSED or result.judgement is None:
        raise ConfigError(f"{result.item.name!r} is {result.verdict}: only what regressed can be accepted")
    if not reason.strip():
        raise ConfigError("the reason is empty; say why the slowdown is accepted")
    if until < today:
        raise ConfigError(f"{until} is over; give a day to come as --until YYYY-MM-DD")
    new = Accepted(result.item.name, result.judgement.high_ratio, reason.strip(), until)
    kept = [one for one in read_accepted(path) if one.name != new.name and one.until >= today]
    try:
        path.write_text(_to_text([*kept, new]), encoding="utf-8", newline="\n")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another with --file") from exc
    return new


def _to_text(accepted: Sequence[Accepted]) -> str:
    lines = [_HEADER.rstrip("\n")]
    for one in accepted:
        lines += [
            "",
            "[[accepted]]",
            f"name = {_toml(one.name)}",
            f"max_ratio = {one.max_ratio!r}  # up to {100 * (one.max_ratio - 1):+.1f} %",
            f"until = {one.until.isoformat()}",
            f"reason = {_toml(one.reason)}",
        ]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for surrogates and DEL."""
    storable = text.encode(errors="backslashreplace").decode()
    return json.dumps(storable, ensure_ascii=False).replace("\x7f", "\\u007f")


def _day(value: object) -> date:
    if type(value) is not date:
        raise TypeError("until is no day such as 2030-12-31")
    return value
