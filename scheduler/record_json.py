"""Frozen values as JSON and back, every field; what comes back from outside is checked by its types."""

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar, Union

from tunewright.core.types import MeasureSuccess, TuningRecord

_T = TypeVar("_T")

_MAX_TEXT_CHARS = 4096
_MAX_TRACE_CHARS = 1 << 20
_MAX_ITEMS = 1 << 16
# What a database stores in four bytes, and in eight.
_MAX_INT = 2**31 - 1
_MAX_LONG = 2**63 - 1
_LONG_FIELDS = ("seed", "memory_limit_bytes")
_DIGEST_FIELDS = ("task_key", "parent_key")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_YEARS = range(1970, 9000)


def to_plain(value: Any) -> Any:
    """Lists, dictionaries, texts and numbers of a dataclass; datetimes as ISO 8601 in UTC."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def from_plain(kind: type[_T], plain: Any) -> _T:
    """Inverse of `to_plain` for a dataclass whose fields are those of the plain value, no more and no less.

    A result is always a success: nothing else is worth carrying.

    Raises:
        ValueError: names the field, and what is wrong with it.
    """
    return typing.cast(_T, _decoded(kind, plain, kind.__name__))


def _decoded(hint: Any, plain: Any, where: str) -> Any:
    """Args: where: names the value in messages; its last part is the name of the field."""
    hint = getattr(hint, "__supertype__", hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is TuningRecord.__annotations__["result"]:
        return _object(MeasureSuccess, plain, where)
    if origin in (Union, types.UnionType):
        [inner] = [arg for arg in args if arg is not types.NoneType]
        return None if plain is None else _decoded(inner, plain, where)
    if origin is tuple:
        return _tuple(args, plain, where)
    if is_dataclass(hint):
        return _object(hint, plain, where)
    if not isinstance(plain, str) or hint is str:
        return _scalar(hint, plain, where)
    if hint is datetime:
        return _moment(plain, where)
    if issubclass(hint, StrEnum):
        return hint(plain)
    raise ValueError(f"{where} is a text, expected {hint.__name__}")


def _object(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{where} is no object")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if set(plain) != set(names):
        odd = sorted(set(plain) ^ set(names))
        raise ValueError(f"{where} has other fields than expected: {', '.join(map(ascii, odd[:3]))}")
    return kind(**{name: _decoded(hints[name], plain[name], f"{where}.{name}") for name in names})


def _tuple(args: tuple[Any, ...], plain: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(plain, list) or len(plain) > _MAX_ITEMS:
        raise ValueError(f"{where} is no list of at most {_MAX_ITEMS} items")
    if args[1:] == (...,):
        return tuple(_decoded(args[0], item, where) for item in plain)
    return tuple(_decoded(hint, item, where) for hint, item in zip(args, plain, strict=True))


def _scalar(hint: Any, plain: Any, where: str) -> Any:
    if hint is float and type(plain) is int:
        plain = float(plain)
    if type(plain) is not hint:
        raise ValueError(f"{where} is of type {type(plain).__name__}, expected {hint.__name__}")
    name = where.rpartition(".")[2]
    if isinstance(plain, str):
        limit = _MAX_TRACE_CHARS if name == "trace_json" else _MAX_TEXT_CHARS
        # Nothing of it can take over a terminal, or be what a database cannot hold.
        if len(plain) > limit or not plain.isprintable():
            raise ValueError(f"{where} is longer than {limit} characters, or cannot be printed")
        if name in _DIGEST_FIELDS and not _DIGEST.fullmatch(plain):
            raise ValueError(f"{where} is no SHA-256 of 64 hex digits")
    elif type(plain) is int:
        limit = _MAX_LONG if name in _LONG_FIELDS else _MAX_INT
        if not -limit <= plain <= limit:
            raise ValueError(f"{where} is {plain}, which is out of range")
    return plain


def _moment(text: str, where: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or moment.year not in _YEARS:
        raise ValueError(f"{where} is {text}, which is no moment in UTC")
    return moment.astimezone(UTC)
