"""What `tunewright model tune` shows: parameters, scores and times, of the defaults and of the best found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tunewright.cli.output import Column

if TYPE_CHECKING:
    from tunewright.scheduler.model_tuning import Comparison, Estimate, ModelTuning


@dataclass(frozen=True, slots=True)
class Row:
    """`of`: "parameter", "study", "held out" or "fit". `held_out`: of the third, with the spread."""

    of: str
    name: str
    default: float
    tuned: float
    held_out: "Comparison | None" = None


def rows_of(found: "ModelTuning") -> Sequence[Row]:
    """The parameters, then what they bring."""
    from tunewright.cost_model.hyper_parameters import DEFAULT

    defaults = asdict(DEFAULT)
    rows = [Row("parameter", name, defaults[name], value) for name, value in asdict(found.params).items()]
    rows.append(Row("study", found.metric, *found.study_scores))
    rows += [Row("held out", one.metric, one.default.mean, one.tuned.mean, one) for one in found.comparisons]
    rows.append(Row("fit", "seconds", *found.fit_secs))
    return rows


def _shown(value: float, estimate: "Estimate | None") -> str:
    if estimate is not None:
        return f"{value:.4f} ±{estimate.high - estimate.mean:.4f}"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _difference(row: Row) -> str | None:
    if row.held_out is None:
        return None
    found = row.held_out.difference
    return f"{found.mean:+.4f} ±{found.high - found.mean:.4f}"


def _estimate(side: str, field: str) -> Callable[[Row], float | None]:
    """A field of what is known of a side where it was held out."""

    def value(row: Row) -> float | None:
        if row.held_out is None:
            return None
        number: float = getattr(getattr(row.held_out, side), field)
        return number if math.isfinite(number) else None

    return value


COLUMNS: tuple[Column[Row], ...] = (
    Column("of", lambda r: r.of, title="of"),
    Column("name", lambda r: r.name, title="name"),
    Column(
        "default",
        lambda r: r.default,
        title="default",
        text=lambda r: _shown(r.default, r.held_out.default if r.held_out else None),
    ),
    Column(
        "tuned",
        lambda r: r.tuned,
        title="tuned",
        text=lambda r: _shown(r.tuned, r.held_out.tuned if r.held_out else None),
    ),
    Column("difference", _estimate("difference", "mean"), title="difference", text=_difference),
    *(
        Column(f"{side}_{field}", _estimate(side, field))
        for side in ("default", "tuned", "difference")
        for field in ("low", "high")
    ),
)
