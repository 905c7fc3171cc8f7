"""Column types that behave alike in SQLite and PostgreSQL."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, LargeBinary, Text, TypeDecorator

# SQLite numbers rows by itself only in an INTEGER column.
RowId = BigInteger().with_variant(Integer, "sqlite")


def storable_text(text: str) -> str:
    """The text with escapes for what a database cannot hold: lone surrogates and, in PostgreSQL, NUL."""
    if not text.isascii():
        text = text.encode(errors="backslashreplace").decode()
    return text.replace("\0", "\\x00")


class SafeText(TypeDecorator[str]):
    """Any text, as `storable_text` leaves it: names and messages come from outside."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes, stored as naive UTC: SQLite drops the zone without a word."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"datetime {value} has no time zone, expected an aware one")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Digest(TypeDecorator[str]):
    """A SHA-256 in hex, stored as its 32 bytes: every trial has some, and so has an index."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex()
