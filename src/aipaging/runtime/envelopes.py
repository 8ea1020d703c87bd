"""How envelopes come in: bytes from a domain, statements of the operator, key sets.

Only what `TrustedEnvelopes` verified is submitted. What is plain is first signed with the operator's own key, and then
verified like every other: there is one way in.
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aipaging.core.envelope.document import EnvelopeDocument, digest_of, document_from
from aipaging.core.envelope.refusals import EnvelopePlainError
from aipaging.core.envelope.trust import SignedEnvelope, TrustedEnvelopes
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import Now, WallUs
from aipaging.core.paging import commands as c
from aipaging.core.paging.operate import trusted_by
from aipaging.core.paging.promises import KeySet, Original
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane
from aipaging.ports.envelopes import EnvelopeKeyRing

API: Final = "API"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the engine knows at one instant."""

    key_sets: dict[DomainName, KeySet]
    own: tuple[DomainName, ...]
    trusted: TrustedEnvelopes
    wall_us: WallUs


def _known(state: State, now: Now) -> _Known:
    key_sets = dict(state.promises.key_sets)
    return _Known(
        key_sets=key_sets,
        own=tuple(domain for domain in state.catalogue.domains if domain not in key_sets),
        trusted=trusted_by(state),
        wall_us=now.wall_us,
    )


def document_of(original: Original) -> EnvelopeDocument:
    """Return what was signed in an original that was verified when it was accepted."""
    payload = original.signed.split(".")[1]
    return document_from(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class EnvelopeIntake:
    """Takes envelopes and key sets for one engine."""

    def __init__(
        self, control: ControlPlane, keys: EnvelopeKeyRing, *, configured: Callable[[], frozenset[DomainName]]
    ) -> None:
        """Take the engine, the keys, and what says whose key sets the configuration names."""
        self._control = control
        self._keys = keys
        self._configured = configured

    @property
    def keys(self) -> EnvelopeKeyRing:
        """The keys."""
        return self._keys

    async def accept_signed(self, raw: bytes) -> str:
        """Put a signed envelope into force; return its digest.

        Raises:
            EnvelopeRefusedError: One of its kinds.
            InvalidInputError: Its domain is not registered.
        """
        signed = SignedEnvelope(raw=raw)
        known = await self._control.view(_known)
        checked = self._keys.checked(signed, known.key_sets, known.own)
        _, verified = known.trusted.accepting(checked, known.wall_us)
        await self._control.submit(c.AcceptEnvelope(verified=verified, signed=signed))
        return verified.digest

    async def accept_stated(self, document: EnvelopeDocument) -> str:
        """Sign a statement of the operator and put it into force; return its digest. The same again changes nothing.

        Raises:
            EnvelopePlainError: The domain signs for itself.
            EnvelopeRefusedError: It is older than what is in force, or not valid now.
            InvalidInputError: Its domain is not registered.
        """
        domain, digest = DomainName(document.domain), digest_of(document)
        known = await self._control.view(_known)
        if domain in known.key_sets:
            raise EnvelopePlainError(f"{domain} signs for itself: a plain document says nothing here", field="domain")
        if domain not in known.own:
            raise InvalidInputError(f"domain {domain} is not registered", code="NOT_FOUND", field="domain")
        newest = known.trusted.accepted.get((domain, document.segment))
        if newest is not None and newest.digest == digest:
            return digest
        return await self.accept_signed(self._keys.signed(document).raw)

    async def has_keys(self, domain: DomainName) -> bool:
        """Tell whether a domain signs for itself."""
        return await self._control.view(lambda state, _: domain in state.promises.key_sets)

    async def register_keys(self, domain: DomainName, raw: bytes, *, source: str = API) -> KeySet:
        """Trust the keys in a JWK Set for a domain.

        Raises:
            InvalidInputError: It is no key set, or the domain is not registered.
            RefusedError: The domain's key set comes from the configuration.
        """
        if source == API and domain in self._configured():
            raise RefusedError(
                f"the key set of {domain} comes from the configuration: change it there",
                code="INCOMPATIBLE_STATE",
                field="domain",
            )
        key_set = self._keys.key_set(raw, source=source)
        await self._control.submit(c.RegisterKeys(domain=domain, key_set=key_set))
        return key_set
