"""What happens to tenants and under policies and switches; part of `core.paging.events`.

A charge names the session that it is for in a field of its own: it belongs to the tenant's account, and outlives the
erasure of the session.
"""

import enum
from dataclasses import dataclass

from aipaging.core.foundation.names import AnchorId, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.identity.tenant import PriorityClass, Tenant


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
class SessionPreempted:
    """A session makes room for one of a higher class."""

    session: SessionId
    priority: PriorityClass
    by_session: SessionId
    by_tenant: TenantId
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
