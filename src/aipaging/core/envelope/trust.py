"""Which signed envelopes are believed: the trusted set, in the manner of TUF's.

A `SignedEnvelope` is bytes. Whoever holds the keys checks its signature and says in a `CheckedSignature` whose key it
was. `TrustedEnvelopes.accepting` turns that into a `VerifiedEnvelope`, the only type that goes further, or raises; the
set that it returns is the one to go on with, and the old one is as it was. In this order:

* The document is parsed only after its signature was checked: an attacker without a key reaches no parser.
* The key must belong to the domain that the document names: a domain promises for itself and for nobody else.
* The bytes must be canonical, so that one promise has one digest.
* Sequence numbers rise for every domain and segment. Lower is a rollback, equal and the same is a replay, equal and
  different is an equivocation. This is judged before expiry, so that an old promise is called what it is.
* Validity is judged at the one `now` of the call, and both ends are refused.

Deliberately not checked here: that an envelope is still in force later (`in_force`), and that a promise is kept
(that is what audits are for). The set never forgets a sequence number, also not when the envelope has expired:
forgetting is what a rollback waits for. Whoever keeps the set keeps `accepted` over restarts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from aipaging.core.envelope.document import EnvelopeDocument, document_from, envelope_of, is_canonical
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.refusals import (
    EnvelopeEquivocationError,
    EnvelopeExpiredError,
    EnvelopeKeyForeignError,
    EnvelopeMalformedError,
    EnvelopeNotCanonicalError,
    EnvelopeNotYetValidError,
    EnvelopePartUnknownError,
    EnvelopeReplayedError,
    EnvelopeRolledBackError,
    EnvelopesTooManyError,
)
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs

SEGMENTS_PER_DOMAIN_MAX: Final = 1_000
"""A domain with more services than that is several domains; without a bound, one key could fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEnvelope:
    """Bytes that claim to be a signed envelope; nothing is known of them."""

    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSignature:
    """What a signature proves: these bytes were signed with this key, which these domains call their own.

    Attributes:
        payload: The signed bytes.
        key_id: The key.
        signers: The domains in whose key set it is.
    """

    payload: bytes = field(repr=False)
    key_id: str
    signers: frozenset[DomainName]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEnvelope:
    """An envelope that is signed by its domain, new, valid, and well-formed. Made by `TrustedEnvelopes` alone.

    Attributes:
        document: What was signed.
        envelope: The value that admission reads, rounded towards less promise.
        digest: Hex SHA-256 of the signed bytes.
        key_id: The key that signed it.
    """

    document: EnvelopeDocument
    envelope: Envelope
    digest: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The newest envelope of one domain and segment that was accepted."""

    sequence: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedEnvelopes:
    """What was accepted so far.

    Attributes:
        accepted: The newest of every (domain, segment).
        verified: The envelopes themselves, by digest, as far as they were accepted by this set and not superseded.
    """

    accepted: Mapping[tuple[DomainName, str], Accepted] = field(default_factory=dict[tuple[DomainName, str], Accepted])
    verified: Mapping[str, VerifiedEnvelope] = field(default_factory=dict[str, VerifiedEnvelope])

    def accepting(self, checked: CheckedSignature, now: WallUs) -> tuple["TrustedEnvelopes", VerifiedEnvelope]:
        """Return the set with one more envelope, and that envelope.

        Args:
            checked: From whoever checked the signature.
            now: The instant at which validity is judged.

        Raises:
            EnvelopeRefusedError: One of its kinds; the set is as it was.
        """
        verified = _verified(checked)
        self.require(verified, now)
        envelope = verified.envelope
        key = (envelope.domain, envelope.segment)
        newest = self.accepted.get(key)
        superseded = newest.digest if newest is not None else ""
        kept = {digest: other for digest, other in self.verified.items() if digest != superseded}
        return replace(
            self,
            accepted={**self.accepted, key: Accepted(sequence=envelope.sequence, digest=verified.digest)},
            verified={**kept, verified.digest: verified},
        ), verified

    def require(self, verified: VerifiedEnvelope, now: WallUs) -> None:
        """Raise unless a verified envelope is newer than what was accepted, and valid.

        Raises:
            EnvelopeRefusedError: One of its kinds.
        """
        envelope = verified.envelope
        newest = self.accepted.get((envelope.domain, envelope.segment))
        if newest is not None:
            _require_newer(envelope.sequence, verified.digest, newest)
        elif sum(domain == envelope.domain for domain, _ in self.accepted) >= SEGMENTS_PER_DOMAIN_MAX:
            raise EnvelopesTooManyError(
                f"domain {envelope.domain} has {SEGMENTS_PER_DOMAIN_MAX} segments already, the most that is allowed"
            )
        _require_valid(verified, now)

    def in_force(self, digest: str, now: WallUs) -> VerifiedEnvelope:
        """Return an accepted envelope that is not superseded and still valid.

        Raises:
            EnvelopePartUnknownError: There is none with this digest.
            EnvelopeExpiredError: Its validity is over.
            EnvelopeNotYetValidError: The clock went back before its beginning.
        """
        verified = self.verified.get(digest)
        if verified is None:
            raise EnvelopePartUnknownError("no envelope with this digest is in force here", field="parts")
        _require_valid(verified, now)
        return verified

    def parts_of(self, composite: VerifiedEnvelope, now: WallUs) -> tuple[VerifiedEnvelope, ...]:
        """Return the parts of a composite in their order, from which sharper bounds can be computed.

        A composite is a promise of its own and stands without its parts; this is for who wants to look behind it.

        Raises:
            EnvelopePartUnknownError: A part is not in force here, or the composite misnames it.
            EnvelopeRefusedError: A part is not valid now.
        """
        parts = tuple(self.in_force(part.digest, now) for part in composite.document.parts)
        for part, found in zip(composite.document.parts, parts, strict=True):
            if (part.domain, part.sequence) != (found.document.domain, found.document.sequence):
                raise EnvelopePartUnknownError(
                    f"the composite calls a part {part.domain} {part.sequence} that is another", field="parts"
                )
        return parts


def _verified(checked: CheckedSignature) -> VerifiedEnvelope:
    try:
        document = document_from(checked.payload)
    except InvalidInputError as error:
        raise EnvelopeMalformedError(
            f"signed, but not an envelope of this schema: {error.message}", field=error.field
        ) from None
    if DomainName(document.domain) not in checked.signers:
        # The attack: a domain with a good key writes a promise in the name of another.
        raise EnvelopeKeyForeignError(
            f"it promises for {document.domain}, and is signed with a key of "
            f"{', '.join(sorted(checked.signers)) or 'nobody'}",
            field="domain",
        )
    if not is_canonical(checked.payload):
        raise EnvelopeNotCanonicalError("the signed bytes are not the RFC 8785 form of their document")
    digest = sha256(checked.payload).hexdigest()
    return VerifiedEnvelope(
        document=document, envelope=envelope_of(document, digest), digest=digest, key_id=checked.key_id
    )


def _require_newer(sequence: int, digest: str, newest: Accepted) -> None:
    if sequence > newest.sequence:
        return
    if sequence < newest.sequence:
        raise EnvelopeRolledBackError(
            f"sequence {sequence} is offered after {newest.sequence} was accepted", field="sequence"
        )
    if digest == newest.digest:
        raise EnvelopeReplayedError(f"sequence {sequence} was accepted before, with the same content", field="sequence")
    raise EnvelopeEquivocationError(f"sequence {sequence} was accepted before, with another content", field="sequence")


def _require_valid(verified: VerifiedEnvelope, now: WallUs) -> None:
    envelope = verified.envelope
    if now < envelope.valid_from_us:
        raise EnvelopeNotYetValidError(f"it is not valid before {verified.document.not_before}", field="notBefore")
    if now >= envelope.valid_until_us:
        raise EnvelopeExpiredError(f"it was valid until {verified.document.not_after}", field="notAfter")
