"""Sessions and reservations as rows of a snapshot: what many have in common stands once in every part.

Rows are arrays without names, a third of a kilobyte for a session. What is read back is held as it was: equal values
once, and a session's id as one string wherever it is known.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.admission import TailBound
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.lease.ledger import Reservation
from aipaging.core.lease.machine import Lease, LeasePhase
from aipaging.core.paging import shared
from aipaging.core.paging.promises import Contract
from aipaging.core.paging.session_machine import SessionPhase, StatusInfo
from aipaging.core.paging.sinks import Sink
from aipaging.core.paging.state import Charge, Relocation, Session

Value = TypeVar("Value")


class LeaseRow(msgspec.Struct, frozen=True, array_like=True):
    """A COMMIT; numbers stand for what is in the part's tables."""

    anchor: AnchorId
    path: int
    epoch: Epoch
    phase: LeasePhase
    rate_mrps: int
    granted_us: BootUs
    deadline_us: BootUs
    bound: int
    envelopes: int
    renewal: int


class SessionRow(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A session; likewise."""

    session: SessionId
    tenant: TenantId
    client: ClientId
    aisi: ServiceUri
    intent: int
    token_id: str
    salt: bytes
    phase: SessionPhase
    requested_wall_us: WallUs
    duration_ms: int
    ends_us: BootUs
    n: int
    lease: LeaseRow | None
    contract: Contract | None
    key: str = ""
    certificate: str = ""
    status_info: StatusInfo | None = None
    ended_wall_us: WallUs | None = None
    target: LeaseRow | None = None
    source: LeaseRow | None = None
    relocation: Relocation | None = None
    sink: Sink | None = None
    charge: Charge | None = None
    policies: tuple[str, ...] = ()
    metered: int = 0


class SessionsPart(msgspec.Struct, frozen=True, array_like=True):
    """Some sessions, and what they have in common."""

    intents: list[Intent]
    bounds: list[TailBound]
    paths: list[tuple[DomainName, ...]]
    envelopes: list[tuple[str, ...]]
    rows: list[SessionRow]


class HeldPart(msgspec.Struct, frozen=True, array_like=True):
    """What some sessions hold, likewise."""

    reservations: list[Reservation]
    rows: list[tuple[SessionId, tuple[int, ...]]]


class _Table(Generic[Value]):
    """Different values in the order in which they came, and the number of each."""

    __slots__ = ("_by_id", "_by_value", "values")

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._by_value: dict[Value, int] = {}
        # Most are the very object that was seen before, and need not be compared.
        self._by_id: dict[int, int] = {}

    def number(self, value: Value) -> int:
        number = self._by_id.get(id(value))
        if number is None:
            number = self._by_value.setdefault(value, len(self.values))
            if number == len(self.values):
                self.values.append(value)
            self._by_id[id(value)] = number
        return number


def sessions_part(sessions: Iterable[Session]) -> SessionsPart:
    """Return sessions as rows."""
    intents, bounds = _Table[Intent](), _Table[TailBound]()
    paths, envelopes = _Table[tuple[DomainName, ...]](), _Table[tuple[str, ...]]()

    def lease_row(lease: Lease | None) -> LeaseRow | None:
        if lease is None:
            return None
        return LeaseRow(
            lease.anchor,
            paths.number(lease.domains),
            lease.epoch,
            lease.phase,
            lease.rate_mrps,
            lease.granted_us,
            lease.deadline_us,
            bounds.number(lease.bound),
            envelopes.number(lease.envelopes),
            lease.renewal,
        )

    rows = [
        SessionRow(
            each.session,
            each.tenant,
            each.client,
            each.aisi,
            intents.number(each.intent),
            each.token_id,
            each.salt,
            each.phase,
            each.requested_wall_us,
            each.duration_ms,
            each.ends_us,
            each.n,
            lease_row(each.lease),
            each.contract,
            each.key,
            each.certificate,
            each.status_info,
            each.ended_wall_us,
            lease_row(each.target),
            lease_row(each.source),
            each.relocation,
            each.sink,
            each.charge,
            each.policies,
            each.metered,
        )
        for each in sessions
    ]
    return SessionsPart(intents.values, bounds.values, paths.values, envelopes.values, rows)


def sessions_of(part: SessionsPart) -> Iterator[Session]:
    """Yield the sessions of a part."""
    intents, bounds = list(map(shared.same_intent, part.intents)), list(map(shared.same_bound, part.bounds))
    paths, envelopes = list(map(shared.same_names, part.paths)), list(map(shared.same_names, part.envelopes))

    def lease_of(row: LeaseRow | None) -> Lease | None:
        if row is None:
            return None
        return Lease(
            anchor=shared.same_name(row.anchor),
            domains=paths[row.path],
            epoch=shared.same_epoch(row.epoch),
            phase=row.phase,
            rate_mrps=row.rate_mrps,
            granted_us=row.granted_us,
            deadline_us=row.deadline_us,
            bound=bounds[row.bound],
            envelopes=envelopes[row.envelopes],
            renewal=row.renewal,
        )

    for row in part.rows:
        yield Session(
            session=row.session,
            tenant=shared.same_name(row.tenant),
            client=shared.same_name(row.client),
            aisi=shared.same_name(row.aisi),
            intent=intents[row.intent],
            token_id=row.token_id,
            salt=row.salt,
            phase=row.phase,
            key=row.key,
            certificate=row.certificate,
            status_info=row.status_info,
            requested_wall_us=row.requested_wall_us,
            ended_wall_us=row.ended_wall_us,
            duration_ms=shared.same_duration(row.duration_ms),
            ends_us=row.ends_us,
            n=row.n,
            lease=lease_of(row.lease),
            target=lease_of(row.target),
            source=lease_of(row.source),
            relocation=row.relocation,
            contract=row.contract,
            sink=row.sink,
            charge=row.charge,
            policies=shared.same_names(row.policies),
            metered=row.metered,
        )


def held_part(held: Iterable[tuple[SessionId, tuple[Reservation, ...]]]) -> HeldPart:
    """Return what sessions hold as rows."""
    table = _Table[Reservation]()
    rows = [(session, tuple([table.number(each) for each in reservations])) for session, reservations in held]
    return HeldPart(table.values, rows)


def held_of(part: HeldPart) -> Iterator[tuple[SessionId, Sequence[Reservation]]]:
    """Yield what each session of a part holds."""
    for session, numbers in part.rows:
        yield session, [part.reservations[number] for number in numbers]
