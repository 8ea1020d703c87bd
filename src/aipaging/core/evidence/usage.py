"""What tenants used, from the evidence alone: whoever holds the log derives the same sums.

sessions            admitted in the period
lease time          how long sessions were AVAILABLE in the period, by the wall clock of the records
reserved requests   their reserved rate times that time: what could have been sent
requests, tokens    what sidecars counted and said in the period
charged, refunded   what was charged in the period, and given back
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Usage:
    """What one tenant used.

    Attributes:
        sessions: Sessions admitted.
        lease_us: Time for which they were AVAILABLE, summed over sessions.
        reserved: Reserved rate times that time, in thousandths of a request per second times microseconds.
        requests: Requests counted by sidecars.
        tokens: Tokens counted by sidecars.
        charged: Charges, in millionths of the catalogue's currency.
        refunded: Refunds likewise.
    """

    sessions: int = 0
    lease_us: int = 0
    reserved: int = 0
    requests: int = 0
    tokens: int = 0
    charged: int = 0
    refunded: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    tenant: str
    rate_mrps: int
    since_us: int


@dataclass(slots=True, kw_only=True)
class UsageBook:
    """Reads records in order and sums what each tenant used in a period.

    Attributes:
        from_us: Begin of the period, wall clock.
        to_us: Its end, not included.
        tenants: What each used.
        last_us: The wall clock of the last record.
    """

    from_us: int
    to_us: int
    tenants: dict[str, Usage] = field(default_factory=dict[str, Usage])
    last_us: int = 0
    _open: dict[str, _Open] = field(default_factory=dict[str, _Open])

    def feed(self, record: Record, leaves: Iterable[Record] = ()) -> None:
        """Take the next record."""
        wall_us: int = record["wall_us"]
        self.last_us = max(self.last_us, wall_us)
        inside = self.from_us <= wall_us < self.to_us
        match record["type"]:
            case "COMMIT_GRANTED" if record["cause"] == "PAGED":
                self._open[record["session"]] = _Open(record["tenant"], record["rate_mrps"], wall_us)
                self._of(record["tenant"]).sessions += inside
            case "SESSION_ENDED":
                self._close(record["session"], wall_us)
            case "SESSIONS_METERED" if inside:
                for leaf in leaves:
                    usage = self._of(leaf["tenant"])
                    usage.requests += leaf["requests"]
                    usage.tokens += leaf["tokens"]
            case "SPEND_CHARGED" if inside:
                self._of(record["tenant"]).charged += record["amount"]
            case "SPEND_REFUNDED" if inside:
                self._of(record["tenant"]).refunded += record["amount"]
            case _:
                pass

    def closed(self) -> Mapping[str, Usage]:
        """Return the sums; sessions that have not ended count up to the last record."""
        for session in list(self._open):
            self._close(session, self.last_us)
        return {name: usage for name, usage in sorted(self.tenants.items()) if usage != Usage()}

    def _of(self, tenant: str) -> Usage:
        return self.tenants.setdefault(tenant, Usage())

    def _close(self, session: str, wall_us: int) -> None:
        opened = self._open.pop(session, None)
        if opened is None:
            return
        lasted_us = max(0, min(wall_us, self.to_us) - max(opened.since_us, self.from_us))
        usage = self._of(opened.tenant)
        usage.lease_us += lasted_us
        usage.reserved += lasted_us * opened.rate_mrps
