"""Content keys: complete and unambiguous digests of what they name."""

import hashlib
import json

# Made once: json.dumps with settings makes an encoder per call, which takes longer than a short text does.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
# So much of a key people see, and so much they must give to name what it stands for.
SHORT_KEY_CHARS = 8


def digest(*parts: str) -> str:
    """SHA-256 (64 hex digits) over length-prefixed parts, so that ("ab", "c") and ("a", "bc") differ."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: a float is NaN or infinite.
        TypeError: a value is not plain JSON data.
    """
    return _CANONICAL.encode(value)


def short_key(key: str) -> str:
    """As much of a key as people see."""
    return key[:SHORT_KEY_CHARS]
