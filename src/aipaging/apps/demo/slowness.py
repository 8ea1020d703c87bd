"""The act in which an anchor becomes slow, and the controller's audit finds out from the gateway's access log."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from aipaging.apps.demo.clients import DemoClients, Load
from aipaging.apps.demo.configuration import DOMAINS, promise
from aipaging.apps.demo.stack import ANCHORS, Stack
from aipaging.core.foundation.time import WallUs

STOPPED_S: Final = 0.35
RUNNING_S: Final = 0.05
"""The model server of the slow anchor is stopped seven eighths of the time, as on a host that sold its cores twice."""

FOUND_S_MAX: Final = 8.0
"""A few dozen requests are enough; at thirty a second that takes two or three seconds."""

FIRST_SEQUENCE: Final = 10
"""Of the envelope that the domain signs anew when its anchor is well again."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen from outside."""

    source: str
    domain: str
    target: str = ""
    relocated_ms: float = 0.0
    requests: int = 0
    sent: int = 0
    answered: int = 0
    alarmed: bool = False
    violated: list[str] = field(default_factory=list[str])
    observed: float = 0.0
    blamed: float = 0.0
    others_blamed: float = 0.0
    trust_before: int = 0
    trust_after: int = 0
    pinned_contract: str = ""

    @property
    def convicted(self) -> bool:
        """Whether the slow domain, and no other, was found, blamed and trusted less."""
        others = set(self.violated) - {self.domain, "end-to-end"}
        fair = self.blamed > 0 and self.others_blamed == 0
        return self.domain in self.violated and not others and fair and self.trust_after < self.trust_before

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


class Slowness:
    """Slows the anchor of a session, and watches what becomes of it."""

    def __init__(self, stack: Stack, clients: DemoClients, session: dict[str, Any]) -> None:
        self._stack = stack
        self._clients = clients
        self._session = session

    async def play(self, intent: Mapping[str, Any]) -> Seen:
        """Play the act; a second session may be served in the slow region alone."""
        source = (await self._clients.session(self._session))["anchorId"]
        domain = next(one.domain for one in ANCHORS if one.name == source)
        region = next(region for name, _, region, *_ in DOMAINS if name == domain)
        seen = Seen(source=source, domain=domain, target=source)
        seen.trust_before = await self._trust(domain)
        pinned = await self._clients.page(**intent, regions=[region])
        async with self._clients.load(self._session) as load, self._clients.load(pinned) as other:
            async with self._slow(source):
                await self._watched(seen, load, other)
            await asyncio.sleep(0.3)
        seen.sent = len(load.outcomes) + len(other.outcomes)
        seen.answered = seen.sent - len(load.failed) - len(other.failed)
        seen.pinned_contract = str((await self._clients.session(pinned)).get("contract", {}).get("state", ""))
        await self._judged(seen)
        await self._clients.call("DELETE", f"/sessions/{pinned['sessionId']}")
        # The anchor is well again, and its domain says so: a newer envelope takes the place of the suspect one.
        await self._clients.promise(promise(domain, sequence=FIRST_SEQUENCE, now=WallUs(time.time_ns() // 1000)))
        return seen

    async def _watched(self, seen: Seen, load: Load, other: Load) -> None:
        began_s = time.monotonic()
        before = len(load.outcomes) + len(other.outcomes)
        while time.monotonic() < began_s + FOUND_S_MAX:
            anchor = (await self._clients.session(self._session))["anchorId"]
            if anchor != seen.source and not seen.relocated_ms:
                seen.target, seen.relocated_ms = anchor, (time.monotonic() - began_s) * 1000
                seen.requests = len(load.outcomes) + len(other.outcomes) - before
            found = await self._audits()
            kinds = {one["kind"] for one in found if one["domain"] == seen.domain and one["verdict"] == "violated"}
            paths = {one["kind"] for one in found if one["domain"] == "end-to-end" and one["verdict"] == "violated"}
            if seen.relocated_ms and {"ALARM", "VERDICT"} <= kinds and "VERDICT" in paths:
                return
            await asyncio.sleep(0.05)

    async def _judged(self, seen: Seen) -> None:
        found = await self._audits()
        seen.alarmed = any(one["kind"] == "ALARM" and one["domain"] == seen.domain for one in found)
        seen.violated = sorted({one["domain"] for one in found if one["verdict"] == "violated"})
        seen.trust_after = await self._trust(seen.domain)
        for one in found:
            if one["domain"] == "end-to-end" and one["verdict"] == "violated":
                account = (await self._clients.call("GET", f"/audits/{one['auditId']}"))[1].get("attribution") or {}
                blame = {name: part["blame"] for name, part in account.get("domains", {}).items()}
                seen.observed = max(seen.observed, account.get("observed", 0.0))
                seen.blamed = max(seen.blamed, blame.pop(seen.domain, 0.0))
                seen.others_blamed += sum(blame.values())

    async def _audits(self) -> list[dict[str, Any]]:
        audits: list[dict[str, Any]] = (await self._clients.call("GET", "/audits"))[1]["audits"]
        return audits

    async def _trust(self, name: str) -> int:
        _, answer = await self._clients.call("GET", "/domains", operator=True)
        return int(next(one["trust"] for one in answer["domains"] if one["name"] == name))

    @contextlib.asynccontextmanager
    async def _slow(self, anchor: str) -> AsyncGenerator[None]:
        process = self._stack.children[f"{anchor}-upstream"].process

        async def stutter() -> None:
            try:
                while True:
                    os.kill(process.pid, signal.SIGSTOP)
                    await asyncio.sleep(STOPPED_S)
                    os.kill(process.pid, signal.SIGCONT)
                    await asyncio.sleep(RUNNING_S)
            finally:
                os.kill(process.pid, signal.SIGCONT)

        task = asyncio.create_task(stutter())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
