"""The question that comes before a kill, and its answer; part of `core.paging.commands`."""

from dataclasses import dataclass

from aipaging.core.foundation.names import TenantId
from aipaging.core.paging.tenancy_events import SwitchKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckKill:
    """Say whether a kill would be about anything that is known; it changes nothing.

    Attributes:
        kind: As of the kill.
        name: Likewise.
        tenants: Those of clients that may come, registered or not; None: nobody says.
    """

    kind: SwitchKind
    name: str
    tenants: tuple[TenantId, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillChecked:
    """There is something to be killed, or may come to be.

    Attributes:
        note: What the operator should know before it believes that something stopped; or "".
    """

    note: str = ""
