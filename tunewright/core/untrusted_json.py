"""JSON text from outside, parsed within limits that hold before anything is built from it."""

import json
import math
import re
from typing import Any

from tunewright.core.errors import UntrustedTraceError

_MAX_NUMBER_CHARS = 32
_MAX_SHOWN_CHARS = 80
# A string, closed or not, or a bracket. Possessive and never failing at a quote: linear in the text.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def parse_untrusted(text: str, what: str, *, max_bytes: int, max_depth: int) -> Any:
    """The value of a JSON text.

    Args:
        what: names the text in messages.
        max_bytes: of the text in UTF-8.
        max_depth: of lists and objects inside each other.

    Raises:
        UntrustedTraceError: no JSON, or over a limit, or it holds NaN, an infinity, a number of absurd
            length, or an object with a name twice, which parsers read differently.
    """

    def integer(digits: str) -> int:
        return int(short(digits))

    def real(digits: str) -> float:
        value = float(short(digits))
        if not math.isfinite(value):
            raise UntrustedTraceError(f"{what} holds the number {digits}, which is not finite")
        return value

    def short(digits: str) -> str:
        if len(digits) > _MAX_NUMBER_CHARS:
            raise UntrustedTraceError(
                f"{what} holds a number of {len(digits)} digits, at most {_MAX_NUMBER_CHARS} are allowed"
            )
        return digits

    def constant(name: str) -> Any:
        raise UntrustedTraceError(f"{what} holds {name}, which is no number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise UntrustedTraceError(f"{what} holds an object with a name twice")
        return value

    try:
        _check_size(text, what, max_bytes)
        _check_depth(text, what, max_depth)
        return json.loads(
            text,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
            object_pairs_hook=unique,
        )
    except (ValueError, RecursionError, MemoryError) as exc:
        raise UntrustedTraceError(f"{what} is not JSON: {type(exc).__name__}: {exc}") from exc


def shown(value: object) -> str:
    """A value from outside as it may stand in a message: short, and printable anywhere."""
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."


def _check_size(text: str, what: str, max_bytes: int) -> None:
    # Encoded only if the characters alone are few enough; a lone surrogate is a ValueError.
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        raise UntrustedTraceError(f"{what} is longer than {max_bytes} bytes, which is the most that is read")


def _check_depth(text: str, what: str, max_depth: int) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        bracket = text[token.start()]
        if bracket in "[{":
            depth += 1
            if depth > max_depth:
                raise UntrustedTraceError(f"{what} is nested deeper than {max_depth} levels")
        elif bracket in "]}":
            depth -= 1
