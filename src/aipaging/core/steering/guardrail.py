"""The guardrail of a session where several gateways meet: is a request within the contract of its COMMIT?

Virtual scheduling (GCRA, ITU-T I.371, annex A): a session's state is one instant, until which what it may send is
spent. Gateways police first, at the edge, and exactly. This second point sees what they let pass, pushed together on
the way, and the sum of what several of them let pass; so it allows `clumping_us` more and must never limit a client
that conforms at its gateways. If the delays from gateway to here differ by at most `clumping_us`, what conforms there
with limit tau conforms here with limit tau + `clumping_us` (Le Boudec and Thiran, "Network Calculus", 1.2.2); a rate
that is `drift_ppm` higher pays for two clocks that disagree. A refused request is not charged.

What passes in any interval of t seconds is at most burst + (t + clumping) * rate * (1 + drift), in requests.
"""

from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS, BootUs

CLUMPING_US: Final = 1_010 * MS
"""A gateway takes up to 1 s to connect to a sidecar and then sends at once all that waited; it allows 10 ms itself."""

DRIFT_PPM: Final = 1_000
"""NTP slews a clock by at most 500 ppm, and two clocks are compared."""

SWEPT_MIN: Final = 1_024
"""Fewer sessions than this are not worth a search; one takes about 150 bytes."""

_NS_MILLI: Final = 10**12
"""Nanoseconds between requests at one thousandth of a request per second."""


@dataclass(slots=True)
class Guardrails:
    """The guardrails of all sessions at one enforcement point; bounded by the sessions that are admitted there."""

    clumping_us: int = CLUMPING_US
    drift_ppm: int = DRIFT_PPM
    _spent_until_ns: dict[SessionId, int] = field(default_factory=dict[SessionId, int])
    _sweep_at: int = SWEPT_MIN

    def __len__(self) -> int:
        return len(self._spent_until_ns)

    def too_early_us(self, session: SessionId, rate_mrps: int, burst: int, arrived_us: BootUs) -> int:
        """Charge a request that conforms and return 0, or return how long it should have waited.

        Args:
            session: Whose request.
            rate_mrps: Reserved rate in thousandths of a request per second; 0 counts as the least, 1.
            burst: Requests that may come at once.
            arrived_us: When it arrived.
        """
        each_ns = _NS_MILLI * 1_000_000 // (max(rate_mrps, 1) * (1_000_000 + self.drift_ppm))
        now_ns = arrived_us * 1_000
        spent_until_ns = max(self._spent_until_ns.get(session, 0), now_ns)
        early_ns = spent_until_ns - now_ns - (burst - 1) * each_ns - self.clumping_us * 1_000
        if early_ns > 0:
            return -(-early_ns // 1_000)
        self._spent_until_ns[session] = spent_until_ns + each_ns
        if len(self._spent_until_ns) >= self._sweep_at:
            self._sweep(now_ns)
        return 0

    def _sweep(self, now_ns: int) -> None:
        """Forget the idle: to them it makes no difference. Each sweep waits until the sessions have doubled."""
        self._spent_until_ns = {name: until for name, until in self._spent_until_ns.items() if until > now_ns}
        self._sweep_at = max(SWEPT_MIN, 2 * len(self._spent_until_ns))
