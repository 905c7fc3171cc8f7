"""Text of the log in pictures, and pictures in pages."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tunewright.core.errors import ConfigError
from tunewright.plots import inline_svg, offscreen_axes, save
from tunewright.plots.axes import plain, shorten, two_lines


def test_an_inline_svg_is_one_element_that_asks_for_nothing_and_does_not_change() -> None:
    hostile = "</svg><script>alert(1)</script> & \"'"

    def draw() -> str:
        ax = offscreen_axes()
        ax.plot([1, 2], [3, 4], label=plain(hostile))
        ax.legend()
        ax.set_title(plain(hostile))
        return inline_svg(ax)

    svg = draw()
    assert svg == draw()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<script" not in svg
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(hostile) == 2
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not (name.endswith("href") and not value.startswith("#"))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["$x$", "_x", "a\tb\x00\x1b[31m", "\u202e", "形状", "a\\$b$"])
def test_any_text_is_drawn_in_any_format(tmp_path: Path, text: str) -> None:
    ax = offscreen_axes()
    ax.plot([1], [2], label=plain(text))
    (shown,) = ax.legend().get_texts()
    assert shown.get_text().isprintable()
    for ending in ("png", "svg", "pdf"):
        save(ax, tmp_path / f"x.{ending}")
        assert (tmp_path / f"x.{ending}").stat().st_size > 100
    ElementTree.fromstring(inline_svg(ax))


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot draw to .*: No such file or directory"):
        save(offscreen_axes(), tmp_path / "no" / "x.png")


def test_names_are_cut_and_shapes_go_below() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert two_lines("conv2d_relu 8x8 * 3x3 -> 8x8") == "conv2d_relu\n8x8 * 3x3 -> 8x8"
    assert two_lines("single steps") == "single steps"
