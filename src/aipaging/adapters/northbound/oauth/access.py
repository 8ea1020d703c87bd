"""What the operations on tokens, clients and keys work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aipaging.adapters.northbound.oauth.clients import Clients
from aipaging.adapters.northbound.oauth.entitlement import Entitlement
from aipaging.adapters.northbound.oauth.issuer import Issuer
from aipaging.adapters.northbound.oauth.revocations import Revocations
from aipaging.core.foundation.time import WallUs


class KeyInfo(Protocol):
    """One token key."""

    @property
    def kid(self) -> str:
        """Its name."""
        ...

    @property
    def published_us(self) -> int:
        """Since when it stands in the key set."""
        ...

    @property
    def signs(self) -> bool:
        """Whether it signs now."""
        ...

    @property
    def replaced_us(self) -> int | None:
        """When a newer one took over, or None."""
        ...


class TokenKeys(Protocol):
    """The token keys of the running controller."""

    def listed(self) -> Sequence[KeyInfo]:
        """Return the keys, oldest first."""
        ...

    def rotate(self) -> str:
        """Publish a new key, which signs once all know it; return its name."""
        ...

    def retire(self, kid: str, *, needed_us: int, force: bool = False) -> None:
        """Remove a key; see `adapters.signing.rotation`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Tokens, clients and keys of one controller.

    Attributes:
        issuer: Grants tokens.
        clients: The clients of the configuration.
        revocations: What was taken back.
        entitlement: Who may hold sessions.
        keys: The token keys.
        clock: The wall clock.
    """

    issuer: Issuer
    clients: Clients
    revocations: Revocations
    entitlement: Entitlement
    keys: TokenKeys
    clock: Callable[[], WallUs]
