"""Text from logs, models and errors, safe for terminals and pages."""


def printable(text: str) -> str:
    """The text with what a terminal or a page would obey, all control characters but newlines, as escapes."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def shortened(text: str, max_chars: int = 80) -> str:
    """The text, of a longer one its beginning."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
