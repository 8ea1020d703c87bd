"""A controller without its listeners, in this process: the real engine, journal, keys and steering of memory.

Three anchors in three domains are candidates of every page; every page is admitted on a path of three domains.
Envelopes and capacities are wide, so that nothing is measured of refusals.
"""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.northbound.documents.intent import IntentDocument, intent_of
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.notes import NoteSigner
from aipaging.adapters.signing.tokens import JwtSigner
from aipaging.adapters.steering.memory import MemorySteering
from aipaging.core.anchor import catalogue as k
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import Settings
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.runtime.clock import Clock, SystemClock
from aipaging.runtime.effects import SteeringEffects
from aipaging.runtime.engine import Engine
from aipaging.runtime.garbage import collect_seldom
from aipaging.runtime.tokens import SessionTokens
from aipaging.testing.world import EMBED, accept, anchor, domain, envelope

ORIGIN: Final = "bench.example/log"
ISSUER: Final = "https://bench.example"
ACCESS: Final = "access"
TRANSPORT: Final = "metro"
COMPUTE: Final = ("edge-one", "edge-two", "edge-three")
"""Of the three candidates."""

DELAY_MS: Final = 250.0
_DOCUMENT: Final = b"""{
  "task": "embeddings", "place": "access", "delayMs": %f, "epsilon": 0.001, "ratePerSecond": 0.001, "durationS": %d
}"""
"""What a client sends; the least rate that is possible, so that a hundred thousand sessions fit anywhere."""

_INTENT: Final = msgspec.json.Decoder(IntentDocument)

ANCHOR_LOST_MS: Final = 60_000
"""Heartbeats share the loop with what is measured: a busy machine must not lose the anchors."""

WIDE: Final = 1_000_000_000
ALWAYS_US: Final = WallUs(4_102_444_800_000_000)
"""The year 2100."""


class _NoAnchors:
    """Nothing is relocated here."""

    async def prepare(self, anchor: AnchorEndpoint, session: SessionId, epoch: object) -> None:
        """Refuse: the stage has no anchors that could be prepared.

        Raises:
            AipagingError: Always.
        """
        del session, epoch
        raise AipagingError(f"{anchor.anchor} is not real", code="BENCH_BROKEN", who=Who.BUG)


def wide_catalogue() -> list[c.Command]:
    """Return the commands that make three candidates known."""
    kinds = {ACCESS: k.DomainKind.ACCESS, TRANSPORT: k.DomainKind.TRANSPORT}
    names = (ACCESS, TRANSPORT, *COMPUTE)
    service = k.Service(aisi=EMBED, task="embeddings", modality="text", model="minilm", price=20)
    promises = [replace(envelope(name), rate_mrps_max=WIDE, burst_max=WIDE, valid_until_us=ALWAYS_US) for name in names]
    anchors = [replace(anchor(f"anchor-{at}", at), capacity_mrps=WIDE) for at in COMPUTE]
    return [
        c.RegisterService(service=service),
        *(c.RegisterDomain(domain=domain(name, kinds.get(name, k.DomainKind.COMPUTE), "eu")) for name in names),
        *(
            c.RegisterPath(
                path=k.Path(access=DomainName(ACCESS), compute=DomainName(at), transport=(DomainName(TRANSPORT),))
            )
            for at in COMPUTE
        ),
        *(accept(promised) for promised in promises),
        *(c.RegisterAnchor(anchor=one) for one in anchors),
        *(c.Heartbeat(anchor=one.anchor, state=k.AnchorState.READY) for one in anchors),
    ]


def fresh_intent(duration_s: int, delay_ms: float = DELAY_MS) -> Intent:
    """Return an intent as a client's document gives it: equal to others, and made anew."""
    return intent_of(_INTENT.decode(_DOCUMENT % (delay_ms, duration_s)))


class EngineStage:
    """The engine with everything that it needs.

    Attributes:
        engine: The engine.
        tokens: Signs for its sessions.
        journal: Where its records go.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        keys = KeyStore.open(folder / "keys")
        notes = NoteSigner(keys.checkpoint_key, ORIGIN)
        self.journal = SqliteJournal(folder / "journal.db", bytes(32), verifier_keys=[notes.verifier.text])
        self.engine = Engine(
            journal=self.journal, snapshots=self.journal, signer=notes, clock=clock, writer=("bench", uuid.uuid4().hex)
        )
        self.tokens = SessionTokens(JwtSigner(keys, ISSUER))
        self._effects = SteeringEffects(self.engine, MemorySteering(self.engine.now), _NoAnchors(), self.tokens)
        self._beating: asyncio.Task[None] | None = None

    async def start(self, settings: Settings) -> None:
        """Recover, begin a term, and make the catalogue known."""
        collect_seldom()  # as `aipaging serve` does
        await self.engine.recover()
        await self.engine.start(self._effects, replace(settings, anchor_lost_ms=ANCHOR_LOST_MS), software="bench")
        for command in wide_catalogue():
            await self.engine.submit(command)
        self._beating = asyncio.create_task(self._beat(ANCHOR_LOST_MS / 3_000))

    async def _beat(self, every_s: float) -> None:
        while True:
            for at in COMPUTE:
                await self.engine.submit(c.Heartbeat(anchor=AnchorId(f"anchor-{at}"), state=k.AnchorState.READY))
            await asyncio.sleep(every_s)

    async def stop(self) -> None:
        """Stop everything."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._effects.stop()
        await self.engine.stop()

    async def page(self, duration_s: int, delay_ms: float = DELAY_MS) -> str:
        """Page one session, and return its AIST once its COMMIT is durable and its steering is in force."""
        session = await self.paged(duration_s, delay_ms)
        return self.tokens.aist(self.engine.state.sessions[session])

    async def paged(self, duration_s: int, delay_ms: float = DELAY_MS) -> SessionId:
        """The same without an AIST; return the session.

        Raises:
            AipagingError: It was refused: the stage is broken.
        """
        session = SessionId(str(uuid.uuid4()))
        reply = await self.engine.submit(
            c.Page(
                session=session,
                tenant=TenantId("bench"),
                client=ClientId("bench"),
                token_id=secrets.token_urlsafe(16),
                salt=secrets.token_bytes(16),
                intent=fresh_intent(duration_s, delay_ms),
            )
        )
        if not isinstance(reply, c.Admitted):
            raise AipagingError(f"a page was refused: {reply}", code="BENCH_BROKEN", who=Who.BUG)
        return session

    async def pages(self, count: int, *, at_once: int, duration_s: int = 3_600, different: bool = False) -> None:
        """Page so many sessions, so many of them at once.

        Args:
            count: How many.
            at_once: How many are under way.
            duration_s: How long each lasts.
            different: Whether no two ask for the same delay, so that nothing that was worked out before serves again.
        """
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self.page(duration_s, DELAY_MS + (secrets.randbelow(10**8) / 1e6 if different else 0.0))

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())


@contextlib.asynccontextmanager
async def engine_stage(folder: Path, settings: Settings, clock: Clock | None = None) -> AsyncGenerator[EngineStage]:
    """Run a stage in a folder, which may hold the journal of an earlier one."""
    stage = EngineStage(folder, clock or SystemClock())
    try:
        await stage.start(settings)
        yield stage
    finally:
        await stage.stop()
