"""The public interface over the real engine, a journal on disk, the reference user plane and real keys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.usage import SqliteUsageAccount
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.northbound.app import northbound_app, operations_of
from aipaging.adapters.northbound.credentials import ClientCredential, Role, StaticCredentials
from aipaging.adapters.northbound.evidence_desk import EvidenceDesk
from aipaging.adapters.northbound.operation import BASE, Operation
from aipaging.adapters.northbound.service import Northbound
from aipaging.adapters.northbound.usage_desk import UsageDesk
from aipaging.adapters.signing.domain_keys import DomainKeyRing
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.notes import NoteSigner
from aipaging.adapters.signing.tokens import JwtSigner, JwtVerifier
from aipaging.adapters.steering.memory import MemorySteering
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import ClientId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging.settings import Settings
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.runtime.effects import SteeringEffects
from aipaging.runtime.engine import Engine
from aipaging.runtime.envelopes import EnvelopeIntake
from aipaging.runtime.events.hub import EventHub, owner_in
from aipaging.runtime.http.routing import HttpApp
from aipaging.runtime.tokens import SessionTokens
from aipaging.testing.world import WALL_START_US, catalogue_commands

SETTINGS = Settings(
    lease=LeaseTerms(lease_ms=60_000, drift_ppm=500, grace_ms=100, drain_ms_max=100), duration_s_max=1_200
)
SECRETS: dict[str, tuple[str, str, Role]] = {
    "app-one": ("secret-of-app-one", "tenant-one", "client"),
    "app-two": ("secret-of-app-two", "tenant-two", "client"),
    "noc": ("secret-of-noc", "operator", "operator"),
}
ISSUER = "https://control.example"
INTENT: dict[str, Any] = {"task": "embeddings", "place": "access-eu", "delayMs": 250, "ratePerSecond": 10, "burst": 5}


class StillClock:
    def __init__(self) -> None:
        self.passed_us = 1_000_000

    def now(self) -> Now:
        return Now(boot_us=BootUs(self.passed_us), wall_us=WallUs(WALL_START_US + self.passed_us))

    def slept_us(self) -> int:
        return 0


class ReadyAnchors:
    async def prepare(self, anchor: AnchorEndpoint, session: SessionId, epoch: Epoch) -> None:
        return


class Rig:
    def __init__(self, directory: Path) -> None:
        self.clock = StillClock()
        keys = KeyStore.open(directory / "keys")
        self.verifier = JwtVerifier(keys.jwks(), ISSUER, clock=lambda: self.clock.now().wall_us)
        notes = NoteSigner(keys.checkpoint_key, "control.example/log")
        self.path = directory / "journal.db"
        self.journal = SqliteJournal(self.path, bytes(32), verifier_keys=[notes.verifier.text], ballast_bytes=65_536)
        self.engine = Engine(
            journal=self.journal,
            snapshots=self.journal,
            signer=notes,
            clock=self.clock,
            writer=("node-1", "boot-1"),
            eraser=self.journal,
        )
        self.steering = MemorySteering(self.clock.now)
        self.tokens = SessionTokens(JwtSigner(keys, ISSUER))
        self.effects = SteeringEffects(self.engine, self.steering, ReadyAnchors(), self.tokens)
        self.desk = EvidenceDesk(lambda: SqliteEvidenceReader(self.path))
        self.usage = UsageDesk(SqliteUsageAccount(directory / "usage.db", lambda: SqliteEvidenceReader(self.path)))
        self.hub = EventHub(
            lambda: SqliteEvidenceReader(self.path),
            owner_of=lambda session: owner_in(self.engine.state, session),
            wall_us=lambda: self.clock.now().wall_us,
        )
        self.engine.watch(self.hub)
        self.gateway = True
        self.configured: frozenset[DomainName] = frozenset()
        credentials = [
            ClientCredential(
                client_id=ClientId(client),
                tenant=TenantId(tenant),
                role=role,
                secret_sha256=sha256(secret.encode()).hexdigest(),
            )
            for client, (secret, tenant, role) in SECRETS.items()
        ]
        self.service = Northbound(
            control=self.engine,
            authenticator=StaticCredentials(credentials),
            tokens=self.tokens,
            evidence=self.desk,
            usage=self.usage,
            hub=self.hub,
            gateway_url="https://gateway.example/v1",
            public_url="https://control.example",
            issuer=ISSUER,
            jwks=keys.jwks,
            envelopes=EnvelopeIntake(
                self.engine, DomainKeyRing(directory / "envelope-keys"), configured=lambda: self.configured
            ),
            gateway_connected=lambda: self.gateway,
        )
        self.app = northbound_app(self.service)

    async def start(self) -> None:
        await self.engine.recover()
        await self.engine.start(self.effects, SETTINGS, software="test")
        await asyncio.gather(*map(self.engine.submit, catalogue_commands()))

    async def stop(self) -> None:
        self.hub.close()
        self.desk.close()
        self.usage.close()
        await self.effects.stop()
        await self.engine.stop()

    def client(self, name: str | None = "app-one") -> httpx.AsyncClient:
        headers = {} if name is None else {"authorization": f"Bearer {SECRETS[name][0]}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url=f"http://test{BASE}/", headers=headers
        )

    def operations(self) -> list[Operation]:
        return operations_of(self.service)

    def rebuilt(self) -> HttpApp:
        return northbound_app(self.service)

    async def settled(self) -> None:
        """Return when effects, and what follows from them, have come to an end: nothing was under way for a while."""
        quiet = 0
        async with asyncio.timeout(60):
            while quiet < 20:
                await asyncio.sleep(0.002)
                busy = len(self.engine._pending) or self.engine._background or self.effects._tasks
                quiet = 0 if busy else quiet + 1


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.start()
    try:
        yield rig
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await rig.stop()


@pytest.fixture
async def app_one(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("app-one") as client:
        yield client


@pytest.fixture
async def app_two(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("app-two") as client:
        yield client


@pytest.fixture
async def noc(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("noc") as client:
        yield client


@pytest.fixture
async def nobody(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client(None) as client:
        yield client
