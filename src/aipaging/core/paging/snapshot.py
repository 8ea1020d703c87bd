"""The state as bytes, so that recovery need not replay from the beginning.

A snapshot is a convenience: evidence never depends on it, and what can be derived (sums, indexes, the agenda) is
left out of it and derived again.

The state goes on while its snapshot is written: `frozen` takes copies of the containers at one instant, which is quick
and enough, as the values in them never change; `parts` turns them into bytes part by part, at leisure and elsewhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import msgspec

from aipaging.core.anchor.catalogue import Anchor, Catalogue, Domain, Path, Service
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.identity.tenant import Tenant
from aipaging.core.lease.ledger import Reservation
from aipaging.core.lease.machine import LeasePhase
from aipaging.core.paging.promises import KeySet, Original, Promises
from aipaging.core.paging.protection import protect_all
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot_rows import HeldPart, SessionsPart, held_of, held_part, sessions_of, sessions_part
from aipaging.core.paging.standing import Audits, Finding, Standing
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy_events import Claim, SwitchKilled

SNAPSHOT_VERSION: Final = 2
"""A snapshot of another version is not read: the journal is replayed instead."""

PART_ROWS: Final = 128
"""Rows in one part: encoding it takes about a millisecond, in which nothing else runs."""

Row = TypeVar("Row")


class _Head(msgspec.Struct, frozen=True, kw_only=True, tag="head"):
    """What there is little of."""

    version: int
    term: int
    settings: Settings
    services: list[Service]
    domains: list[Domain]
    paths: list[Path]
    anchors: list[Anchor]
    envelopes: list[Envelope]
    suspect: dict[str, str]
    key_sets: dict[DomainName, KeySet]
    standings: dict[DomainName, Standing]
    tenants: list[Tenant]
    spent: dict[TenantId, tuple[int, int]]
    switches: list[SwitchKilled]
    policies_digest: str
    meters: dict[AnchorId, dict[str, int]]
    claims: list[Claim]
    victims: dict[SessionId, SessionId]


class _Promised(msgspec.Struct, frozen=True, tag="promised"):
    """Some signed originals, by digest."""

    rows: list[tuple[str, Original]]


class _Found(msgspec.Struct, frozen=True, tag="found"):
    """Some findings of audits, by id."""

    rows: list[tuple[str, Finding]]


class _Sessions(msgspec.Struct, frozen=True, tag="sessions"):
    part: SessionsPart


class _Held(msgspec.Struct, frozen=True, tag="held"):
    part: HeldPart


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODER: Final = msgspec.msgpack.Decoder(_Head | _Promised | _Found | _Sessions | _Held)
_PARTS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The state at one instant; nothing that happens afterwards changes it."""

    head: _Head
    originals: Sequence[tuple[str, Original]]
    findings: Sequence[tuple[str, Finding]]
    sessions: Sequence[Session]
    holders: Sequence[SessionId]
    held: Sequence[tuple[Reservation, ...]]


def frozen(state: State) -> Frozen:
    """Return the state as it is now: a few milliseconds with a hundred thousand sessions."""
    catalogue, tenancy = state.catalogue, state.tenancy
    head = _Head(
        version=SNAPSHOT_VERSION,
        term=state.term,
        settings=state.settings,
        services=list(catalogue.services.values()),
        domains=list(catalogue.domains.values()),
        paths=list(catalogue.paths.values()),
        anchors=list(catalogue.anchors.values()),
        envelopes=list(catalogue.envelopes.values()),
        suspect=dict(catalogue.suspect),
        key_sets=dict(state.promises.key_sets),
        standings=dict(state.audits.standings),
        tenants=list(tenancy.tenants.values()),
        # In an order of its own: accounts arise in another one when they are read back.
        spent=dict(sorted((name, (each.period, each.spent)) for name, each in tenancy.accounts.items() if each.period)),
        switches=list(tenancy.switches.values()),
        policies_digest=tenancy.policies_digest,
        meters={anchor: dict(batches) for anchor, batches in tenancy.meters.items()},
        claims=list(tenancy.claims.values()),
        victims=dict(tenancy.victims),
    )
    return Frozen(
        head=head,
        originals=list(state.promises.originals.items()),
        findings=list(state.audits.findings.items()),
        sessions=list(state.sessions.values()),
        holders=list(state.ledger.held),
        held=list(state.ledger.held.values()),
    )


def parts(of: Frozen) -> Iterator[bytes]:
    """Yield the parts of a snapshot, the head first."""
    yield _ENCODE(of.head)
    for originals in _cut(of.originals):
        yield _ENCODE(_Promised(originals))
    for findings in _cut(of.findings):
        yield _ENCODE(_Found(findings))
    for sessions in _cut(of.sessions):
        yield _ENCODE(_Sessions(sessions_part(sessions)))
    for held in _cut(zip(of.holders, of.held, strict=True)):
        yield _ENCODE(_Held(held_part(held)))


def _cut(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows a part at a time."""
    left = iter(rows)
    while part := list(islice(left, PART_ROWS)):
        yield part


def restored(stored: Iterable[bytes]) -> State | None:
    """Return the state of these parts, or None if they are of another version or no snapshot at all."""
    state: State | None = None
    try:
        for encoded in stored:
            part = _DECODER.decode(encoded)
            if isinstance(part, _Head):
                if part.version != SNAPSHOT_VERSION:
                    return None
                state = _begun(part)
            elif state is None:
                return None
            else:
                _add(state, part)
    except msgspec.MsgspecError:
        return None
    if state is not None:
        protect_all(state)
    return state


def encode_state(state: State) -> bytes:
    """Return the state as bytes, in one piece."""
    return _ENCODE([msgspec.Raw(part) for part in parts(frozen(state))])


def decode_state(blob: bytes) -> State | None:
    """Return the state that was encoded in one piece, or None if it is of another version or not a snapshot at all."""
    try:
        stored = _PARTS.decode(blob)
    except msgspec.MsgspecError:
        return None
    return restored(map(bytes, stored))


def _begun(head: _Head) -> State:
    state = State(term=head.term, settings=head.settings)
    state.catalogue = Catalogue(
        services={service.aisi: service for service in head.services},
        domains={domain.name: domain for domain in head.domains},
        paths={(path.access, path.compute): path for path in head.paths},
        anchors={anchor.anchor: anchor for anchor in head.anchors},
        envelopes={(envelope.domain, envelope.segment): envelope for envelope in head.envelopes},
        suspect=head.suspect,
    )
    state.promises = Promises(key_sets=head.key_sets)
    state.audits = Audits(standings=head.standings)
    tenancy = state.tenancy
    tenancy.tenants = {tenant.tenant: tenant for tenant in head.tenants}
    tenancy.switches = {(killed.kind, killed.name): killed for killed in head.switches}
    tenancy.policies_digest = head.policies_digest
    tenancy.claims = {claim.page: claim for claim in head.claims}
    tenancy.victims = head.victims
    tenancy.meters = head.meters
    for name, (period, spent) in head.spent.items():
        account = tenancy.account(name)
        account.period, account.spent = period, spent
    return state


def _add(state: State, part: _Promised | _Found | _Sessions | _Held) -> None:
    match part:
        case _Promised(rows=originals):
            state.promises.originals.update(originals)
        case _Found(rows=findings):
            state.audits.findings.update(findings)
        case _Sessions(part=sessions):
            for session in sessions_of(sessions):
                _add_session(state, session)
        case _Held(part=held):
            for holder, reservations in held_of(held):
                for reservation in reservations:
                    _add_reservation(state, holder, reservation)


def _add_session(state: State, session: Session) -> None:
    state.sessions[session.session] = session
    if session.key:
        state.keyed[session.client, session.key] = session.session
    if session.available and session.lease is not None:
        state.live += 1
        state.tenancy.joined(session.session, session.tenant, session.intent.rate_mrps)
        state.on_anchor.setdefault(session.lease.anchor, {})[session.session] = None


def _add_reservation(state: State, holder: SessionId, reservation: Reservation) -> None:
    session = state.sessions.get(holder)
    lease = session.lease_of(reservation.epoch) if session is not None else None
    # The id as the session has it: one string, however many know it.
    holder = session.session if session is not None else holder
    state.ledger.reserve(holder, reservation)
    if lease is None or lease.phase is not LeasePhase.GRANTED:
        state.ledger.leave(holder, reservation.epoch)
