"""The canonical form of a document, and the digest that names its version.

Two documents with the same canonical form are the same version: the order of keys and white space do not matter, and
`1.0` and `1` are the same number. Defaults are not filled in: a document that spells one out is another document. The
form is JSON with sorted keys, without white space, in UTF-8.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

__all__ = ["canonical_json", "digest_of"]

# Beyond this, a float no longer stands for one integer only (IEEE 754 binary64).
_EXACT: Final = 2.0**53


def canonical_json(value: Any) -> bytes:
    """Return the canonical form of a JSON value.

    Raises:
        ValueError: It holds NaN or an infinity.
    """
    return json.dumps(
        _normal(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


def digest_of(document: Any) -> str:
    """Return the SHA-256 of the canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, dict):
        return {key: _normal(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normal(child) for child in value]
    return value
