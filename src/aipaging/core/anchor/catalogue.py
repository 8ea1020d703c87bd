"""What operators offer: services, domains, paths between them, and anchors."""

import enum
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.anchor.intent import DataClass
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri


class DomainKind(enum.Enum):
    """The part of a path that a domain is."""

    ACCESS = "access"
    TRANSPORT = "transport"
    COMPUTE = "compute"


class AnchorState(enum.Enum):
    """Whether an anchor takes sessions.

    UNKNOWN: registered, not yet heard of. READY: heartbeats arrive and say so. DRAINING: serves what it has and
    takes nothing new. LOST: heartbeats are missing or say that the upstream is not healthy.
    """

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    DRAINING = "DRAINING"
    LOST = "LOST"


OBSERVED: Final = frozenset({"HEARTBEAT", "UPSTREAM_UNHEALTHY", "HEARTBEATS_MISSED"})
"""Causes of a change of state that nobody decided: all others are an operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One variant of an AI service, as its operator describes it.

    Attributes:
        aisi: Its identity.
        task: What it does.
        modality: On what.
        model: The model's name, as the upstream knows it.
        languages: ISO 639 codes; empty for any.
        scores: (benchmark, score) pairs that the operator vouches for.
        licence: SPDX id of the model's licence.
        price: Per 1,000 requests, in millionths of the catalogue's currency.
    """

    aisi: ServiceUri
    task: str
    modality: str
    model: str
    languages: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    licence: str = ""
    price: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """An administrative domain: access, transport or compute.

    Attributes:
        name: Its name.
        kind: Which part of a path it is.
        region: Where it processes data.
        jurisdiction: Whose law it is under.
        trust: 0 to 5.
        data_class_max: The most sensitive class that it is cleared for.
        capacity_mrps: What may be reserved in it, in thousandths of a request per second; 0 is unlimited.
    """

    name: DomainName
    kind: DomainKind
    region: str
    jurisdiction: str
    trust: int
    data_class_max: DataClass
    capacity_mrps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The transport domains between an access and a compute domain, in order."""

    access: DomainName
    compute: DomainName
    transport: tuple[DomainName, ...]

    @property
    def domains(self) -> tuple[DomainName, ...]:
        """Every domain on the path, from the client on."""
        return (self.access, *self.transport, self.compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """An AI execution anchor (AEXF): one endpoint that executes one service in one domain.

    Attributes:
        anchor: Its id.
        domain: The compute domain it stands in.
        aisi: What it executes.
        host: Where its sidecar listens.
        port: TCP port of the sidecar.
        tls: Whether the sidecar speaks mutual TLS.
        capacity_mrps: What may be reserved at it, in thousandths of a request per second.
        in_flight_max: Requests that gateways may have under way at it.
        state: Whether it takes sessions.
        held_back: Whether an operator has drained it: then it is never READY before the operator says so, whatever
            becomes of it meanwhile.
    """

    anchor: AnchorId
    domain: DomainName
    aisi: ServiceUri
    host: str
    port: int
    tls: bool
    capacity_mrps: int
    in_flight_max: int
    state: AnchorState = AnchorState.UNKNOWN
    held_back: bool = False


@dataclass(slots=True)
class Catalogue:
    """Everything that is on offer; changed only by replaying events.

    `suspect` holds the digests of envelopes in force that are not believed any more, and why: nothing is admitted
    under them.
    """

    services: dict[ServiceUri, Service] = field(default_factory=dict)
    domains: dict[DomainName, Domain] = field(default_factory=dict)
    paths: dict[tuple[DomainName, DomainName], Path] = field(default_factory=dict)
    anchors: dict[AnchorId, Anchor] = field(default_factory=dict)
    envelopes: dict[tuple[DomainName, str], Envelope] = field(default_factory=dict)
    suspect: dict[str, str] = field(default_factory=dict)

    def path_to(self, access: DomainName, compute: DomainName) -> Path | None:
        """Return the path between two domains, or None if none is registered."""
        return self.paths.get((access, compute))

    def envelope_of(self, domain: DomainName, aisi: ServiceUri) -> Envelope | None:
        """Return the domain's envelope for the service, else its envelope for all traffic, else None."""
        return self.envelopes.get((domain, aisi)) or self.envelopes.get((domain, ""))
