"""Look-ups against the application itself, on virtual time; TLS and Envoy are in the tests of the real thing."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from aipaging.adapters.steering.envoy import steering_endpoint as module
from aipaging.adapters.steering.envoy.steering_endpoint import SteeringEndpoint
from aipaging.adapters.steering.envoy.table import Steered, SteeringTable
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError, UnavailableError, UnverifiedError
from aipaging.core.foundation.names import AnchorId, ClientId, GatewayId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import MS, SECOND, BootUs, WallUs
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.core.steering.grant import Fence, SteeringGrant
from aipaging.runtime.peer_identity import IDENTITY, identity_of_peercert, identity_of_uris
from aipaging.testing.clock import VirtualClock

SESSION = SessionId("00000000-0000-4000-8000-000000000001")
HOUR_US = 3_600 * SECOND
FIRST = Epoch(1, 1)


class Verifier:
    """Knows tokens of the form `good-<seconds>`."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.born_us = clock.wall_us
        self.calls = 0

    def verify_aist(self, token: str) -> AistClaims:
        self.calls += 1
        kind, _, seconds = token.partition("-")
        if kind != "good":
            raise UnverifiedError("no", code="TOKEN_SIGNATURE")
        return AistClaims(
            session=SESSION,
            tenant=TenantId("t"),
            client=ClientId("c"),
            aisi=ServiceUri("aisi://a/b/c"),
            token_id="id",
            issued_us=WallUs(self.born_us),
            expires_us=WallUs(self.born_us + int(seconds) * SECOND),
        )

    def verify_commit(self, token: str) -> CommitClaims:
        raise NotImplementedError


class Rig:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.table = SteeringTable()
        self.table.begin(1, [])
        self.verifier = Verifier(self.clock)
        self.journal: list[Epoch] = []
        self.journal_open = asyncio.Event()
        self.journal_open.set()
        self.journal_error: Exception | None = None
        self.gate = True
        self.endpoint = SteeringEndpoint(
            self.table,
            generation=lambda: "1.7",
            verifier=self.verifier,
            on_installed=self.on_installed,
            gate=lambda: self.gate,
            clock=self.clock,
        )

    async def on_installed(self, session: SessionId, anchor: AnchorId, epoch: Epoch, gateway: GatewayId) -> None:
        await self.journal_open.wait()
        if self.journal_error is not None:
            raise self.journal_error
        self.journal.append(epoch)

    def put(self, epoch: Epoch = FIRST, *, lease_ms: int = 60_000, anchor: str = "a") -> None:
        now = self.clock()
        self.table.put(
            SteeringGrant(
                session=SESSION,
                anchor=AnchorId(anchor),
                epoch=epoch,
                deadline_us=now.after(lease_ms * MS),
                token_expires_us=WallUs(now.wall_us + HOUR_US),
                receipt="r.e.c",
                rate_mrps=2_500,
                burst=4,
            )
        )

    async def ask(
        self, token: str = "good-600", *, identity: tuple[str, str] | None = ("gateway", "g1"), **scope: Any
    ) -> tuple[int, dict[bytes, bytes]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise NotImplementedError

        full = {
            "type": "http",
            "method": "GET",
            "path": "/steering/v1/look-up",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "extensions": {} if identity is None else {IDENTITY: identity},
        } | scope
        await self.endpoint(full, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"])


async def test_an_answer_carries_what_the_gateway_needs() -> None:
    rig = Rig()
    rig.put(Epoch(1, 4), lease_ms=10_000)
    rig.clock.advance_ms(4_000)
    status, headers = await rig.ask("good-5")
    assert status == 200
    assert headers == {
        b"x-aipaging-session": SESSION.encode(),
        b"x-aipaging-anchor": b"anchor:a",
        b"x-aipaging-term": b"1",
        b"x-aipaging-n": b"4",
        b"x-aipaging-lease-ms": b"5997",  # 6,000 ms less 500 ppm, rounded down
        b"x-aipaging-token-ms": b"1000",
        b"x-aipaging-generation": b"1.7",
        b"x-aipaging-commit": b"r.e.c",
        b"x-aipaging-rate-mrps": b"2500",
        b"x-aipaging-burst": b"4",
        b"content-length": b"0",
    }


async def test_an_extended_session_goes_on_under_its_new_token() -> None:
    rig = Rig()
    rig.put(lease_ms=7_300_000)
    rig.clock.advance_ms(3_600_000)  # as long as the session was to last when its COMMIT was granted
    assert (await rig.ask("good-3600"))[0] == 401
    status, headers = await rig.ask("good-7200")
    assert (status, headers[b"x-aipaging-token-ms"]) == (200, b"3600000")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"identity": None}, 403),
        ({"identity": ("anchor", "a")}, 403),
        ({"token": "bad"}, 401),
        ({"token": "good-0"}, 401),
        ({"headers": []}, 401),
        ({"headers": [(b"authorization", b"Basic good-600")]}, 401),
        ({"method": "POST"}, 405),
        ({"path": "/steering/v1/other"}, 404),
    ],
)
async def test_refusals(change: dict[str, Any], status: int) -> None:
    rig = Rig()
    rig.put()
    assert (await rig.ask(**change))[0] == status
    assert not rig.journal


async def test_no_commit_no_answer() -> None:
    rig = Rig()
    assert (await rig.ask())[0] == 403
    rig.put(lease_ms=1_000)
    rig.clock.advance_ms(1_000)
    assert (await rig.ask())[0] == 403
    rig.put(Epoch(1, 2), lease_ms=1)  # 1 ms less drift is no millisecond
    assert (await rig.ask())[0] == 403


async def test_a_closed_gate_grants_no_time_also_after_the_journal() -> None:
    rig = Rig()
    rig.put()
    rig.gate = False
    assert (await rig.ask())[0] == 503
    rig.gate = True
    rig.journal_open.clear()
    waiting = asyncio.create_task(rig.ask())
    await asyncio.sleep(0)
    rig.gate = False
    rig.journal_open.set()
    assert (await waiting)[0] == 503


async def test_a_journal_that_fails_is_no_install() -> None:
    rig = Rig()
    rig.put()
    rig.journal_error = UnavailableError("disk full")
    assert (await rig.ask())[0] == 503
    steered = rig.table.get(SESSION)
    assert steered is not None
    assert not steered.gateways
    rig.journal_error = None
    assert (await rig.ask())[0] == 200


async def test_concurrent_misses_share_one_record_and_survive_each_other() -> None:
    rig = Rig()
    rig.put()
    rig.journal_open.clear()
    tasks = [asyncio.create_task(rig.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    rig.journal_open.set()
    answers = await asyncio.gather(*tasks[1:])
    assert [status for status, _ in answers] == [200] * 4
    assert rig.journal == [Epoch(1, 1)]
    await rig.ask(identity=("gateway", "g2"))
    assert len(rig.journal) == 2


async def test_a_relocation_overtakes_an_answer() -> None:
    rig = Rig()
    rig.put()
    rig.journal_open.clear()
    waiting = asyncio.create_task(rig.ask())
    await asyncio.sleep(0)
    rig.put(Epoch(1, 2), anchor="b")
    rig.journal_open.set()
    status, headers = await waiting
    assert (status, headers[b"x-aipaging-anchor"], rig.journal) == (200, b"anchor:b", [Epoch(1, 1), Epoch(1, 2)])


async def test_a_revocation_overtakes_an_answer() -> None:
    rig = Rig()
    rig.put()
    rig.journal_open.clear()
    waiting = asyncio.create_task(rig.ask())
    await asyncio.sleep(0)
    now = rig.clock()
    rig.table.remove(Fence(session=SESSION, epoch=Epoch(1, 1), keep_until_us=now.after(SECOND)), now.boot_us)
    rig.journal_open.set()
    assert (await waiting)[0] == 403


async def test_a_token_is_verified_once_but_not_for_ever() -> None:
    rig = Rig()
    rig.put(lease_ms=900_000)
    for _ in range(3):
        await rig.ask("good-800")
    assert rig.verifier.calls == 1
    rig.clock.advance_ms(300_000)
    assert (await rig.ask("good-800"))[0] == 200
    assert rig.verifier.calls == 2
    rig.clock.advance_ms(500_000)
    assert (await rig.ask("good-800"))[0] == 401
    rig.endpoint.tokens.forget()
    assert len(rig.endpoint.tokens) == 0


async def test_the_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERIFIED_TOKENS_MAX", 3)
    rig = Rig()
    rig.put()
    for seconds in range(600, 610):
        await rig.ask(f"good-{seconds}")
    assert len(rig.endpoint.tokens) == 3


async def test_first_answers_that_wait_for_the_journal_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INSTALLS_PENDING_MAX", 1)
    rig = Rig()
    rig.put()
    rig.journal_open.clear()
    first = asyncio.create_task(rig.ask())
    await asyncio.sleep(0)
    assert (await rig.ask(identity=("gateway", "g2")))[0] == 503
    rig.journal_open.set()
    assert (await first)[0] == 200


def grants(count: int, epoch: Epoch) -> Sequence[SteeringGrant]:
    anchor, receipt = AnchorId("a"), "x" * 800
    return [
        SteeringGrant(
            session=SessionId(f"{number:08x}-0000-4000-8000-000000000000"),
            anchor=anchor,
            epoch=epoch,
            deadline_us=BootUs(10**12 + number),
            token_expires_us=WallUs(10**15 + number),
            receipt=receipt,
            rate_mrps=10_000,
            burst=8,
        )
        for number in range(count)
    ]


def test_a_session_costs_under_400_bytes_beside_its_receipt() -> None:
    many = grants(10_000, Epoch(1, 1))
    tracemalloc.start()
    table = SteeringTable()
    table.begin(1, many)
    for number, grant in enumerate(many):
        steered = table.get(grant.session)
        assert isinstance(steered, Steered)
        table.took_up(steered, GatewayId(f"g{number % 3}"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(many) < 400


def test_a_full_table_drops_what_is_over_and_otherwise_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.adapters.steering.envoy.table.SESSIONS_MAX", 5)
    table = SteeringTable()
    table.begin(1, grants(5, Epoch(1, 1)))
    more = [grants(6, Epoch(1, 1))[-1]]
    with pytest.raises(UnavailableError, match="the most that one controller"):
        table.check(more, BootUs(0))
    table.check(more, BootUs(10**12))
    assert len(table) == 4


def test_a_grant_of_an_earlier_term_is_fenced() -> None:
    table = SteeringTable()
    with pytest.raises(RefusedError, match="fenced"):
        table.begin(2, grants(1, Epoch(1, 9)))
    table.begin(2, [])
    with pytest.raises(RefusedError, match="fenced"):
        table.check(grants(1, Epoch(1, 9)), BootUs(0))


@pytest.mark.parametrize(
    ("uris", "identity"),
    [
        (["spiffe://d/gateway/g1"], ("gateway", "g1")),
        (["spiffe://d/gateway/g1", "spiffe://d/gateway/g2"], None),
        (["spiffe://other/gateway/g1"], None),
        (["spiffe://d/admin/g1"], None),
        (["spiffe://d/gateway/G 1"], None),
        (["spiffe://d/gateway/a/b"], None),
        ([], None),
    ],
)
def test_identities_of_certificates(uris: list[str], identity: tuple[str, str] | None) -> None:
    assert identity_of_uris(uris, trust_domain="d") == identity
    names = tuple(("URI", uri) for uri in uris)
    assert identity_of_peercert({"subjectAltName": names}, trust_domain="d") == identity


def test_a_connection_without_a_certificate_has_no_identity() -> None:
    assert identity_of_peercert(None, trust_domain="d") is None
