"""More planted bugs: in what tenants may have, in what sidecars believe, in what survives a restart."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

from aipaging.core.envelope.reserved import NOTHING
from aipaging.core.evidence.log import LogHead
from aipaging.core.lease.holder import LeaseHolder
from aipaging.core.paging import claiming, metering, preemption
from aipaging.core.paging import commands as c
from aipaging.core.paging.events import ClientsEntitled
from aipaging.core.paging.evolve_catalogue import envelope_accepted
from aipaging.core.paging.promise_events import EnvelopeAccepted
from aipaging.core.paging.snapshot import encode_state
from aipaging.core.paging.state import OthersReserved
from aipaging.core.paging.tenancy import Account, Tenancy
from aipaging.simulation.system import disk, engine, sidecar
from aipaging.simulation.system.planted import Patch, evolving, stepping

# -- tenants


def counted_again() -> list[Patch]:
    """A batch of counts that comes again is counted again."""

    def meter(state: Any, command: c.MeterSessions, now: Any) -> Any:
        before = state.tenancy.meters
        state.tenancy.meters = {}
        try:
            return original(state, command, now)
        finally:
            state.tenancy.meters = before

    original = metering.meter
    return stepping(c.MeterSessions, meter)


def sessions_not_counted() -> list[Patch]:
    """Sessions of a tenant are not counted."""

    def joined(self: Tenancy, session: Any, tenant: Any, rate_mrps: int) -> None:
        del self, session, tenant, rate_mrps

    return [(Tenancy, "joined", joined)]


def spending_not_counted() -> list[Patch]:
    """What a tenant has spent is forgotten."""

    def charge(self: Account, period: int, amount: int) -> None:
        del self, period, amount

    return [(Account, "charge", charge)]


def kill_leaves_anchors() -> list[Patch]:
    """An anchor that is stopped is still chosen."""

    def killed_anchor(self: Tenancy, anchor: Any, aisi: Any) -> None:
        del self, anchor, aisi

    def open_anchors(self: Tenancy, anchors: Any) -> Any:
        del self
        return iter(anchors.values())

    return [(Tenancy, "killed_anchor", killed_anchor), (Tenancy, "open_anchors", open_anchors)]


def entitled_for_ever() -> list[Patch]:
    """Who is entitled once is entitled for ever."""

    def entitled(state: Any, event: ClientsEntitled) -> None:
        state.entitled = frozenset(event.clients) | (state.entitled or frozenset())

    return evolving(ClientsEntitled, entitled)


def equals_displace() -> list[Patch]:
    """A class displaces its equals."""

    def planned(state: Any, wanted: Any, candidates: Any, now: Any) -> Any:
        return original(state, replace(wanted, priority=wanted.priority + 1), candidates, now)

    original = preemption.planned
    return [(claiming, "planned", planned)]


# -- promises and capacity


def envelope_of_before() -> list[Patch]:
    """Admission goes by the first envelope of a domain, whatever is in force."""

    def accepted(state: Any, event: EnvelopeAccepted) -> None:
        if event.envelope.domain not in {each.domain for each in state.catalogue.envelopes.values()}:
            envelope_accepted(state, event)

    return evolving(EnvelopeAccepted, accepted)


def domain_sold_twice() -> list[Patch]:
    """Admission forgets what others have reserved in a domain."""

    def domain_sum(self: OthersReserved, domain: Any) -> Any:
        del self, domain
        return NOTHING

    return [(OthersReserved, "domain_sum", domain_sum)]


# -- what a sidecar believes


def revocation_ignored() -> list[Patch]:
    """A sidecar goes on with what it was told has ended, until its time is over."""

    def revoked(self: LeaseHolder, session: Any, epoch: Any) -> bool:
        del self, session, epoch
        return False

    return [(LeaseHolder, "revoked", revoked)]


def sidecar_from_the_answer() -> list[Patch]:
    """A sidecar counts its time from the answer, not from the question."""

    def take(self: sidecar.Sidecar, answer: Any, sent_us: int) -> None:
        original(self, answer, max(sent_us, self.boot_us))

    original = sidecar.Sidecar.take
    return [(sidecar.Sidecar, "take", take)]


def silence_extends() -> list[Patch]:
    """A question without an answer leaves open work more time."""

    def unanswered(self: LeaseHolder, questions: Any, now_us: Any) -> None:
        asked = list(questions)
        original(self, asked, now_us)
        for question in asked:
            held = self._held.get(question.session)  # pyright: ignore[reportPrivateUsage]
            if held is not None and held.deadline_us:
                held.deadline_us = max(held.deadline_us, now_us + 4 * self.terms.retry_us)

    original = LeaseHolder.unanswered
    return [(LeaseHolder, "unanswered", unanswered)]


# -- what survives


def torn_batch_kept() -> list[Patch]:
    """Records of a batch without an end are taken for durable."""

    def recover(self: disk.Disk) -> None:
        for entry in self.torn:
            tree = self.head.tree.extended([entry.leaf_hash])
            self.head = LogHead(seq=entry.seq + 1, prev=sha256(entry.record).hexdigest(), tree=tree)
            self.entries.append(entry)
        self.torn = []

    return [(disk.Disk, "recover", recover)]


def snapshot_without_counts() -> list[Patch]:
    """A snapshot leaves out which batches of counts were taken."""

    def encode(state: Any) -> bytes:
        before, state.tenancy.meters = state.tenancy.meters, {}
        try:
            return original(state)
        finally:
            state.tenancy.meters = before

    original = encode_state
    return [(engine, "encode_state", encode)]
