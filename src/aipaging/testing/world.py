"""A control plane without a world: the real core on a virtual clock, with its evidence.

For tests and simulations. `World` plays runtime: it decides, applies, seals, and answers effects as a perfect user
plane would, unless told not to. Whoever wants faults overrides `carry_out`.
"""

from dataclasses import dataclass, field
from hashlib import sha256

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Domain, DomainKind, Path, Service
from aipaging.core.anchor.intent import DataClass, Intent
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.document import DelayContractModel, EnvelopeDocument, Guardrails
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.trust import SignedEnvelope, VerifiedEnvelope
from aipaging.core.evidence.log import EMPTY_LOG, Sealer
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import MS, BootUs, Now, WallUs
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.events import ClientsEntitled, Event, HeartbeatSeen, PoliciesLoaded
from aipaging.core.paging.records import draft_of
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.step import evolve, step, wake_at

OPERATOR = "example"
EMBED = ServiceUri("aisi://example/embed/minilm")
CHAT = ServiceUri("aisi://example/chat/load")
ACCESS = DomainName("access-eu")
ACCESS_TWO = DomainName("access-us")
WALL_START_US = 1_700_000_000_000_000


def intent(**changes: object) -> Intent:
    """Return a modest intent that the catalogue of `catalogue_commands` admits."""
    fields: dict[str, object] = {
        "task": "embeddings",
        "modality": "text",
        "place": ACCESS,
        "delay_ms": 250.0,
        "epsilon": 1e-3,
        "rate_rps": 10.0,
        "burst": 5,
        "duration_s": 60,
    }
    return Intent(**{**fields, **changes}).checked()  # type: ignore[arg-type]


def envelope(domain: str, *, offset_ms: float = 10.0, sequence: int = 1, segment: str = "") -> Envelope:
    """Return an envelope with a thin exponential tail."""
    return Envelope(
        domain=DomainName(domain),
        segment=segment,
        sequence=sequence,
        contract=DelayContract(offset_ms=offset_ms, prefactor=1.0, decay_per_ms=0.2),
        loss=1e-6,
        error=1e-6,
        rate_mrps_max=100_000,
        burst_max=100,
        capacity_mrps=0,
        valid_from_us=WallUs(0),
        valid_until_us=WallUs(WALL_START_US * 2),
        dependence=Dependence.ANY,
        common_cause="",
        digest=sha256(f"{domain} {segment} {sequence} {offset_ms}".encode()).hexdigest(),
    )


def accept(promised: Envelope) -> c.AcceptEnvelope:
    """Return the command that puts an envelope into force, as if it had been signed and verified."""
    document = EnvelopeDocument(
        version=1,
        domain=promised.domain,
        segment=promised.segment,
        sequence=promised.sequence,
        not_before="2023-11-01T00:00:00Z",
        not_after="2024-11-01T00:00:00Z",
        guardrails=Guardrails(rate_rps="100", burst=promised.burst_max),
        model=DelayContractModel(offset_ms="10", prefactor="1", decay_per_ms="0.2"),
    )
    verified = VerifiedEnvelope(document=document, envelope=promised, digest=promised.digest, key_id="test-key")
    return c.AcceptEnvelope(verified=verified, signed=SignedEnvelope(raw=f"signed.{promised.digest}".encode()))


def domain(name: str, kind: DomainKind, region: str, *, capacity_mrps: int = 0) -> Domain:
    """Return a trusted domain."""
    return Domain(
        name=DomainName(name),
        kind=kind,
        region=region,
        jurisdiction=region,
        trust=3,
        data_class_max=DataClass.CONFIDENTIAL,
        capacity_mrps=capacity_mrps,
    )


def anchor(name: str, at: str, *, aisi: ServiceUri = EMBED, capacity_rps: int = 50) -> Anchor:
    """Return an anchor on loopback."""
    return Anchor(
        anchor=AnchorId(name),
        domain=DomainName(at),
        aisi=aisi,
        host="127.0.0.1",
        port=9000,
        tls=True,
        capacity_mrps=capacity_rps * 1000,
        in_flight_max=64,
    )


def catalogue_commands() -> list[c.Command]:
    """Return two embedding anchors in two regions, one load generator, and the paths to them."""
    commands: list[c.Command] = [
        c.RegisterService(service=Service(aisi=EMBED, task="embeddings", modality="text", model="minilm", price=20)),
        c.RegisterService(service=Service(aisi=CHAT, task="chat", modality="text", model="load", price=500)),
        c.RegisterDomain(domain=domain(ACCESS, DomainKind.ACCESS, "eu")),
        c.RegisterDomain(domain=domain(ACCESS_TWO, DomainKind.ACCESS, "us")),
        c.RegisterDomain(domain=domain("metro", DomainKind.TRANSPORT, "eu")),
        c.RegisterDomain(domain=domain("edge-one", DomainKind.COMPUTE, "eu")),
        c.RegisterDomain(domain=domain("edge-two", DomainKind.COMPUTE, "us")),
    ]
    for access in (ACCESS, ACCESS_TWO):
        for compute in ("edge-one", "edge-two"):
            path = Path(access=access, compute=DomainName(compute), transport=(DomainName("metro"),))
            commands.append(c.RegisterPath(path=path))
    commands += [accept(envelope(name)) for name in (ACCESS, ACCESS_TWO, "metro", "edge-one", "edge-two")]
    anchors = [anchor("a", "edge-one"), anchor("b", "edge-two"), anchor("t", "edge-one", aisi=CHAT)]
    commands += [c.RegisterAnchor(anchor=one) for one in anchors]
    commands += [c.Heartbeat(anchor=one.anchor, state=AnchorState.READY) for one in anchors]
    return commands


@dataclass
class World:
    """The core, its clock and its evidence.

    Attributes:
        settings: The engine's settings.
        state: The engine's state.
        now: The present instant.
        events: Everything that happened.
        entries: Its evidence.
        effects: Effects that were asked for and not yet carried out.
    """

    settings: Settings = field(default_factory=Settings)
    state: State = field(default_factory=State)
    now: Now = field(default_factory=lambda: Now(boot_us=BootUs(1_000_000), wall_us=WallUs(WALL_START_US)))
    events: list[Event] = field(default_factory=list)
    entries: list[SealedEntry] = field(default_factory=list)
    effects: list[x.Effect] = field(default_factory=list)
    sealer: Sealer = field(default_factory=lambda: Sealer("node-1", "boot-1", EMPTY_LOG))
    sessions_made: int = 0

    @classmethod
    def started(cls, settings: Settings | None = None) -> "World":
        """Return a world with a term begun and the catalogue of `catalogue_commands`."""
        world = cls(settings=settings or Settings())
        world.do(c.StartTerm(settings=world.settings, software="test"))
        for command in catalogue_commands():
            world.do(command)
        world.settle()
        return world

    def do(self, command: c.Command) -> Decision:
        """Decide, apply and seal."""
        decision = step(self.state, command, self.now)
        for event in decision.events:
            evolve(self.state, event)
            self.events.append(event)
            if not isinstance(event, HeartbeatSeen | ClientsEntitled | PoliciesLoaded):
                draft = draft_of(event, self.state)
                self.entries += self.sealer.seal([draft], term=self.state.term, now=self.now)
        self.effects += decision.effects
        return decision

    def page(self, wanted: Intent | None = None, *, client: str = "client-1") -> Decision:
        """Page an intent."""
        self.sessions_made += 1
        command = c.Page(
            session=SessionId(f"00000000-0000-4000-8000-{self.sessions_made:012x}"),
            tenant=TenantId("tenant-1"),
            client=ClientId(client),
            token_id=f"token-{self.sessions_made}",
            salt=self.sessions_made.to_bytes(16, "big"),
            intent=wanted or intent(),
        )
        return self.do(command)

    def paged(self, wanted: Intent | None = None) -> Session:
        """Page an intent that must be admitted, and return its session."""
        reply = self.page(wanted).reply
        if not isinstance(reply, c.Admitted):
            raise AssertionError(f"not admitted: {reply}")  # noqa: TRY004 - a test that expected otherwise
        self.settle()
        return self.state.sessions[reply.session]

    def settle(self) -> None:
        """Carry out every effect, and those that follow."""
        while self.effects:
            self.carry_out(self.effects.pop(0))

    def carry_out(self, effect: x.Effect) -> None:
        """Answer one effect as a perfect user plane would."""
        match effect:
            case x.PrepareTarget(session=session, number=number):
                self.do(c.TargetPrepared(session=session, number=number))
            case x.SwitchSteering(session=session, number=number):
                self.do(c.SwitchConfirmed(session=session, number=number))
            case _:
                pass

    def beat(self, *anchors: str) -> None:
        """Let the anchors be heard of."""
        for name in anchors:
            self.do(c.Heartbeat(anchor=AnchorId(name), state=AnchorState.READY))

    def advance(self, ms: float, *, beating: tuple[str, ...] = ("a", "b", "t"), settle: bool = True) -> None:
        """Let time pass, waking whenever something is due; the beating anchors are heard of once a second."""
        end_us = self.now.boot_us + int(ms * MS)
        next_beat_us = int(self.now.boot_us)
        while True:
            due_us = wake_at(self.state)
            to_us = min(end_us, next_beat_us, max(due_us, self.now.boot_us) if due_us is not None else end_us)
            self._move(to_us)
            if to_us >= next_beat_us:
                self.beat(*beating)
                next_beat_us += 1_000_000
            if due_us is not None and due_us <= self.now.boot_us:
                self.do(c.Wake())
            if settle:
                self.settle()
            if self.now.boot_us >= end_us and ((due := wake_at(self.state)) is None or due > end_us):
                return

    def sleep(self, ms: float) -> None:
        """Let time pass with nobody awake: a paused controller."""
        self._move(self.now.boot_us + int(ms * MS))

    def _move(self, to_us: int) -> None:
        passed_us = to_us - self.now.boot_us
        self.now = Now(boot_us=BootUs(to_us), wall_us=WallUs(self.now.wall_us + passed_us))
