"""What happens to tenants and under policies and switches; part of `core.paging.events`.

A charge names the session that it is for in a field of its own: it belongs to the tenant's account, and outlives the
erasure of the session.
"""

import enum
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import SECOND, BootUs, WallUs
from aipaging.core.identity.tenant import PriorityClass, Tenant

KEPT_US: Final = 30 * SECOND
"""Room is kept so long after it should be free: time for a client to ask again, and for leases that end late."""


class SwitchKind(enum.Enum):
    """What a kill switch stops."""

    TENANT = "TENANT"
    SERVICE = "SERVICE"
    ANCHOR = "ANCHOR"
    ALL = "ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRegistered:
    """A tenant is known, or was described anew."""

    tenant: Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchKilled:
    """Nothing of this kind and name is steered from now on."""

    kind: SwitchKind
    name: str
    reason: str
    boot_us: BootUs
    wall_us: WallUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRestored:
    """What was killed may be paged again; what was ended stays ended."""

    kind: SwitchKind
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendCharged:
    """A tenant pays for a reserved rate over a time, in advance."""

    tenant: TenantId
    for_session: SessionId
    period: int
    amount: int
    price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRefunded:
    """A session ended before the time that was paid for."""

    tenant: TenantId
    for_session: SessionId
    period: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesInForce:
    """A set of policies decides from now on; an empty digest: none does, everything is allowed."""

    digest: str
    policies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied:
    """Policies permitted something; refusals stand in the refusal."""

    session: SessionId
    action: str
    anchor: AnchorId
    policies: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Room that is kept for a page that was answered PREEMPTING, until it is asked again.

    Attributes:
        page: The id under which that page was refused.
        tenant: For whom.
        client: Who asked.
        asked: Digest of the request: its idempotency key where it has one, and the intent.
        priority: The class of the tenant then.
        anchor: Where the room is kept, and in
        domains: the domains of its path.
        rate_mrps: How much.
        burst: Likewise.
        until_us: Until when.
    """

    page: SessionId
    tenant: TenantId
    client: ClientId
    asked: str
    priority: PriorityClass
    anchor: AnchorId
    domains: tuple[DomainName, ...]
    rate_mrps: int
    burst: int
    until_us: BootUs


class LetGo(enum.Enum):
    """Why room is not kept any more."""

    TAKEN = "TAKEN"
    EXPIRED = "EXPIRED"
    KILLED = "KILLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomClaimed:
    """Room is kept for a page; a second claim for the same page takes the place of the first."""

    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLetGo:
    """Room is not kept any more: whoever was to leave for it, and has not begun to, may stay."""

    tenant: TenantId
    for_session: SessionId
    cause: LetGo


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPreempted:
    """A session has to make room for a page of a higher class: it is moved, or it ends."""

    session: SessionId
    priority: PriorityClass
    by_session: SessionId
    by_priority: PriorityClass
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """What one session used at one anchor since it was last said."""

    session: SessionId
    tenant: TenantId
    anchor: AnchorId
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsMetered:
    """A sidecar counted requests and tokens; `boot` and `batch` tell a batch that came before."""

    metered: tuple[Metered, ...]
    boot: str = ""
    batch: int = 0
