"""The world of every run: two access domains, one transport, two edges, three anchors, two gateways."""

from hashlib import sha256
from typing import Final

from aipaging.core.anchor.catalogue import Anchor, Domain, DomainKind, Path, Service
from aipaging.core.anchor.intent import DataClass, Intent
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, ServiceUri
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import Settings
from aipaging.simulation.system.kernel import WALL_START_US
from aipaging.simulation.system.parts import Parts

SERVICE: Final = ServiceUri("aisi://simulated/embed/small")
ACCESS: Final = (DomainName("access-one"), DomainName("access-two"))
METRO: Final = DomainName("metro")
EDGES: Final = (DomainName("edge-one"), DomainName("edge-two"))
ANCHORS: Final = {"anchor-1": EDGES[0], "anchor-2": EDGES[1], "anchor-3": EDGES[1]}
GATEWAYS: Final = ("gateway-1", "gateway-2")
CLIENTS: Final = tuple(ClientId(f"client-{number}") for number in range(1, 5))

ANCHOR_MRPS: Final = 60_000
EDGE_MRPS: Final = {EDGES[0]: 0, EDGES[1]: 90_000}
"""The second edge carries less than its anchors: domains refuse too."""

DELAY_MS: Final = 250.0
VALID_S: Final = 3_600
OFFSET_MS: Final = 10.0
BAD_OFFSET_MS: Final = 400.0
"""An envelope with which no delay target of these runs can be proved."""


def settings(lease_ms: int) -> Settings:
    """Return an operator's settings around a lease: everything is short, so that runs are."""
    return Settings(
        lease=LeaseTerms(lease_ms=lease_ms, drift_ppm=500, grace_ms=100, drain_ms_max=1_200),
        lease_ms_max=lease_ms * 3 // 2,
        anchor_lost_ms=1_000,
        prepare_ms_max=400,
        retry_ms=200,
        kept_ms=1_500,
        duration_s_max=20,
    )


def envelope(domain: DomainName, *, sequence: int, valid_s: int = VALID_S, offset_ms: float = OFFSET_MS) -> Envelope:
    """Return one promise of a domain."""
    return Envelope(
        domain=domain,
        segment="",
        sequence=sequence,
        contract=DelayContract(offset_ms=offset_ms, prefactor=1.0, decay_per_ms=0.2),
        loss=1e-6,
        error=1e-6,
        rate_mrps_max=100_000,
        burst_max=100,
        capacity_mrps=0,
        valid_from_us=WallUs(WALL_START_US - 86_400 * SECOND),
        valid_until_us=WallUs(WALL_START_US + valid_s * SECOND),
        dependence=Dependence.ANY,
        common_cause="",
        digest=sha256(f"{domain} {sequence}".encode()).hexdigest(),
    )


def intent(place: DomainName, *, rate_rps: int, duration_s: int, delay_ms: float = DELAY_MS) -> Intent:
    """Return what a client wants."""
    return Intent(
        task="embeddings",
        modality="text",
        place=place,
        delay_ms=delay_ms,
        epsilon=1e-3,
        rate_rps=float(rate_rps),
        burst=4,
        duration_s=duration_s,
    )


def registrations(parts: Parts) -> list[c.Command]:
    """Return what a controller's configuration says at every start."""
    commands: list[c.Command] = [
        c.RegisterService(service=Service(aisi=SERVICE, task="embeddings", modality="text", model="small", price=20))
    ]
    kinds = {METRO: DomainKind.TRANSPORT, **dict.fromkeys(ACCESS, DomainKind.ACCESS)}
    for name in (*ACCESS, METRO, *EDGES):
        domain = Domain(
            name=name,
            kind=kinds.get(name, DomainKind.COMPUTE),
            region="eu",
            jurisdiction="eu",
            trust=3,
            data_class_max=DataClass.CONFIDENTIAL,
            capacity_mrps=EDGE_MRPS.get(name, 0),
        )
        commands.append(c.RegisterDomain(domain=domain))
    for access in ACCESS:
        commands += [c.RegisterPath(path=Path(access=access, compute=edge, transport=(METRO,))) for edge in EDGES]
    commands += [parts.accept(envelope(name, sequence=1)) for name in (*ACCESS, METRO, *EDGES)]
    commands += [c.RegisterAnchor(anchor=_anchor(name, edge)) for name, edge in ANCHORS.items()]
    return commands


def _anchor(name: str, edge: DomainName) -> Anchor:
    return Anchor(
        anchor=AnchorId(name),
        domain=edge,
        aisi=SERVICE,
        host="127.0.0.1",
        port=9000,
        tls=True,
        capacity_mrps=ANCHOR_MRPS,
        in_flight_max=64,
    )
