"""The parts of a static page: text, tables and pictures. Every text is escaped, nothing is loaded."""

from collections.abc import Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 68rem;
       margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 2px solid #1a1a1a; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; }
p.facts { color: #444; overflow-wrap: anywhere; }
div.scrolls { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.87rem; }
th, td { text-align: left; padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ccc; vertical-align:
top; overflow-wrap: anywhere; min-width: 2.5rem; } th { border-bottom: 1px solid #1a1a1a; white-space: nowrap;
} .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } div.pictures {
display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
               gap: 1.2rem 2rem; align-items: start; }
td:first-child { min-width: 5.5rem; }
div.pictures + div.scrolls { margin-top: 1.6rem; }
figure { margin: 0; break-inside: avoid; }
figure svg { width: 100%; height: auto; }
figcaption { font-size: 0.87rem; color: #444; }
figcaption b { color: #1a1a1a; }
"""
# Nothing from anywhere, and no scripts, whatever a name in the log may say.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document. Args: parts: HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def heading(level: int, text: str, *, anchor: str = "") -> str:
    where = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{where}>{escape(text)}</h{level}>"


def facts(items: Sequence[str]) -> str:
    """Short facts in a line."""
    return f'<p class="facts">{" · ".join(escape(item) for item in items)}</p>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, links: Sequence[str] = ()) -> str:
    """A table; the columns of heads that begin with a `*` hold numbers and stand to the right.

    Args:
        links: where given, the anchor on this page that the first cell of each row leads to.
    """
    classes = [' class="number"' if head.startswith("*") else "" for head in heads]
    head = "".join(
        f"<th{of}>{escape(text.removeprefix('*'))}</th>" for of, text in zip(classes, heads, strict=True)
    )
    lines = []
    for number, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        if links:
            cells[0] = f'<a href="#{escape(links[number])}">{cells[0]}</a>'
        line = "".join(f"<td{of}>{cell}</td>" for of, cell in zip(classes, cells, strict=True))
        lines.append(f"<tr>{line}</tr>")
    body = "\n".join(lines)
    content = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="scrolls"><table>\n{content}</table></div>'


def pictures(figures: Sequence[str]) -> str:
    """Args: figures: what `picture` made."""
    return '<div class="pictures">\n' + "\n".join(figures) + "\n</div>"


def picture(svg: str, title: str, caption: str) -> str:
    """Args: svg: an <svg> element, or "" where there was nothing to draw, which the caption then explains."""
    return f"<figure>{svg}<figcaption><b>{escape(title)}</b> {escape(caption)}</figcaption></figure>"
