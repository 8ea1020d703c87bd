"""A domain of a path: what it gives, whom it serves beside the flow, and what is known of its dependence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aipaging.core.calculus.arrivals import Arrival
from aipaging.core.calculus.bound import NamedEnum
from aipaging.core.calculus.deficit import ImpairedRateLatency
from aipaging.core.calculus.deterministic import RateLatency
from aipaging.core.calculus.errors import require_positive
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.measured import MeasuredLatency
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.work import Work
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOffService:
    """A slot gives `rate` with probability `availability`, else nothing; independent from slot to slot."""

    rate: float
    availability: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate, availability=self.availability)
        if self.availability > 1.0:
            raise InvalidInputError("availability must be at most 1", field="availability")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomService:
    """Every slot gives `work`, drawn afresh, independent from slot to slot."""

    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialServer:
    """A FIFO server whose service times are Exp(1 / rate), drawn afresh for every job."""

    rate: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate)


Service: TypeAlias = (
    RateLatency
    | ImpairedRateLatency
    | OnOffService
    | RandomService
    | ExponentialServer
    | BatchingServer
    | DelayContract
    | MeasuredLatency
)


def gps_share(server: RateLatency, weights: Sequence[float], index: int) -> RateLatency:
    """Return what generalised processor sharing guarantees to one of several flows: its weight's part of the rate.

    Whatever the others send, a backlogged flow gets phi_i / sum phi of the service ([ParekhGallager1993]).

    Raises:
        InvalidInputError: Weights that are not positive, or no such flow.
    """
    if not 0 <= index < len(weights):
        raise InvalidInputError("there is no flow of this index", field="index")
    for weight in weights:
        require_positive(weights=weight)
    return RateLatency(rate=server.rate * weights[index] / math.fsum(weights), latency=server.latency)


class Discipline(NamedEnum):
    """What is known of how a domain serves the flow beside its cross traffic."""

    FIFO = "fifo"
    RESERVED = "reserved"
    BLIND = "blind"
    PRIORITY = "priority"


class Dependence(NamedEnum):
    """What is known of how a domain depends on the others and on the past."""

    INDEPENDENT = "independent"
    CONDITIONAL = "conditional"
    ANY = "any"


class Measure(NamedEnum):
    """Whose delay is meant.

    VIRTUAL is the time in which the work present at an instant leaves; in slots that includes the slot's own
    arrivals. SOJOURN is that of a job from its arrival to its completion, its own work included: waiting convolved
    with own service.
    """

    VIRTUAL = "virtual"
    SOJOURN = "sojourn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain of a path.

    Attributes:
        name: For the answer.
        service: What it gives; with RESERVED, what it gives this flow alone.
        cross: Fresh cross traffic that leaves after the domain.
        discipline: How it is multiplexed; PRIORITY means that the cross traffic goes first.
        dependence: Its clause.
    """

    name: str
    service: Service
    cross: tuple[Arrival, ...] = ()
    discipline: Discipline = Discipline.RESERVED
    dependence: Dependence = Dependence.INDEPENDENT

    def __post_init__(self) -> None:
        object.__setattr__(self, "cross", tuple(self.cross))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFlow:
    """Cross traffic that shares several domains: it enters at index `first` and leaves after index `last`."""

    arrival: Arrival
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise InvalidInputError("must be indices of domains, first <= last", field="first")
