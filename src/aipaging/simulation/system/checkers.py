"""The checkers: every invariant, judged from outside, in true time.

    LEASE         nothing is forwarded, admitted or delivered after the COMMIT's end, or to another anchor
    DURABLE       nothing is forwarded or answered that is not on stable storage, take-ups by gateways included
    REVOKED       what a gateway was confirmed to have left, it does not forward again; what an anchor was told to
                  have ended, it does not admit again
    FENCING       no lower epoch after a higher one, at one gateway or one anchor
    CAPACITY      the sessions that are served at an anchor, or in a domain, never hold more than it has
    BREAK         when nothing is broken, every request of a live session is served, relocations included
    DEPOSED       only the leader grants time
    TERM, EPOCH   terms rise over restarts and restored backups; only what was granted is renewed
    BOUND         every COMMIT carries a bound that keeps what was asked, and rests on the envelopes in force
    QUOTA         no tenant is let in, or pays, beyond its quotas
    KILLED        nothing that is stopped is granted or goes on; ENTITLED: nor that of clients who may not
    POLICY        nothing is granted where the policies in force forbid it
    CLASS         nobody makes room for an equal or a lower class
    METER         no more requests are counted for a session at an anchor than it admitted
    EVIDENCE      the log verifies: chain, tree, checkpoints, replay of the invariants
    REPLAY        the journal rebuilds the state, with and without its snapshot
    LEAK          in the end nothing is held, open or ill
    ENGINE        a decision does not fit the state

They see requests, answers and durable records, and nothing of what a node believes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from aipaging.core.evidence.record import SealedEntry
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import MS, SECOND
from aipaging.core.paging.snapshot import encode_state
from aipaging.simulation.system.book import Book
from aipaging.simulation.system.disk import Disk
from aipaging.simulation.system.engine import Engine
from aipaging.simulation.system.kernel import Agenda, NodeClock

CHECKERS: Final = (
    "LEASE", "DURABLE", "REVOKED", "FENCING", "CAPACITY", "BREAK", "DEPOSED", "TERM", "EPOCH", "BOUND", "QUOTA",
    "KILLED", "ENTITLED", "POLICY", "CLASS", "METER", "EVIDENCE", "REPLAY", "LEAK", "ENGINE",
)  # fmt: skip

ENDING_US: Final = 20 * MS
"""A request that begins so shortly before its session's end may find it ended."""


RECORDED_US: Final = 500 * MS
"""Within this the record of what was done at once is durable, slow syncs included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a checker found.

    Attributes:
        checker: Which.
        us: When, in true time.
        what: What is wrong, in a sentence.
    """

    checker: str
    us: int
    what: str

    def __str__(self) -> str:
        return f"{self.checker} at {self.us / SECOND:.6f} s: {self.what}"


@dataclass(frozen=True, slots=True)
class Place:
    """An anchor, as the checkers know it: its capacity, its domain, and that one's capacity, 0 for any."""

    capacity_mrps: int
    domain: str
    domain_mrps: int


class FoundError(Exception):
    """Ends a run at the first finding: what follows from a broken state says nothing."""

    def __init__(self, found: Found) -> None:
        super().__init__(str(found))
        self.found = found


class Watch:
    """Watches one run.

    Args:
        agenda: True time.
        tolerance_us: What drift beyond the assumed explains.
        places: The anchors.

    Attributes:
        book: What is durable.
        served: How many requests were admitted at anchors.
    """

    def __init__(self, agenda: Agenda, *, tolerance_us: int, places: Mapping[str, Place]) -> None:
        self.book = Book()
        self.served = 0
        self.troubled: list[tuple[int, int]] = []
        self._agenda = agenda
        self._tolerance_us = tolerance_us
        self._places = places
        self._digest = blake2b(digest_size=16)
        self._left: dict[tuple[str, int, str], Epoch] = {}
        self._at_gateway: dict[tuple[str, int, str], Epoch] = {}
        self._at_anchor: dict[tuple[str, int, str], Epoch] = {}
        self._holds: dict[str, dict[str, tuple[int, int]]] = {anchor: {} for anchor in places}
        self._lives: dict[str, int] = {}
        self._open: dict[str, int] = dict.fromkeys(places, 0)
        self._stored = 0
        self._told: dict[tuple[str, int, str], Epoch] = {}
        self._admitted: Counter[tuple[str, str]] = Counter()

    @property
    def digest(self) -> str:
        """The digest of all that was seen."""
        return self._digest.hexdigest()

    def fail(self, checker: str, what: str) -> None:
        """Report a finding; the run is over."""
        raise FoundError(Found(checker=checker, us=self._agenda.us, what=what))

    def _note(self, *parts: object) -> None:
        self._digest.update(f"{self._agenda.us} {parts}\n".encode())

    # -- what becomes durable

    def durable(self, entries: Sequence[SealedEntry], clock: NodeClock) -> None:
        """These have just reached stable storage."""
        self._digest.update(entries[-1].record)
        self._stored += len(entries)
        self.book.read(entries, clock.true_us)
        for checker, what in self.book.faults:
            self.fail(checker, what)
        governed = self.book.governed
        for session, anchor in governed.counted:
            counted, admitted = governed.metered[session, anchor], self._admitted[session, anchor]
            if counted > admitted:
                self.fail(
                    "METER", f"{counted} requests of {session} are counted at {anchor}, which admitted {admitted}"
                )
        governed.counted.clear()

    def restored(self, kept: Sequence[SealedEntry]) -> None:
        """A backup took the place of the journal."""
        self._stored = len(kept)
        known = self.book.forget(kept)
        for anchor, holds in self._holds.items():
            # What a backup does not know it cannot hold: those COMMITs end with their leases, unreserved.
            for session in [name for name in holds if (name, self.book.newest(name, anchor)) not in known]:
                del holds[session]

    # -- what passes

    def forwarded(self, gateway: str, life: int, anchor: str, *, session: str, epoch: Epoch) -> None:
        """A gateway sends a request to an anchor."""
        self._note("forward", gateway, anchor, session, epoch)
        where = f"{gateway} forwards {session} to {anchor} under {epoch}"
        self._under_lease(anchor, session, epoch, where)
        if (session, epoch, gateway) not in self.book.installed:
            self.fail("DURABLE", f"{where}, and its taking that up is on no record")
        place = (gateway, life, session)
        left = self._left.get(place)
        if left is not None and epoch <= left:
            self.fail("REVOKED", f"{where}, and it was confirmed to have left {left}")
        highest = self._at_gateway.get(place)
        if highest is not None and epoch < highest:
            self.fail("FENCING", f"{where} after {highest}")
        self._at_gateway[place] = epoch

    def admitted(self, anchor: str, life: int, session: str, epoch: Epoch) -> None:
        """A sidecar lets a request pass."""
        self._note("admit", anchor, session, epoch)
        self.served += 1
        where = f"{anchor} admits {session} under {epoch}"
        until_us = self.book.at_anchor_until(session, anchor, epoch)
        # Work may begin under an epoch that a newer COMMIT of the session at this anchor has taken over, or drains.
        lease = self._under_lease(anchor, session, epoch, where, until_us=until_us)
        place = (anchor, life, session)
        highest = self._at_anchor.get(place)
        if highest is not None and epoch < highest:
            self.fail("FENCING", f"{where} after {highest}")
        told = self._told.get(place)
        if told is not None and epoch <= told:
            self.fail("REVOKED", f"{where}, and it was told that {told} has ended")
        self._at_anchor[place] = epoch
        self._admitted[session, anchor] += 1
        self._open[anchor] += 1
        self._held(anchor, session, *lease)

    def work_ended(self, anchor: str, session: str, epoch: Epoch, last_us: int) -> None:
        """Work that was admitted delivered last at `last_us`."""
        self._note("end", anchor, session, epoch)
        self._open[anchor] -= 1
        late_us = last_us - self.book.at_anchor_until(session, anchor, epoch) - self._tolerance_us
        if late_us > 0:
            self.fail("LEASE", f"{anchor} works for {session} under {epoch} until {late_us} us after the COMMIT's end")

    def told(self, anchor: str, life: int, session: str, epoch: Epoch) -> None:
        """An anchor was told, by an answer or the feed, that an epoch and all below it have ended."""
        self._agenda.reached["anchor told of an end"] += 1
        place = (anchor, life, session)
        before = self._told.get(place)
        if before is None or before < epoch:
            self._told[place] = epoch

    def entitled(self, clients: Iterable[str]) -> None:
        """An operator was told that exactly these clients may have sessions from now on."""
        self.book.entitled = frozenset(clients), self._agenda.us

    def sidecar_died(self, anchor: str) -> None:
        """Its work delivers nothing any more."""
        self._open[anchor] = 0

    def confirmed(self, session: str, epoch: Epoch, gateways: dict[str, int]) -> None:
        """These gateways (by name, with their lives) were said to have left the epoch and all below it."""
        for gateway, life in gateways.items():
            place = (gateway, life, session)
            left = self._left.get(place)
            if left is None or left < epoch:
                self._left[place] = epoch

    def granted_time(self, to: str, *, writer: int, newest: int) -> None:
        """A controller answers a question for time."""
        if writer != newest:
            self.fail("DEPOSED", f"{to} is granted time by a controller whose store is another's by now")

    def answered(self, session: str, *, ended: bool) -> None:
        """A client was told that its session is admitted, or has ended."""
        known = self.book.sessions.get(session)
        if known is None or not known.leases or (ended and not known.over):
            what = "has ended" if ended else "is admitted"
            self.fail("DURABLE", f"a client is told that {session} {what}, and no record says so")

    def outcome(self, session: str, sent_us: int, outcome: str) -> None:
        """A client's request had an outcome; when nothing is broken, a live session's is served."""
        self._note("outcome", session, outcome)
        if outcome in {"served", "cut"}:
            return
        known = self.book.sessions[session]
        if known.over or known.ends_us - ENDING_US <= self._agenda.us:
            return
        if not any(begin_us <= self._agenda.us and sent_us <= end_us for begin_us, end_us in self.troubled):
            what = f"a request of {session} sent at {sent_us / SECOND:.6f} s comes to {outcome}"
            self._agenda.at(self._agenda.us + RECORDED_US, self._still_lives, session, what)

    def _still_lives(self, session: str, what: str) -> None:
        # What restricts waits for nothing: a session may be cut off a sync before its end is on record.
        if not self.book.sessions[session].over:
            self.fail("BREAK", what)

    def _under_lease(
        self, anchor: str, session: str, epoch: Epoch, where: str, *, until_us: int = -1
    ) -> tuple[int, int]:
        lease = self.book.lease(session, epoch)
        if lease is None:
            self.fail("DURABLE", f"{where}, which is no durable COMMIT")
            return 0, 0
        if lease.anchor != anchor:
            self.fail("LEASE", f"{where}, and the COMMIT is for {lease.anchor}")
        late_us = self._agenda.us - max(lease.ends_us, until_us) - self._tolerance_us
        if late_us > 0:
            self.fail("LEASE", f"{where} {late_us} us after the COMMIT's end")
        return max(lease.ends_us, until_us), lease.rate_mrps

    def _held(self, anchor: str, session: str, ends_us: int, rate_mrps: int) -> None:
        holds = self._holds[anchor]
        before = holds.get(session)
        holds[session] = (max(ends_us, before[0]) if before else ends_us, rate_mrps)
        if before is not None or self.book.sessions[session].over:
            return
        place = self._places[anchor]
        held = sum(rate for _, rate in self._holding(anchor))
        if held > place.capacity_mrps:
            self.fail("CAPACITY", f"{anchor} serves sessions of {held} mrps, it has {place.capacity_mrps}")
        if place.domain_mrps:
            # A session that moves within a domain holds its rate there once.
            within = [name for name, other in self._places.items() if other.domain == place.domain]
            held = sum(dict(each for name in within for each in self._holding(name)).values())
            if held > place.domain_mrps:
                self.fail("CAPACITY", f"{place.domain} serves sessions of {held} mrps, it has {place.domain_mrps}")

    def _holding(self, anchor: str) -> list[tuple[str, int]]:
        """Return the sessions that hold something at an anchor now, and how much."""
        holds = self._holds[anchor]
        for name in [name for name, (until_us, _) in holds.items() if until_us < self._agenda.us]:
            del holds[name]
        return [(name, rate) for name, (_, rate) in holds.items()]

    # -- what can be read

    def recovered(self, engine: Engine, disk: Disk) -> None:
        """A controller has read its journal: whole batches alone, and the same with or without the snapshot."""
        if len(disk.entries) != self._stored:
            self.fail(
                "DURABLE", f"{len(disk.entries)} records are read back, and {self._stored} were ever stored whole"
            )
        if disk.snapshot is None:
            return
        if encode_state(engine.rebuilt(disk.snapshot)) != encode_state(engine.rebuilt(None)):
            self.fail("REPLAY", "the snapshot and what follows it rebuild another state than the whole journal")

    def ended(self, engine: Engine, disk: Disk) -> None:
        """Everything is healed and over: look at what is left, and read the log as a stranger would."""
        if not engine.healthy or not engine.idle:
            self.fail("LEAK", f"the engine does not come back: {engine.ill or 'it is still recovering or writing'}")
        if encode_state(engine.state) != encode_state(engine.rebuilt(None)):
            self.fail("REPLAY", "the journal rebuilds another state than the one that is believed")
        verify(self, disk)
        state = engine.state
        if state.ledger.held or state.live:
            left = ", ".join(f"{session} {held.epoch}" for session, held in list(state.ledger.reservations())[:3])
            self.fail("LEAK", f"{len(state.ledger)} reservations are never released: {left}")
        for anchor, count in self._open.items():
            if count:
                self.fail("LEAK", f"{count} pieces of work at {anchor} never end")


def verify(watch: Watch, disk: Disk) -> None:
    """Read the log as a stranger would."""
    verifier = Verifier([("a checkpoint", checkpoint) for checkpoint in disk.checkpoints])
    for entry in disk.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    verdict = verifier.verdict()
    if verdict.first_bad is not None or not verdict.ok:
        bad = verdict.first_bad
        what = f"record {bad.seq} ({bad.type}): {bad.what} [{bad.invariant.value}]" if bad else "no place named"
        watch.fail("EVIDENCE", what)
