"""Whatever a text holds, it is shown as text."""

from hypothesis import given
from hypothesis import strategies as st

from tests.explore.html_page import EVIL, assert_harmless
from tunewright.explore import html

hostile = st.text() | st.sampled_from([EVIL, "</pre>", "--></style>", "\x1b[31m", "\ud800", "‮abc", "'\""])


@given(hostile, st.floats(allow_nan=False))
def test_no_text_becomes_more_than_a_text(text: str, share: float) -> None:
    row = (text, text)
    parts = [
        html.heading(text, text),
        html.facts([text, text]),
        html.paragraph(text),
        html.table(text, row, [row, row]),
        html.lines_html([text]),
        html.diff_html([text, f"+{text}", f"-{text}"]),
        html.details(text, html.paragraph(text), is_open=True),
        html.side_by_side(row, [html.paragraph(text)] * 2),
        html.bar(share, text),
    ]
    page = assert_harmless(html.block(parts))
    assert set("".join(part for part in parts)) >= {"<", ">"}
    html.block(parts).encode("utf-8")  # a notebook is stored so
    if text.isprintable() and text.strip():
        assert page.text.count(text) >= 16


def test_what_changed_is_marked_by_more_than_color() -> None:
    page = assert_harmless(html.diff_html(["--- a", "+++ b", "@@ -1 +1 @@", " same", "-old", "+new"]))
    assert page.tags.count("span") == 2
    assert "-old" in page.text and "+new" in page.text


def test_a_bar_is_never_wider_than_its_frame() -> None:
    for share, width in ((-1.0, "0.0%"), (0.255, "25.5%"), (7.0, "100.0%")):
        assert f"width:{width}" in html.bar(share, "share")
