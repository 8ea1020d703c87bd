"""Deterministic network calculus in closed form: token buckets through rate-latency servers ([LeBoudecThiran2001]).

The deterministic parts of a path are composed exactly before anything stochastic is bounded:
beta_{R1,T1} (x) beta_{R2,T2} = beta_{min R, T1 + T2}.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aipaging.core.calculus.errors import UnstableError, require_non_negative, require_positive
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket:
    """Arrival curve alpha(t) = burst + rate t for t > 0."""

    burst: float
    rate: float

    def __post_init__(self) -> None:
        require_non_negative(burst=self.burst, rate=self.rate)

    def __add__(self, other: "TokenBucket") -> "TokenBucket":
        """Return the arrival curve of both together."""
        return TokenBucket(burst=self.burst + other.burst, rate=self.rate + other.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLatency:
    """Service curve beta(t) = rate (t - latency)^+."""

    rate: float
    latency: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate)
        require_non_negative(latency=self.latency)

    def leftover(self, cross: TokenBucket) -> "RateLatency":
        """Return the strict service curve left by `cross` under blind multiplexing.

        [R t - R T - b - r t]^+ = (R - r) (t - (R T + b) / (R - r))^+.

        Raises:
            UnstableError: The cross traffic takes the whole rate.
        """
        rate = self.rate - cross.rate
        if rate <= 0.0:
            raise UnstableError
        return RateLatency(rate=rate, latency=(self.rate * self.latency + cross.burst) / rate)

    def packetised(self, packet_max: float) -> "RateLatency":
        """Return the service curve behind a packetiser: one packet of the largest size later."""
        require_non_negative(packet_max=packet_max)
        return RateLatency(rate=self.rate, latency=self.latency + packet_max / self.rate)


def convolve(servers: Sequence[RateLatency]) -> RateLatency:
    """Return the min-plus convolution of servers in sequence: the least rate, the sum of latencies."""
    if not servers:
        raise InvalidInputError("a tandem needs at least one server", field="servers")
    return RateLatency(
        rate=min(server.rate for server in servers), latency=math.fsum(server.latency for server in servers)
    )


def horizontal_deviation(arrival: TokenBucket, service: RateLatency) -> float:
    """Return the largest delay: latency + burst / rate.

    Raises:
        UnstableError: The arrival rate exceeds the service rate.
    """
    if arrival.rate > service.rate * (1.0 + 1e-12):
        raise UnstableError
    return service.latency + arrival.burst / service.rate


def vertical_deviation(arrival: TokenBucket, service: RateLatency) -> float:
    """Return the largest backlog: burst + rate * latency.

    Raises:
        UnstableError: The arrival rate exceeds the service rate.
    """
    if arrival.rate > service.rate * (1.0 + 1e-12):
        raise UnstableError
    return arrival.burst + arrival.rate * service.latency


def deconvolve(arrival: TokenBucket, service: RateLatency) -> TokenBucket:
    """Return the arrival curve of the output: burst + rate * latency, same rate.

    Raises:
        UnstableError: The arrival rate exceeds the service rate.
    """
    return TokenBucket(burst=vertical_deviation(arrival, service), rate=arrival.rate)
