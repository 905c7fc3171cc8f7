"""Text from outside on terminals and pages."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright.core.text import printable, shortened


@given(st.text(st.characters(codec=None)))
def test_nothing_is_left_for_a_terminal_to_obey(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char == "\n" for char in shown)
    shown.encode("utf-8")  # lone surrogates are escapes too
    assert shown == text or not text.replace("\n", "").isprintable()


def test_control_characters_are_escapes_and_letters_are_not() -> None:
    assert printable("conv2d é\n") == "conv2d é\n"
    assert printable("\x1b[31m\r\x00") == r"\x1b[31m\r\x00"


def test_only_what_is_too_long_is_shortened() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 79 + "…"
