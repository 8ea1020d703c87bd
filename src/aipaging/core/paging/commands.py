"""What the engine may be asked, and what it answers.

Ids and randomness come with the command: the core draws none.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Domain, Path, Service
from aipaging.core.anchor.eligibility import Candidate
from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.trust import SignedEnvelope, VerifiedEnvelope
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, GatewayId, SessionId, TenantId
from aipaging.core.identity.tenant import Tenant
from aipaging.core.paging.acting import RecordAction, RecordErasure
from aipaging.core.paging.kill_check import CheckKill, KillChecked
from aipaging.core.paging.promises import KeySet
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import ChangeSettings, Settings
from aipaging.core.paging.sinks import SetSink, Sink
from aipaging.core.paging.standing import RecordFinding
from aipaging.core.paging.tenancy import Policies
from aipaging.core.paging.tenancy_events import SwitchKind


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTerm:
    """Begin a leadership: after every start, restored backup or clock jump."""

    settings: Settings
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Resolve the intent, admit it, grant a COMMIT and steer.

    Attributes:
        session: The new session's id.
        tenant: Who the reservation will belong to.
        client: Who asks.
        token_id: `jti` for the AIST; random.
        salt: Random; what is private enters the evidence only as a commitment under it.
        intent: What is wanted.
        key: Digest of the idempotency key, or "": the same client and key again get the same session.
        certificate: SHA-256 of the certificate that the client showed, in hex, or "": its token is bound to it.
        sink: Where its events are to go, or None; checked by whoever took it.
    """

    session: SessionId
    tenant: TenantId
    client: ClientId
    token_id: str
    salt: bytes
    intent: Intent
    key: str = ""
    certificate: str = ""
    sink: Sink | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """Prolong a session; the result is capped."""

    session: SessionId
    additional_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End a session."""

    session: SessionId
    status_info: StatusInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocate:
    """Move a session to the best other anchor, or to the named one."""

    session: SessionId
    cause: RelocationCause
    target: AnchorId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveClient:
    """The client's access domain changed."""

    session: SessionId
    place: DomainName


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPrepared:
    """The target's sidecar answered that it is ready."""

    session: SessionId
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchConfirmed:
    """Every connected gateway steers to the target."""

    session: SessionId
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationBroken:
    """Preparing the target or switching to it failed."""

    session: SessionId
    number: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringFailed:
    """The first installation of a new session failed: the page is taken back."""

    session: SessionId
    epoch: Epoch
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmInstalled:
    """A gateway is about to take up an epoch for the first time."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    gateway: GatewayId


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterService:
    """Put a service variant into the catalogue."""

    service: Service


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterDomain:
    """Make a domain known."""

    domain: Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterPath:
    """Make the transport between two domains known."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptEnvelope:
    """Put an envelope into force; nothing unverified has this type.

    Attributes:
        verified: What was verified.
        signed: The bytes that it was read from, which are kept.
    """

    verified: VerifiedEnvelope
    signed: SignedEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectEnvelope:
    """Do not believe an envelope in force any more: an operator says so, or a verdict of an audit."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearEnvelope:
    """Take a suspicion back."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterKeys:
    """Trust exactly these keys for the envelopes of a domain; from then on it takes no plain document."""

    domain: DomainName
    key_set: KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAnchor:
    """Make an anchor known."""

    anchor: Anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAnchor:
    """Take an anchor out of the catalogue; refused while sessions are on it."""

    anchor: AnchorId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAnchorState:
    """An operator drains an anchor or lets it take sessions again."""

    anchor: AnchorId
    state: AnchorState
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """An anchor's sidecar says how it is."""

    anchor: AnchorId
    state: AnchorState


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitleClients:
    """Exactly these clients may hold sessions; those of others end at their next renewal."""

    clients: tuple[ClientId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterTenant:
    """Make a tenant known, or describe it anew."""

    tenant: Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Stop a tenant, a service or an anchor by name, or ALL: end its sessions and admit none."""

    kind: SwitchKind
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Take a kill back; what it ended stays ended."""

    kind: SwitchKind
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcePolicies:
    """Let a set of policies decide from now on; None: everything is allowed.

    Attributes:
        policies: The set.
        count: How many policies are in it.
    """

    policies: Policies | None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSessions:
    """A sidecar's counts: session, requests, tokens, each since its last batch.

    Attributes:
        anchor: Whose sidecar; the counts are recorded as its word.
        boot: A name of that start of the sidecar.
        batch: Counts the batches of the boot from 1: one that comes again is counted once, whoever restarted meanwhile.
        used: The counts.
    """

    anchor: AnchorId
    boot: str
    batch: int
    used: tuple[tuple[SessionId, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Do what is due.

    Attributes:
        restrictive: Do only what takes away: the journal has room for nothing else.
    """

    restrictive: bool = False


Command: TypeAlias = (
    StartTerm
    | ChangeSettings
    | Page
    | Extend
    | End
    | Relocate
    | MoveClient
    | TargetPrepared
    | SwitchConfirmed
    | RelocationBroken
    | SteeringFailed
    | ConfirmInstalled
    | RegisterService
    | RegisterDomain
    | RegisterPath
    | AcceptEnvelope
    | SuspectEnvelope
    | ClearEnvelope
    | RecordFinding
    | RegisterKeys
    | RegisterAnchor
    | RemoveAnchor
    | SetAnchorState
    | Heartbeat
    | EntitleClients
    | RecordAction
    | RecordErasure
    | RegisterTenant
    | CheckKill
    | Kill
    | Restore
    | ForcePolicies
    | MeterSessions
    | SetSink
    | Wake
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """It happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The page was admitted; the session says the rest."""

    session: SessionId
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The page was refused; every candidate says why.

    Attributes:
        session: The id under which the evidence of the refusal stands.
        constraint: The constraint that kept out the candidate that came furthest.
        message: That candidate's sentence.
        candidates: Every candidate with its rejection.
        retry_after_s: When the same page may be admitted, where time helps.
    """

    session: SessionId
    constraint: str
    message: str
    candidates: tuple[Candidate, ...] = field(default=())
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTaken:
    """Counts were taken, but for those that cannot be true.

    Attributes:
        refused: Session, a code, and a sentence.
    """

    refused: tuple[tuple[SessionId, str, str], ...] = ()


Reply: TypeAlias = Done | Admitted | Refused | UsageTaken | KillChecked
