"""What is audited: a delay, and how often it may be missed, in a domain or end to end.

A contract speaks of the fraction of a period's requests, so it allows a *number* of exceedances. That number is
computed from the decimal digits of epsilon, not from its binary value: 0.003 of 1,000 requests are 3.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np

from aipaging.core.audit.special import Floats
from aipaging.core.foundation.errors import InvalidInputError

END_TO_END: Final = "end-to-end"
"""The name that contracts and verdicts give to the whole path."""

DOMAINS_MAX: Final = 12
"""Domains on one path: attribution visits every coalition of them, 4,096 at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeTail:
    """What an envelope promises about the tail: P(D > offset + x) <= prefactor * exp(-decay * x).

    Attributes:
        offset_ms: Where the tail begins.
        prefactor: The bound at the offset.
        decay_per_ms: How fast it falls.
    """

    offset_ms: float
    prefactor: float
    decay_per_ms: float

    def __post_init__(self) -> None:
        for name in ("offset_ms", "prefactor", "decay_per_ms"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "offset_ms"):
                raise InvalidInputError(f"{name} is {value}; it is a finite positive number", field=name)

    def quantile_us(self, exceedance: Floats) -> Floats:
        """Return the delay, in microseconds, that may be exceeded with each probability at most."""
        with np.errstate(divide="ignore"):
            beyond = np.log(self.prefactor / exceedance) / self.decay_per_ms
        return np.asarray(1e3 * (self.offset_ms + np.maximum(beyond, 0.0)), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One promise about a period: P(delay > delay_ms) <= epsilon, as a fraction of its requests.

    Attributes:
        domain: Name of the domain, or `end-to-end`.
        delay_ms: The contracted delay; later is an exceedance.
        epsilon: The fraction of requests that may exceed it.
        tenant: Whose requests count, None for everybody's.
        period_start_us: First instant of the period (wall clock), None where it is open.
        period_end_us: First instant after it.
        expected_requests: How many requests the period must hold; those that are not there may all have exceeded.
        clock_error_ms: By how much a reported delay may be wrong, either way.
        tail: The envelope's tail, which attribution caps by.
        independent: Whether somebody attests that requests are independent of one another: alarms are then several
            times faster, and wrong if they are not.
    """

    domain: str
    delay_ms: float
    epsilon: float
    tenant: str | None = None
    period_start_us: int | None = None
    period_end_us: int | None = None
    expected_requests: int | None = None
    clock_error_ms: float = 0.0
    tail: EnvelopeTail | None = None
    independent: bool = False

    def __post_init__(self) -> None:
        if not self.domain:
            raise InvalidInputError("a contract names a domain, or end-to-end", field="domain")
        if not (math.isfinite(self.delay_ms) and self.delay_ms > 0):
            raise InvalidInputError(f"delay_ms is {self.delay_ms}; it is a finite positive number", field="delay_ms")
        if not 0 < self.epsilon < 1:
            raise InvalidInputError(f"epsilon is {self.epsilon}; it lies between 0 and 1", field="epsilon")
        if not (math.isfinite(self.clock_error_ms) and self.clock_error_ms >= 0):
            raise InvalidInputError("clock_error_ms is a finite number, not negative", field="clock_error_ms")
        if self.expected_requests is not None and self.expected_requests < 0:
            raise InvalidInputError("expected_requests is not negative", field="expected_requests")
        if None not in (self.period_start_us, self.period_end_us) and self._length() <= 0:
            raise InvalidInputError("the period ends after it begins", field="period_end_us")

    def _length(self) -> int:
        return (self.period_end_us or 0) - (self.period_start_us or 0)

    @property
    def has_period(self) -> bool:
        """Whether membership depends on when a request began."""
        return self.period_start_us is not None or self.period_end_us is not None

    @property
    def delay_us(self) -> int:
        """The greatest whole number of microseconds that is not an exceedance."""
        return math.floor(Decimal(repr(self.delay_ms)) * 1000)

    @property
    def clock_error_us(self) -> int:
        """The clock error, rounded away from certainty."""
        return math.ceil(Decimal(repr(self.clock_error_ms)) * 1000)

    def allowance(self, requests: int) -> int:
        """Return how many of so many requests may exceed."""
        return math.floor(Fraction(Decimal(repr(self.epsilon))) * requests)

    def permitted_us(self, exceedance: Floats) -> Floats:
        """Return the quantile function that the contract permits, in microseconds.

        The point (delay, epsilon) and the tail, where there is one, both hold: the lesser counts.

        Args:
            exceedance: Fractions of the period's requests that are at least as late.
        """
        tolerance = 1e-12 * self.epsilon  # a rank on the edge is permitted
        cap = np.where(exceedance > self.epsilon + tolerance, float(self.delay_us), np.inf)
        return cap if self.tail is None else np.minimum(cap, self.tail.quantile_us(exceedance))
