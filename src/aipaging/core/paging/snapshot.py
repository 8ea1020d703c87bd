"""The state as bytes, so that recovery need not replay from the beginning.

A snapshot is a convenience: evidence never depends on it, and what can be derived (sums, indexes, the agenda) is
left out of it and derived again.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from aipaging.core.anchor.catalogue import Anchor, Catalogue, Domain, Path, Service
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.identity.tenant import Tenant
from aipaging.core.lease.ledger import Ledger, Reservation
from aipaging.core.lease.machine import LeasePhase
from aipaging.core.paging.promises import KeySet, Original, Promises
from aipaging.core.paging.protection import protect_all
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.standing import Audits, Finding, Standing
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy_events import Claim, SwitchKilled

SNAPSHOT_VERSION: Final = 1
"""A snapshot of another version is not read: the journal is replayed instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    session: SessionId
    epoch: Epoch
    reservation: Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    version: int
    term: int
    settings: Settings
    services: list[Service]
    domains: list[Domain]
    paths: list[Path]
    anchors: list[Anchor]
    envelopes: list[Envelope]
    sessions: list[Session]
    held: list[_Held]
    suspect: dict[str, str] = field(default_factory=dict[str, str])
    originals: dict[str, Original] = field(default_factory=dict[str, Original])
    key_sets: dict[DomainName, KeySet] = field(default_factory=dict[DomainName, KeySet])
    findings: dict[str, Finding] = field(default_factory=dict[str, Finding])
    standings: dict[DomainName, Standing] = field(default_factory=dict[DomainName, Standing])
    tenants: list[Tenant] = field(default_factory=list[Tenant])
    spent: dict[TenantId, tuple[int, int]] = field(default_factory=dict[TenantId, tuple[int, int]])
    switches: list[SwitchKilled] = field(default_factory=list[SwitchKilled])
    policies_digest: str = ""
    meters: dict[AnchorId, dict[str, int]] = field(default_factory=dict[AnchorId, dict[str, int]])
    claims: list[Claim] = field(default_factory=list[Claim])
    victims: dict[SessionId, SessionId] = field(default_factory=dict[SessionId, SessionId])


_DECODER: Final = msgspec.msgpack.Decoder(_Snapshot)


def encode_state(state: State) -> bytes:
    """Return the state as bytes."""
    catalogue = state.catalogue
    return msgspec.msgpack.encode(
        _Snapshot(
            version=SNAPSHOT_VERSION,
            term=state.term,
            settings=state.settings,
            services=list(catalogue.services.values()),
            domains=list(catalogue.domains.values()),
            paths=list(catalogue.paths.values()),
            anchors=list(catalogue.anchors.values()),
            envelopes=list(catalogue.envelopes.values()),
            sessions=list(state.sessions.values()),
            held=[
                _Held(session=session, epoch=epoch, reservation=reservation)
                for (session, epoch), reservation in state.ledger.reservations.items()
            ],
            suspect=catalogue.suspect,
            originals=state.promises.originals,
            key_sets=state.promises.key_sets,
            findings=state.audits.findings,
            standings=state.audits.standings,
            tenants=list(state.tenancy.tenants.values()),
            spent={name: (each.period, each.spent) for name, each in state.tenancy.accounts.items() if each.period},
            switches=list(state.tenancy.switches.values()),
            policies_digest=state.tenancy.policies_digest,
            meters=state.tenancy.meters,
            claims=list(state.tenancy.claims.values()),
            victims=state.tenancy.victims,
        )
    )


def decode_state(blob: bytes) -> State | None:
    """Return the state that was encoded, or None if it is of another version or not a snapshot at all."""
    try:
        snapshot = _DECODER.decode(blob)
    except msgspec.MsgspecError:
        return None
    if snapshot.version != SNAPSHOT_VERSION:
        return None
    state = State(term=snapshot.term, settings=snapshot.settings, ledger=Ledger())
    state.catalogue = Catalogue(
        services={service.aisi: service for service in snapshot.services},
        domains={domain.name: domain for domain in snapshot.domains},
        paths={(path.access, path.compute): path for path in snapshot.paths},
        anchors={anchor.anchor: anchor for anchor in snapshot.anchors},
        envelopes={(envelope.domain, envelope.segment): envelope for envelope in snapshot.envelopes},
        suspect=snapshot.suspect,
    )
    state.promises = Promises(originals=snapshot.originals, key_sets=snapshot.key_sets)
    state.audits = Audits(findings=snapshot.findings, standings=snapshot.standings)
    for each in snapshot.sessions:
        state.sessions[each.session] = each
        if each.key:
            state.keyed[each.client, each.key] = each.session
        if each.available and each.lease is not None:
            state.live += 1
            state.tenancy.joined(each.session, each.tenant, each.intent.rate_mrps)
            state.on_anchor.setdefault(each.lease.anchor, {})[each.session] = None
    _tenancy(state, snapshot)
    _held(state, snapshot)
    protect_all(state)
    return state


def _held(state: State, snapshot: _Snapshot) -> None:
    for held in snapshot.held:
        session = state.sessions.get(held.session)
        reservation = held.reservation
        if session is not None and not reservation.tenant:
            # Written before reservations named their tenant; the session does.
            reservation = replace(reservation, tenant=session.tenant, burst=session.intent.burst)
        state.ledger.reserve(held.session, held.epoch, reservation)
        lease = session.lease_of(held.epoch) if session is not None else None
        if lease is None or lease.phase is not LeasePhase.GRANTED:
            state.ledger.leave(held.session, held.epoch)


def _tenancy(state: State, snapshot: _Snapshot) -> None:
    tenancy = state.tenancy
    tenancy.tenants = {tenant.tenant: tenant for tenant in snapshot.tenants}
    tenancy.switches = {(killed.kind, killed.name): killed for killed in snapshot.switches}
    tenancy.policies_digest = snapshot.policies_digest
    tenancy.claims = {claim.page: claim for claim in snapshot.claims}
    tenancy.victims = snapshot.victims
    tenancy.meters = snapshot.meters
    for name, (period, spent) in snapshot.spent.items():
        account = tenancy.account(name)
        account.period, account.spent = period, spent
