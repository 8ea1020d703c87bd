"""Canonical bytes of flat records.

A record is a flat map of ASCII strings and integers. With that restriction, compact JSON with sorted keys
*is* RFC 8785 (no floats to format, no surrogates to order), at a fifth of the cost of a general encoder.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from aipaging.core.foundation.errors import AipagingError, Who

INTEGER_MAX: Final = 2**53 - 1
"""RFC 8785 (by way of RFC 7493): integers beyond it are not exact in every reader of JSON."""

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def canonical_json(record: Mapping[str, str | int]) -> bytes:
    """Return the RFC 8785 bytes of a flat map of ASCII strings and integers.

    Raises:
        AipagingError: A key or value is of another type, not ASCII, or an integer beyond 2**53 - 1. Records
            are built by us, so this is a bug of ours, never of a caller.
    """
    for key, value in record.items():
        if type(value) is str:
            if not value.isascii():
                raise _not_canonical(key, "is not ASCII")
        elif type(value) is not int or not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise _not_canonical(key, "is neither a string nor an integer within 2**53 - 1")
        if not key.isascii():
            raise _not_canonical(key, "has a key that is not ASCII")
    return _ENCODER.encode(record)


def _not_canonical(key: str, what: str) -> AipagingError:
    return AipagingError(f"record field {key!r} {what}", code="NOT_CANONICAL", who=Who.BUG, field=key)
