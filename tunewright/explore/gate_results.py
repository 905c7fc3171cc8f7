"""What a run of `tunewright gate` wrote, for notebooks: the verdicts as they stand in its file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import ConfigError
from tunewright.core.files import read_limited
from tunewright.core.text import printable
from tunewright.explore.frames import NUMBER, TEXT, Column, make_frame
from tunewright.explore.html import Html, block, count, facts, heading, short_name, table

if TYPE_CHECKING:
    import pandas as pd

_SCHEMA = "tunewright-gate/1"
_MAX_FILE_BYTES = 64 << 20
_WORST_FIRST = ("regressed", "error", "inconclusive", "missing", "improved", "same")


@dataclass(frozen=True, slots=True)
class GateItem:
    """One kernel or model. `ratio` is head over base, above 1 where head is slower; None: not timed.

    `low_ratio` and `high_ratio` are its interval, None where there is none. `share`: of the time of all timed
    kernels; `cost_ratio`: how much longer all of them take by this one. Both are None of a model.
    """

    name: str
    verdict: str
    reason: str
    ratio: float | None
    low_ratio: float | None
    high_ratio: float | None
    num_pairs: int
    share: float | None
    cost_ratio: float | None

    @property
    def change_text(self) -> str:
        """+4.9 % (+4.1 to +5.6)."""
        if self.ratio is None:
            return "-"
        change = f"{100 * (self.ratio - 1):+.1f} %"
        if self.low_ratio is None or self.high_ratio is None:
            return change
        return f"{change} ({100 * (self.low_ratio - 1):+.1f} to {100 * (self.high_ratio - 1):+.1f})"


@dataclass(frozen=True, slots=True)
class GateResults:
    """One run of the gate: `items`, the worst verdicts first."""

    path: Path
    created_at: str
    machine: str
    items: tuple[GateItem, ...] = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many items have each verdict, the worst first."""
        verdicts = [item.verdict for item in self.items]
        return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}

    def to_frame(self) -> "pd.DataFrame":
        """One row per item, the worst verdicts first."""
        return make_frame(self.items, _COLUMNS)

    def __repr__(self) -> str:
        return f"<GateResults of {printable(self.path.name)}: {printable(self._counts_text())}>"

    def _repr_html_(self) -> Html:
        rows = [
            (
                short_name(item.name),
                item.verdict,
                item.change_text,
                str(item.num_pairs),
                "-" if item.cost_ratio is None else f"{100 * item.cost_ratio:+.2f} %",
                item.reason,
            )
            for item in self.items
        ]
        heads = ("kernel or model", "verdict", "*change", "*pairs", "*of all kernels", "why")
        return block(
            [
                heading("Performance gate", str(self.path)),
                facts((self._counts_text(), f"begun {self.created_at}", self.machine)),
                *([table("Head against base", heads, rows)] if rows else []),
            ]
        )

    def _counts_text(self) -> str:
        return ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items()) or "no items"


def read_gate_results(path: str | os.PathLike[str]) -> GateResults:
    """Read the file that `tunewright gate ... -o FILE` wrote; nothing is judged again.

    Raises:
        ConfigError: it cannot be read, or is no run of the gate, or of another schema version.
    """
    path = Path(path)
    content = read_limited(path, _MAX_FILE_BYTES, remedy="give a file of tunewright gate")
    try:
        fields = json.loads(content)
        schema = fields["schema"]
        if schema != _SCHEMA:
            raise ConfigError(f"{path} has schema {schema!r}, not {_SCHEMA!r}; run the gate again")
        if "results" not in fields:
            raise ConfigError(f"{path} holds a calibration, which has no verdicts: give a run of the gate")
        items = [_item(result) for result in fields["results"]]
        machine = fields["run"]["machine"]
        machine_text = f"{machine['cpu_model']}, {count(int(machine['num_cpus']), 'CPU')}"
        created_at = str(fields["run"]["created_at"])
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        if isinstance(exc, ConfigError):
            raise
        raise ConfigError(
            f"{path} holds no results of the gate ({type(exc).__name__}: {exc}); run it again"
        ) from exc
    items.sort(key=lambda item: _WORST_FIRST.index(item.verdict) if item.verdict in _WORST_FIRST else -1)
    return GateResults(path, created_at, machine_text, tuple(items))


def _item(result: Any) -> GateItem:
    judgement = result["judgement"] or {}
    return GateItem(
        name=str(result["name"]),
        verdict=str(result["verdict"]),
        reason=str(result["reason"]),
        ratio=_number(judgement, "ratio"),
        low_ratio=_number(judgement, "low_ratio"),
        high_ratio=_number(judgement, "high_ratio"),
        num_pairs=int(judgement.get("num_pairs", 0)),
        share=_number(result, "share"),
        cost_ratio=_number(result, "cost_ratio"),
    )


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    return None if value is None else float(value)


_COLUMNS: list[Column[GateItem]] = [
    Column("name", TEXT, lambda i: i.name),
    Column("verdict", TEXT, lambda i: i.verdict),
    Column("ratio", NUMBER, lambda i: i.ratio),
    Column("low_ratio", NUMBER, lambda i: i.low_ratio),
    Column("high_ratio", NUMBER, lambda i: i.high_ratio),
    Column("num_pairs", "int64", lambda i: i.num_pairs),
    Column("share", NUMBER, lambda i: i.share),
    Column("cost_ratio", NUMBER, lambda i: i.cost_ratio),
    Column("reason", TEXT, lambda i: i.reason),
]
