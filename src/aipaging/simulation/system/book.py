"""What an auditor knows who reads every record the moment it is durable, with a true clock in hand.

The book is made of stored records alone, never of what the controller believes. From it follow, in true time: which
COMMITs there are, to which anchor, until when; who took them up; which sessions live.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import MS
from aipaging.core.lease.expiry import NO_EPOCH
from aipaging.simulation.system.governed import READERS, Governed

_RECORD: Final = msgspec.json.Decoder(dict[str, str | int])

ToTrue = Callable[[int], int]
"""From the boot clock of the record's writer to true time."""


@dataclass(slots=True)
class LeaseRead:
    """One COMMIT as it stands in the records.

    Attributes:
        anchor: Where to.
        rate_mrps: What is reserved.
        ends_us: The last true instant at which it may be used.
        domains: The path, or "" where the records do not say.
    """

    anchor: str
    rate_mrps: int
    ends_us: int
    domains: str


@dataclass(slots=True)
class SessionRead:
    """One session as it stands in the records.

    Attributes:
        leases: Its COMMITs.
        begun_us: When it was asked for, in true time.
        ends_us: When its duration is over, in true time.
        over: Whether it ended, or was lost with a restored backup.
        tenant: Whose.
        client: Who asked.
    """

    leases: dict[Epoch, LeaseRead] = field(default_factory=dict[Epoch, LeaseRead])
    begun_us: int = 0
    ends_us: int = 0
    over: bool = False
    tenant: str = ""
    client: str = ""

    @property
    def rate_mrps(self) -> int:
        """What the session may send."""
        return self.leases[max(self.leases)].rate_mrps


@dataclass(slots=True)
class Book:
    """Everything that was ever durable.

    Attributes:
        sessions: By id.
        installed: `(session, epoch, gateway)` of every recorded take-up.
        term: The highest term.
        pages: How many page transactions are on record, refusals included.
        faults: What the records themselves do wrong, in sentences.
        governed: Of tenants, switches, policies, envelopes, counts.
        kinds: How many records of each type.
        entitled: The clients that may have sessions, and since when in true time; nobody said so: everyone.
    """

    sessions: dict[str, SessionRead] = field(default_factory=dict[str, SessionRead])
    installed: set[tuple[str, Epoch, str]] = field(default_factory=set[tuple[str, Epoch, str]])
    term: int = 0
    pages: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    governed: Governed = field(default_factory=Governed)
    kinds: Counter[str] = field(default_factory=Counter[str])
    entitled: tuple[frozenset[str], int] | None = None

    def read(self, entries: Iterable[SealedEntry], to_true: ToTrue) -> None:
        """Take durable entries over."""
        for entry in entries:
            record = _RECORD.decode(entry.record)
            kind = str(record["type"])
            self.kinds[kind] += 1
            reader, governed = _READERS.get(kind), READERS.get(kind)
            if reader is None and governed is None:
                continue
            leaves = [_RECORD.decode(leaf) for leaf in entry.leaves]
            if reader is not None:
                reader(self, record, leaves, to_true)
            if governed is not None:
                self.faults += governed(self.governed, record, leaves)

    def others(self, record: dict[str, Any]) -> list[int]:
        """Return the rates of the sessions that the tenant of a COMMIT has beside it."""
        return [
            session.rate_mrps
            for name, session in self.sessions.items()
            if session.tenant == record["tenant"] and name != record["session"] and session.leases and not session.over
        ]

    def lease(self, session: str, epoch: Epoch) -> LeaseRead | None:
        """Return a COMMIT that was durable at some time, or None."""
        found = self.sessions.get(session)
        return found.leases.get(epoch) if found is not None else None

    def at_anchor_until(self, session: str, anchor: str, epoch: Epoch) -> int:
        """Return until when work that began under the epoch may go on at the anchor: newer COMMITs there count."""
        found = self.sessions.get(session)
        leases = found.leases.items() if found is not None else ()
        return max((each.ends_us for e, each in leases if e >= epoch and each.anchor == anchor), default=-1)

    def newest(self, session: str, anchor: str) -> Epoch:
        """Return the highest epoch that the session was ever granted at the anchor."""
        leases = self.sessions[session].leases.items()
        return max((epoch for epoch, each in leases if each.anchor == anchor), default=NO_EPOCH)

    def forget(self, kept: Iterable[SealedEntry]) -> set[tuple[str, Epoch]]:
        """A backup was restored: sessions that it does not know are over; what was granted stays in mind.

        Returns:
            The COMMITs that the backup knows.
        """
        known = Book()
        known.read(kept, lambda us: us)
        self.governed = known.governed
        self.governed.counted.clear()
        for name, session in self.sessions.items():
            if name not in known.sessions:
                session.over = True
        return {(name, epoch) for name, session in known.sessions.items() for epoch in session.leases}


def _epoch(record: dict[str, Any]) -> Epoch:
    return Epoch(record["epoch_term"], record["epoch_n"])


def _term(book: Book, record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    if record["term"] <= book.term:
        book.faults.append(("TERM", f"term {record['term']} begins, and there has been term {book.term}"))
    book.term = max(book.term, record["term"])


def _requested(book: Book, record: dict[str, Any], _leaves: list[Any], to_true: ToTrue) -> None:
    begun_us = to_true(record["boot_us"])
    book.pages += 1
    book.sessions[record["session"]] = SessionRead(
        begun_us=begun_us,
        ends_us=begun_us + record["duration_ms"] * MS,
        tenant=record["tenant"],
        client=record["client"],
    )


def _refused(book: Book, _record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    book.pages += 1


def _granted(book: Book, record: dict[str, Any], _leaves: list[Any], to_true: ToTrue) -> None:
    session = book.sessions[record["session"]]
    ends_us = to_true(record["boot_us"] + record["lease_ms"] * MS)
    session.leases[_epoch(record)] = LeaseRead(record["anchor"], record["rate_mrps"], ends_us, record["domains"])
    limited = book.governed.limits.get(record["tenant"]) is not None
    book.faults += book.governed.granted(record, book.others(record) if limited else [])
    if float(record["epsilon_bound"]) > float(record["epsilon"]) or not record["rung"]:
        what = f"{record['session']} is granted with the bound {record['epsilon_bound']}, asked was {record['epsilon']}"
        book.faults.append(("BOUND", what))


def _renewed(book: Book, record: dict[str, Any], leaves: list[dict[str, Any]], to_true: ToTrue) -> None:
    for leaf in leaves:
        lease = book.lease(leaf["session"], _epoch(leaf))
        _kept(book, record, leaf, to_true)
        if lease is None:
            book.faults.append(("EPOCH", f"{leaf['session']} is renewed under an epoch that was never granted"))
        else:
            lease.ends_us = max(lease.ends_us, to_true(record["boot_us"] + leaf["lease_ms"] * MS))


def _regranted(book: Book, record: dict[str, Any], leaves: list[dict[str, Any]], to_true: ToTrue) -> None:
    for leaf in leaves:
        leases = book.sessions[leaf["session"]].leases
        before = leases[max(epoch for epoch, lease in leases.items() if lease.anchor == leaf["anchor"])]
        ends_us = to_true(record["boot_us"] + leaf["lease_ms"] * MS)
        # A client that moves may keep its anchor and change its path; which path goes on, a regrant does not say.
        paths = {lease.domains for lease in leases.values() if lease.anchor == leaf["anchor"]}
        path = before.domains if len(paths) == 1 else ""
        leases[_epoch(leaf)] = LeaseRead(leaf["anchor"], before.rate_mrps, ends_us, path)
        _unless_stopped(book, leaf["session"], leaf["anchor"])


def _unless_stopped(book: Book, name: str, anchor: str) -> None:
    stopped = book.governed.stopped(book.sessions[name].tenant, anchor)
    if stopped:
        book.faults.append(("KILLED", f"{name} goes on at {anchor}, and {stopped} is stopped"))


def _kept(book: Book, record: dict[str, Any], leaf: dict[str, Any], to_true: ToTrue) -> None:
    """Look at who goes on: nobody who is stopped, or whose client is entitled no more."""
    name = leaf["session"]
    session = book.sessions.get(name)
    lease = book.lease(name, _epoch(leaf))
    if session is None or lease is None:
        return
    _unless_stopped(book, name, lease.anchor)
    if book.entitled is not None:
        clients, since_us = book.entitled
        if session.client not in clients and to_true(record["boot_us"]) > since_us + MS:
            book.faults.append(("ENTITLED", f"{name} of {session.client} is renewed, who is entitled no more"))


def _rebound(book: Book, record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    lease = book.lease(record["session"], _epoch(record))
    if lease is not None and lease.domains:
        where = f"{record['session']} is bounded anew"
        book.faults += book.governed.rests_on(where, lease.domains, record["envelopes"])


def _draining(book: Book, record: dict[str, Any], _leaves: list[Any], to_true: ToTrue) -> None:
    lease = book.lease(record["session"], _epoch(record))
    if lease is not None:
        lease.ends_us = max(lease.ends_us, to_true(record["boot_us"] + record["drain_ms"] * MS))


def _installed(book: Book, record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    book.installed.add((record["session"], _epoch(record), record["gateway"]))


def _extended(book: Book, record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    session = book.sessions[record["session"]]
    session.ends_us = session.begun_us + record["duration_ms"] * MS


def _ended(book: Book, record: dict[str, Any], _leaves: list[Any], _to_true: ToTrue) -> None:
    book.sessions[record["session"]].over = True


_Reader = Callable[[Book, dict[str, Any], list[Any], ToTrue], None]

_READERS: Final[dict[str, _Reader]] = {
    "TERM_STARTED": _term,
    "SESSION_REQUESTED": _requested,
    "SESSION_REFUSED": _refused,
    "COMMIT_GRANTED": _granted,
    "COMMIT_REBOUND": _rebound,
    "LEASES_RENEWED": _renewed,
    "LEASES_REGRANTED": _regranted,
    "COMMIT_DRAINING": _draining,
    "STEER_INSTALLED": _installed,
    "SESSION_EXTENDED": _extended,
    "SESSION_ENDED": _ended,
}
