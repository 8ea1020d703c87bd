"""COMMIT receipts, held small.

A receipt is the longest thing that a controller holds of a session: 1,300 characters, most of which other receipts of
the anchor have too (its service, its envelopes, its bound's assumptions). So it is held as what it has of its own: its
claims, compressed with those of another receipt of the anchor as the dictionary, and its signature. What comes out is
what went in, to the byte.
"""

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from aipaging.core.foundation.names import AnchorId

LEVEL: Final = 3
WINDOW_BITS: Final = -13
"""Raw deflate, and a window of 8 kB: a receipt has at most 4,096 characters, and so has the one that it is like."""

MEMORY_LEVEL: Final = 4
"""A small hash table: making one is what takes longest."""

UNLIKE: Final = 0.2
"""A receipt that takes more than this part of itself is not much like its pattern: usually it takes an eighth."""

USES_MIN: Final = 64
"""Receipts that a pattern serves before another may take its place: patterns are not to be what takes the memory."""

SIGNATURE_BYTES_MAX: Final = 255
"""Their number is one byte; an ES256 signature has 64."""


class Pattern:
    """A receipt that others are like.

    Attributes:
        uses: Receipts that were packed like it.
    """

    __slots__ = ("_claims", "_head", "uses")

    def __init__(self, head: str, claims: bytes) -> None:
        self._head = head
        self._claims = claims
        self.uses = 0

    def fits(self, head: str) -> bool:
        """Whether a receipt with this head can be packed: it is of the same key."""
        return head == self._head

    def packed(self, claims: bytes, signature: bytes) -> bytes:
        """Return what a receipt has of its own."""
        self.uses += 1
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW_BITS, MEMORY_LEVEL, zdict=self._claims)
        return bytes([len(signature)]) + signature + deflate.compress(claims) + deflate.flush()

    def unpacked(self, packed: bytes) -> str:
        """Return the receipt."""
        end = 1 + packed[0]
        claims = zlib.decompressobj(WINDOW_BITS, self._claims).decompress(packed[end:])
        return f"{self._head}.{_text(claims)}.{_text(packed[1:end])}"


class PackedReceipt(msgspec.Struct, frozen=True, gc=False):
    """One receipt; there are as many as sessions.

    Attributes:
        packed: What it has of its own.
        pattern: What it is like.
    """

    packed: bytes
    pattern: Pattern

    def __str__(self) -> str:
        return self.pattern.unpacked(self.packed)


class Receipts:
    """Packs the receipts of one driver, each like an earlier one of its anchor."""

    def __init__(self) -> None:
        self._patterns: dict[AnchorId, Pattern] = {}

    def packed(self, anchor: AnchorId, receipt: str) -> PackedReceipt | str:
        """Return the receipt, packed if it is a token as ours are."""
        parts = _parts(receipt)
        if parts is None:
            return receipt
        head, claims, signature = parts
        pattern = self._patterns.get(anchor)
        if pattern is None or not pattern.fits(head):
            pattern = self._patterns[anchor] = Pattern(head, claims)
        packed = pattern.packed(claims, signature)
        if pattern.uses >= USES_MIN and len(packed) > UNLIKE * len(receipt):
            self._patterns[anchor] = Pattern(head, claims)  # the next are more like this one
        return PackedReceipt(packed, pattern)


def _parts(receipt: str) -> tuple[str, bytes, bytes] | None:
    """Return head, claims and signature of a token that is made of them again to the character, or None."""
    if receipt.count(".") != 2:
        return None
    head, text, sealed = receipt.split(".")
    try:
        claims, signature = _bytes(text), _bytes(sealed)
    except ValueError:
        return None
    return (head, claims, signature) if len(signature) <= SIGNATURE_BYTES_MAX else None


def _bytes(text: str) -> bytes:
    """Return what base64url without padding says.

    Raises:
        ValueError: The same bytes would be written in another way: it passes over foreign characters, or over bits
            behind the last byte.
    """
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    last = len(raw) % 3
    foreign = len(text) != (4 * len(raw) + 2) // 3 or "+" in text or "/" in text
    if foreign or (last and _text(raw[-last:]) != text[-last - 1 :]):
        raise ValueError(text[:8])
    return raw


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
