"""The port to the keys of envelopes: whose signature it is, and the operator's own."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from aipaging.core.envelope.document import EnvelopeDocument
from aipaging.core.envelope.trust import CheckedSignature, SignedEnvelope
from aipaging.core.foundation.names import DomainName
from aipaging.core.paging.promises import KeySet


class EnvelopeKeyRing(Protocol):
    """Checks signatures by the key sets of domains, and signs for the domains that have none."""

    def checked(
        self, signed: SignedEnvelope, key_sets: Mapping[DomainName, KeySet], own: Iterable[DomainName]
    ) -> CheckedSignature:
        """Return what a signature proves.

        Args:
            signed: The bytes.
            key_sets: The key sets of the domains that have one.
            own: The domains that have none: the operator's key signs for them.

        Raises:
            EnvelopeRefusedError: One of its kinds, and nothing of the bytes.
        """
        ...

    def signed(self, document: EnvelopeDocument) -> SignedEnvelope:
        """Return a document, signed with the operator's newest key.

        Raises:
            InvalidInputError: The document contradicts itself, or is too long.
        """
        ...

    def key_set(self, raw: bytes, *, source: str) -> KeySet:
        """Return the key set in a JWK Set.

        Raises:
            InvalidInputError: It is none, holds what is no public key, or names a key of the operator's own.
        """
        ...

    def own_jwks(self) -> Mapping[str, object]:
        """Return the operator's own public keys as a JWK Set."""
        ...
