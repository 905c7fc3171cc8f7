"""Numbers for people, and people's durations for programs."""

import re

from tunewright.core.errors import ConfigError

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration_secs(text: str) -> float:
    """Seconds of "90", "90s", "10m" or "1h30m".

    Raises:
        ConfigError: the text is no positive duration.
    """
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, secs = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + secs
    if total <= 0:
        raise ConfigError(f"{text!r} is no duration; write for example 90s, 10m or 1h30m")
    return total


def format_ms(secs: float | None) -> str:
    """Seconds as milliseconds with three significant digits; "-" for None."""
    if secs is None:
        return "-"
    ms = secs * 1e3
    if ms >= 100:
        return f"{ms:,.0f} ms"
    return f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms" if ms >= 1 else f"{ms:.3f} ms"


def format_duration(secs: float | None) -> str:
    """Seconds as "1:02:03" or "2:03"; "-" for None."""
    if secs is None:
        return "-"
    minutes, seconds = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
