"""What tenants used, from the evidence alone: whoever holds the log derives the same sums.

sessions            admitted in the period
lease time          how long sessions were AVAILABLE in the period, by the wall clock of the records
reserved requests   their reserved rate times that time: what could have been sent
requests, tokens    what sidecars counted and said in the period
charged, refunded   what was charged in the period, and given back

`uses` says what a record means; who sums keeps the sessions that have begun, and what falls into the period.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

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

    def add(self, other: "Usage") -> None:
        """Add what was used besides."""
        self.sessions += other.sessions
        self.lease_us += other.lease_us
        self.reserved += other.reserved
        self.requests += other.requests
        self.tokens += other.tokens
        self.charged += other.charged
        self.refunded += other.refunded

    def hold(self, rate_mrps: int, lasted_us: int) -> None:
        """Add a session that was held for so long."""
        self.lease_us += lasted_us
        self.reserved += lasted_us * rate_mrps


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that is AVAILABLE: whose, with which reserved rate, and since when."""

    tenant: str
    rate_mrps: int
    since_us: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Something that a tenant used at an instant of the wall clock."""

    tenant: str
    wall_us: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Held:
    """A session that was AVAILABLE from its beginning until an instant of the wall clock."""

    session: Begun
    until_us: int

    def within(self, from_us: int, to_us: int) -> int:
        """Return for how many microseconds of a period."""
        return max(0, min(self.until_us, to_us) - max(self.session.since_us, from_us))


class BegunSessions(Protocol):
    """The sessions that have begun and not ended."""

    def begin(self, session: str, begun: Begun) -> None:
        """Note one."""
        ...

    def end(self, session: str) -> Begun | None:
        """Forget one; return it, if it had begun."""
        ...


def uses(record: Record, leaves: Iterable[Record], sessions: BegunSessions) -> Iterator[Counted | Held]:
    """Yield what a record says that tenants used.

    Args:
        record: The next one of the log.
        leaves: Of a batch record.
        sessions: Those that have begun before it.
    """
    wall_us: int = record["wall_us"]
    match record["type"]:
        case "COMMIT_GRANTED" if record["cause"] == "PAGED":
            sessions.begin(record["session"], Begun(record["tenant"], record["rate_mrps"], wall_us))
            yield Counted(record["tenant"], wall_us, Usage(sessions=1))
        case "SESSION_ENDED":
            begun = sessions.end(record["session"])
            if begun is not None:
                yield Held(begun, wall_us)
        case "SESSIONS_METERED":
            for leaf in leaves:
                yield Counted(leaf["tenant"], wall_us, Usage(requests=leaf["requests"], tokens=leaf["tokens"]))
        case "SPEND_CHARGED":
            yield Counted(record["tenant"], wall_us, Usage(charged=record["amount"]))
        case "SPEND_REFUNDED":
            yield Counted(record["tenant"], wall_us, Usage(refunded=record["amount"]))
        case _:
            pass


TYPES_USED = frozenset({"COMMIT_GRANTED", "SESSION_ENDED", "SESSIONS_METERED", "SPEND_CHARGED", "SPEND_REFUNDED"})
"""The records that say that something was used; of the others only the instant counts."""


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
    _begun: dict[str, Begun] = field(default_factory=dict[str, Begun])

    def feed(self, record: Record, leaves: Iterable[Record] = ()) -> None:
        """Take the next record."""
        self.last_us = max(self.last_us, record["wall_us"])
        for used in uses(record, leaves, self):
            if isinstance(used, Held):
                self._hold(used)
            elif self.from_us <= used.wall_us < self.to_us:
                self._of(used.tenant).add(used.usage)

    def closed(self) -> Mapping[str, Usage]:
        """Return the sums; sessions that have not ended count up to the last record."""
        for begun in self._begun.values():
            self._hold(Held(begun, self.last_us))
        self._begun.clear()
        return {name: usage for name, usage in sorted(self.tenants.items()) if usage != Usage()}

    def begin(self, session: str, begun: Begun) -> None:
        """See `BegunSessions.begin`."""
        self._begun[session] = begun

    def end(self, session: str) -> Begun | None:
        """See `BegunSessions.end`."""
        return self._begun.pop(session, None)

    def _of(self, tenant: str) -> Usage:
        return self.tenants.setdefault(tenant, Usage())

    def _hold(self, held: Held) -> None:
        self._of(held.session.tenant).hold(held.session.rate_mrps, held.within(self.from_us, self.to_us))
