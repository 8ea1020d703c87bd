"""What has happened: the only things that change state.

Every event but the two observations at the end becomes exactly one evidence record (`core.paging.records`), and
the state is what `evolve` makes of all of them. Events carry instants, because replay must not ask for the time.
"""

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Domain, Path, Service
from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.admission import TailBound
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, GatewayId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.paging.acting import OperatorActed, SessionErased
from aipaging.core.paging.promise_events import (
    CommitRebound,
    EnvelopeAccepted,
    EnvelopeCleared,
    EnvelopeSuspected,
    KeysRegistered,
    SessionDegraded,
    SessionRestored,
)
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings, SettingsChanged
from aipaging.core.paging.sinks import SinkSet
from aipaging.core.paging.standing import AuditFound, TrustChanged
from aipaging.core.paging.tenancy import Policies
from aipaging.core.paging.tenancy_events import (
    PoliciesInForce,
    PolicyApplied,
    RoomClaimed,
    RoomLetGo,
    SessionPreempted,
    SessionsMetered,
    SpendCharged,
    SpendRefunded,
    SwitchKilled,
    SwitchRestored,
    TenantRegistered,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermStarted:
    """A leadership began: every earlier lease is void for steering and held for capacity."""

    term: int
    previous_term: int
    settings: Settings
    boot_us: BootUs
    wall_us: WallUs
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRegistered:
    """A service variant is in the catalogue, or was described anew."""

    service: Service


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRegistered:
    """A domain is known, or was described anew."""

    domain: Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRegistered:
    """The transport between two domains is known."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRegistered:
    """An anchor is known, or was described anew; its state is UNKNOWN until it is heard of."""

    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorStateChanged:
    """An anchor takes sessions, or no longer does."""

    anchor: AnchorId
    state: AnchorState
    cause: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRemoved:
    """An anchor is gone from the catalogue; nothing was steered to it any more."""

    anchor: AnchorId


class SessionRequested(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A client asked for a session and a candidate was admitted."""

    session: SessionId
    tenant: TenantId
    client: ClientId
    aisi: ServiceUri
    intent: Intent
    token_id: str
    salt: bytes
    boot_us: BootUs
    wall_us: WallUs
    key: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRefused:
    """A client asked for a session and no candidate was admitted; `policies` forbade the one that came furthest."""

    session: SessionId
    tenant: TenantId
    client: ClientId
    intent: Intent
    salt: bytes
    constraint: str
    candidates: int
    wall_us: WallUs
    policies: tuple[str, ...] = ()


class CommitGranted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A COMMIT: the session may be steered to the anchor until the deadline.

    Attributes:
        session: Whose.
        anchor: Where to.
        domains: The domains in which the rate is reserved.
        epoch: The fencing token.
        lease_ms: The duration granted.
        rate_mrps: The reserved rate.
        bound: The bound that admitted it.
        envelopes: Digests of the envelopes that the bound rests on.
        cause: PAGED, RELOCATION, RELOCATION_FAILED or RECOVERY.
        boot_us: When the lease began.
    """

    session: SessionId
    anchor: AnchorId
    domains: tuple[DomainName, ...]
    epoch: Epoch
    lease_ms: int
    rate_mrps: int
    bound: TailBound
    envelopes: tuple[str, ...]
    cause: str
    boot_us: BootUs


class Renewal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a batch of renewals."""

    session: SessionId
    epoch: Epoch
    renewal: int
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesRenewed:
    """A batch of leases lasts longer."""

    renewals: tuple[Renewal, ...]
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrant:
    """One line of a batch of grants after a recovery: the same reservation under a new epoch."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesRegranted:
    """Sessions that outlived the last term may be steered again."""

    regrants: tuple[Regrant, ...]
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRevoked:
    """A COMMIT ended before its deadline."""

    session: SessionId
    epoch: Epoch
    cause: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitExpired:
    """A COMMIT reached its deadline."""

    session: SessionId
    epoch: Epoch
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitDraining:
    """The source of a relocation finishes its work in flight."""

    session: SessionId
    epoch: Epoch
    drain_ms: int
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerInstalled:
    """A gateway took up an epoch: from now on it may steer under it."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    gateway: GatewayId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationReleased:
    """The rate behind a COMMIT is free again."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationAdvanced:
    """A relocation entered a phase.

    Attributes:
        session: Whose.
        number: The how-manieth relocation of the session this is, from 1.
        phase: The phase entered.
        cause: Why the session is moved.
        source: The anchor it leaves.
        target: The anchor it goes to, or "" while there is none.
        message: For FAILED: what failed.
        boot_us: When.
    """

    session: SessionId
    number: int
    phase: RelocationPhase
    cause: RelocationCause
    source: AnchorId
    target: AnchorId
    message: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExtended:
    """A session may last longer."""

    session: SessionId
    duration_ms: int
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """A session is UNAVAILABLE, for good."""

    session: SessionId
    status_info: StatusInfo
    boot_us: BootUs
    wall_us: WallUs


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMoved:
    """The client's access domain changed."""

    session: SessionId
    place: DomainName
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionForgotten:
    """An ended session is no longer kept for those who poll."""

    session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSeen:
    """An anchor was heard of. Not recorded: after a restart nothing is known of it until it is heard again."""

    anchor: AnchorId
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsEntitled:
    """Who may hold sessions, as the configuration says. Not recorded: every start reads it anew."""

    clients: tuple[ClientId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesLoaded:
    """The policies that decide, as values to ask. Not recorded: the evidence holds their digest."""

    policies: Policies | None


Observation: TypeAlias = HeartbeatSeen | ClientsEntitled | PoliciesLoaded
"""What changes state without being a transition: it is not journalled and recovery does not know it."""

Transition: TypeAlias = (
    TermStarted
    | SettingsChanged
    | ServiceRegistered
    | DomainRegistered
    | PathRegistered
    | EnvelopeAccepted
    | EnvelopeSuspected
    | EnvelopeCleared
    | AuditFound
    | TrustChanged
    | KeysRegistered
    | AnchorRegistered
    | AnchorStateChanged
    | AnchorRemoved
    | SessionRequested
    | SessionRefused
    | CommitGranted
    | CommitRebound
    | SessionDegraded
    | SessionRestored
    | LeasesRenewed
    | LeasesRegranted
    | CommitRevoked
    | CommitExpired
    | CommitDraining
    | SteerInstalled
    | ReservationReleased
    | RelocationAdvanced
    | SessionExtended
    | SinkSet
    | SessionEnded
    | ClientMoved
    | SessionForgotten
    | OperatorActed
    | SessionErased
    | TenantRegistered
    | SwitchKilled
    | SwitchRestored
    | SpendCharged
    | SpendRefunded
    | PoliciesInForce
    | PolicyApplied
    | RoomClaimed
    | RoomLetGo
    | SessionPreempted
    | SessionsMetered
)
"""What becomes one evidence record each."""

Event: TypeAlias = Transition | Observation
