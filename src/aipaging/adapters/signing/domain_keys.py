"""The keys of all domains as one ring, with the operator's own.

The operator's own keys sign for every domain that has no key set, and for no other: whoever holds a key set of its own
never profits from the operator's signature. A key set that names a key of the operator's is refused, so that nobody can
pass for it, nor keep it from being recognised.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from aipaging.adapters.signing.envelopes import KEYS_MAX, EnvelopeKeys, EnvelopeSignatures, key_set_from
from aipaging.adapters.signing.keys import Jwks
from aipaging.core.envelope.document import EnvelopeDocument
from aipaging.core.envelope.refusals import EnvelopeKeyUnknownError
from aipaging.core.envelope.trust import CheckedSignature, SignedEnvelope
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError
from aipaging.core.foundation.names import DomainName
from aipaging.core.paging.promises import KeySet

KEY_ID_CHARS_MAX: Final = 64
"""A thumbprint has 43 characters; records list the keys of a set."""

_OWN: Final = DomainName("operator")
_ONE: Final = DomainName("domain")
_SORTED: Final = msgspec.json.Encoder(order="sorted")


class DomainKeyRing:
    """Checks and signs; the directory of the operator's own keys is read anew when it changes."""

    def __init__(self, own_directory: Path) -> None:
        """Open the operator's own keys; the first one is made on first use.

        Raises:
            AipagingError: A key file is not usable.
        """
        self._directory = own_directory
        self._own = EnvelopeKeys.open(own_directory)
        self._own_signatures = EnvelopeSignatures({_OWN: self._own.jwks()})
        self._changed_ns = own_directory.stat().st_mtime_ns
        self._of: tuple[tuple[DomainName, str], ...] = ()
        self._signatures = EnvelopeSignatures({})

    def checked(
        self, signed: SignedEnvelope, key_sets: Mapping[DomainName, KeySet], own: Iterable[DomainName]
    ) -> CheckedSignature:
        """Return what a signature proves; the domains' own keys come first."""
        try:
            return self._signatures_of(key_sets).checked(signed)
        except EnvelopeKeyUnknownError:
            self._refresh()
            found = self._own_signatures.checked(signed)
            return replace(found, signers=frozenset(own))

    def signed(self, document: EnvelopeDocument) -> SignedEnvelope:
        """Return a document, signed with the operator's newest key."""
        self._refresh()
        return self._own.signed(document)

    def key_set(self, raw: bytes, *, source: str) -> KeySet:
        """Return the key set in a JWK Set."""
        jwks = key_set_from(raw)
        try:
            EnvelopeSignatures({_ONE: jwks})
        except UnverifiedError as error:
            raise InvalidInputError(error.message, code="KEY_SET_INVALID", field="keys") from None
        if any("d" in key for key in jwks["keys"]):
            raise InvalidInputError("a private key stands in the key set: it has leaked", code="KEY_SET_INVALID")
        self._refresh()
        key_ids = tuple(sorted(key.get("kid", "") for key in jwks["keys"]))
        if len(jwks["keys"]) > KEYS_MAX or not all(_is_key_id(key_id) for key_id in key_ids):
            raise InvalidInputError(
                f"a key set has at most {KEYS_MAX} keys, each with a `kid` of 1 to {KEY_ID_CHARS_MAX} printable "
                "characters without a comma",
                code="KEY_SET_INVALID",
                field="keys",
            )
        if {key.kid for key in self._own.keys} & set(key_ids):
            raise InvalidInputError("a key of the operator's own is in the key set", code="KEY_SET_INVALID")
        text = _SORTED.encode(jwks)
        return KeySet(jwks=text.decode(), key_ids=key_ids, digest=sha256(text).hexdigest(), source=source)

    def own_jwks(self) -> Jwks:
        """Return the operator's own public keys."""
        self._refresh()
        return self._own.jwks()

    def _signatures_of(self, key_sets: Mapping[DomainName, KeySet]) -> EnvelopeSignatures:
        of = tuple((domain, key_set.digest) for domain, key_set in key_sets.items())
        if of != self._of:
            sets = {domain: key_set_from(key_set.jwks.encode()) for domain, key_set in key_sets.items()}
            self._signatures, self._of = EnvelopeSignatures(sets), of
        return self._signatures

    def _refresh(self) -> None:
        """Look whether somebody rotated the operator's keys: a rotation is a new file in their directory."""
        changed_ns = self._directory.stat().st_mtime_ns
        if changed_ns != self._changed_ns:
            self._own = EnvelopeKeys.open(self._directory)
            self._own_signatures = EnvelopeSignatures({_OWN: self._own.jwks()})
            self._changed_ns = changed_ns


def _is_key_id(key_id: str) -> bool:
    return 1 <= len(key_id) <= KEY_ID_CHARS_MAX and key_id.isascii() and key_id.isprintable() and "," not in key_id
