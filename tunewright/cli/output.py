"""Printing data: one table for people, JSON or CSV with stable keys for programs. All of it on stdout."""

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

import typer

from tunewright.core.text import printable

Row = TypeVar("Row")
Cell = str | int | float | bool | None | Sequence[Any] | Mapping[str, Any]

ABSENT = "-"


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format, typer.Option("-f", "--format", help="A table for people, JSON or CSV for programs.")
]


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    `key` is its stable name for programs, with the unit, and `value` what they get. People see `text` (by
    default the value) under `title`; without a title the column is not in the table. A `shrinks` column
    gives way where the terminal is narrow.
    """

    key: str
    value: Callable[[Row], Cell]
    _: KW_ONLY
    title: str | None = None
    text: Callable[[Row], str | None] | None = None
    is_number: bool = False
    shrinks: bool = False

    def shown(self, row: Row) -> str:
        """What people see: no control characters, so that no recorded text can take over a terminal."""
        shown = self.text(row) if self.text is not None else self.value(row)
        return ABSENT if shown is None else printable(str(shown))


def print_rows(
    rows: Sequence[Row], columns: Sequence[Column[Row]], output_format: Format, *, empty: str
) -> None:
    """Print rows. `empty` is the sentence for people, on stderr, where there are none."""
    match output_format:
        case Format.TABLE if rows:
            _print_table(rows, [column for column in columns if column.title is not None])
        case Format.TABLE:
            typer.echo(empty, err=True)
        case Format.JSON:
            typer.echo(_json([{column.key: column.value(row) for column in columns} for row in rows]))
        case Format.CSV:
            _print_csv(rows, columns)


def print_item(item: Row, columns: Sequence[Column[Row]], output_format: Format) -> None:
    """Print one thing with all that is known about it: one line for each column."""
    match output_format:
        case Format.TABLE:
            shown = [column for column in columns if column.title is not None]
            width = max(len(column.title or "") for column in shown)
            for column in shown:
                first, *more = column.shown(item).splitlines() or [""]
                typer.echo(f"{column.title:<{width}}  {first}")
                for line in more:
                    typer.echo(f"{'':<{width}}  {line}")
        case Format.JSON:
            typer.echo(_json({column.key: column.value(item) for column in columns}))
        case Format.CSV:
            _print_csv([item], columns)


def format_ms(secs: float | None) -> str | None:
    """Milliseconds with four significant digits."""
    return None if secs is None else f"{secs * 1e3:#.4g}"


def _print_table(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        # Rich narrows the columns that may wrap before all others.
        table.add_column(
            column.title or "", justify="right" if column.is_number else "left", no_wrap=not column.shrinks
        )
    for row in rows:
        cells = (column.shown(row).replace("\n", " ") for column in columns)
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    Console(highlight=False).print(table)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _print_csv(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow([_csv_cell(column.value(row)) for column in columns])


def _csv_cell(value: Cell) -> str | int | float | None:
    match value:
        case bool():
            return str(value).lower()
        case None | str() | int() | float():
            return value
    return json.dumps(value, allow_nan=False)
