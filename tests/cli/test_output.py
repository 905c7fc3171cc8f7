"""Rows and items as tables, JSON and CSV."""

import csv
import io
import json
from dataclasses import dataclass

import pytest

from tunewright.cli.output import Column, Format, format_ms, print_item, print_rows


@dataclass(frozen=True)
class Row:
    name: str
    secs: float | None
    is_good: bool = True
    samples: tuple[float, ...] = ()


COLUMNS: list[Column[Row]] = [
    Column("name", lambda r: r.name, title="name", shrinks=True),
    Column("secs", lambda r: r.secs, title="ms", text=lambda r: format_ms(r.secs), is_number=True),
    Column("is_good", lambda r: r.is_good),
    Column("samples", lambda r: list(r.samples)),
]
ROWS = [Row('a, "b"\nc', 0.0123456, samples=(0.5, 1.0)), Row("é", None, is_good=False)]


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")


def test_json_has_every_column_and_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, Format.JSON, empty="none")
    assert json.loads(capsys.readouterr().out) == [
        {"name": 'a, "b"\nc', "secs": 0.0123456, "is_good": True, "samples": [0.5, 1.0]},
        {"name": "é", "secs": None, "is_good": False, "samples": []},
    ]


def test_csv_has_every_column_and_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, Format.CSV, empty="none")
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["name", "secs", "is_good", "samples"],
        ['a, "b"\nc', "0.0123456", "true", "[0.5, 1.0]"],
        ["é", "", "false", "[]"],
    ]


def test_a_table_has_a_line_per_row_and_only_the_titled_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, Format.TABLE, empty="none")
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "ms"]
    assert first.split("  ") == ['a, "b" c', "12.35"]
    assert second.split() == ["é", "-"]


def test_the_column_that_shrinks_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([Row("x" * 50, 0.001)], COLUMNS, Format.TABLE, empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 30 for line in lines)
    assert lines[2].endswith("1.000")
    assert "xxx…" in lines[2]


def test_recorded_text_cannot_take_over_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("[red]\x1b[2J\r\x00é", 0.001)
    print_rows([row], COLUMNS, Format.TABLE, empty="none")
    print_item(row, COLUMNS, Format.TABLE)
    out = capsys.readouterr().out
    assert out.count(r"[red]\x1b[2J\r\x00é") == 2
    assert "\x1b[2J" not in out


def test_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for output_format in Format:
        print_rows([], COLUMNS, output_format, empty="there is none")
        outputs.append(tuple(capsys.readouterr()))
    assert outputs == [("", "there is none\n"), ("[]\n", ""), ("name,secs,is_good,samples\n", "")]


def test_one_item(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("two\nlines", 0.002)
    print_item(row, COLUMNS, Format.TABLE)
    assert capsys.readouterr().out.splitlines() == ["name  two", "      lines", "ms    2.000"]
    print_item(row, COLUMNS, Format.JSON)
    assert json.loads(capsys.readouterr().out)["name"] == "two\nlines"
    print_item(row, COLUMNS, Format.CSV)
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out)))) == 2
