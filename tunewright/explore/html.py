"""Pieces of what notebooks show: HTML that stands alone, without scripts, on dark ground or light.

Whatever a text holds, it is shown as text: every function escapes what it is given, and `Html` is what has
been made here.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

from tunewright.core.text import printable

Html = NewType("Html", str)

_MAX_NAME_CHARS = 60

# No color of our own: text and lines follow the notebook's.
_CELL = 'style="text-align:left;border-bottom:1px solid rgba(128,128,128,0.35);padding:2px 12px 2px 0"'
_NUMBER_CELL = _CELL.replace("left", "right", 1)
_PRE = 'style="margin:4px 0;overflow-x:auto;line-height:1.3;white-space:pre"'
_MARKS = {
    "+": "background:rgba(0,160,80,0.16)",
    "-": "background:rgba(220,80,0,0.16)",
}


def short_name(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else f"{name[: _MAX_NAME_CHARS - 1]}…"


def text_html(text: str) -> Html:
    return Html(escape(printable(text)))


def block(parts: Iterable[Html]) -> Html:
    """All of an object."""
    return Html(f"<div>{''.join(parts)}</div>")


def heading(kind: str, name: str) -> Html:
    return Html(f"<div><b>{text_html(kind)}</b> <code>{text_html(name)}</code></div>")


def facts(texts: Iterable[str]) -> Html:
    return Html(f"<div>{text_html(' · '.join(texts))}</div>")


def paragraph(text: str) -> Html:
    return Html(f'<div style="margin-top:4px">{text_html(text)}</div>')


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table; the columns of heads that begin with a `*` hold numbers and stand to the right."""
    styles = [_NUMBER_CELL if head.startswith("*") else _CELL for head in heads]
    head_cells = (
        f"<th {style}>{text_html(head.removeprefix('*'))}</th>"
        for style, head in zip(styles, heads, strict=True)
    )
    lines = (
        "".join(f"<td {style}>{text_html(cell)}</td>" for style, cell in zip(styles, row, strict=True))
        for row in rows
    )
    return Html(
        f'<div style="margin-top:8px"><b>{text_html(title)}</b></div>'
        '<table style="border-collapse:collapse">'
        f"<thead><tr>{''.join(head_cells)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
    )


def lines_html(lines: Iterable[str]) -> Html:
    """Lines of code or words, one below the other."""
    return Html(f"<pre {_PRE}>{text_html(chr(10).join(line.rstrip() for line in lines))}</pre>")


def diff_html(lines: Iterable[str]) -> Html:
    """Lines of a unified diff; those that came or went have a ground and, without it, their `+` or `-`."""
    marked = (
        f'<span style="{_MARKS[line[0]]}">{text_html(line)}</span>'
        if line[:1] in _MARKS and not line.startswith(("+++ ", "--- "))
        else text_html(line)
        for line in lines
    )
    return Html(f"<pre {_PRE}>{chr(10).join(marked)}</pre>")


def side_by_side(titles: Sequence[str], columns: Sequence[Html]) -> Html:
    """Columns of equal width; what is wider is scrolled."""
    cells = (
        f'<div style="min-width:0"><b>{text_html(title)}</b>{column}</div>'
        for title, column in zip(titles, columns, strict=True)
    )
    style = f"display:grid;grid-template-columns:repeat({len(columns)},1fr);gap:16px;margin-top:4px"
    return Html(f'<div style="{style}">{"".join(cells)}</div>')


def details(title: str, content: Html, *, is_open: bool = False) -> Html:
    """What is folded away until somebody asks for it."""
    opened = " open" if is_open else ""
    return Html(
        f'<details style="margin-top:8px"{opened}><summary><b>{text_html(title)}</b></summary>'
        f"{content}</details>"
    )


def bar(share: float, label: str) -> Html:
    """A share in [0, 1] as a filled bar, with its label behind it."""
    percent = 100 * min(1.0, max(0.0, share))
    return Html(
        '<div style="display:flex;align-items:center;margin-top:6px">'
        '<div style="width:240px;height:12px;border:1px solid currentColor;margin-right:8px">'
        f'<div style="width:{percent:.1f}%;height:100%;background:currentColor;opacity:0.55"></div></div>'
        f"<div>{text_html(label)}</div></div>"
    )


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
