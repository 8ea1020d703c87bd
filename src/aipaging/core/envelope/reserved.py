"""What is reserved in a domain, as the parts that count it and the parts that judge it both know it."""

from dataclasses import dataclass
from typing import Final

import msgspec


class Sum(msgspec.Struct, frozen=True, gc=False):
    """What several sessions have reserved together: rate, burst, and how many they are."""

    rate_mrps: int = 0
    burst: int = 0
    sessions: int = 0

    def plus(self, rate_mrps: int, burst: int) -> "Sum":
        """Return the sum with one session more."""
        return Sum(self.rate_mrps + rate_mrps, self.burst + burst, self.sessions + 1)

    def with_all(self, other: "Sum") -> "Sum":
        """Return the sum of both."""
        return Sum(self.rate_mrps + other.rate_mrps, self.burst + other.burst, self.sessions + other.sessions)

    def minus(self, rate_mrps: int, burst: int) -> "Sum":
        """Return the sum with one session less."""
        return Sum(self.rate_mrps - rate_mrps, self.burst - burst, self.sessions - 1)


NOTHING: Final = Sum()
"""Nobody has reserved anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """Whether sessions in shared queues would be harmed by one more burst.

    Attributes:
        domain: Where a session's target would not hold any more; empty if nowhere.
        burst_max: The most that could be added, requests; math.inf where nobody would notice.
    """

    domain: str
    burst_max: float
