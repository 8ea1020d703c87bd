"""The acts of the demo: each does one thing with the real system and says what it saw."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import openai

from aipaging.adapters.minilm import reference
from aipaging.apps.demo.clients import SENTENCES, DemoClients, Load
from aipaging.apps.demo.configuration import DOMAINS, LEASE_MS, promise
from aipaging.apps.demo.slowness import Slowness
from aipaging.apps.demo.stack import ANCHORS, Stack
from aipaging.core.foundation.time import WallUs

EMBED: Final[dict[str, Any]] = {
    "task": "embeddings",
    "language": "en",
    "place": "access-paris",
    "delayMs": 250,
    "epsilon": 0.001,
    "ratePerSecond": 40,
    "burst": 8,
    "durationS": 600,
}
"""Embed English text, p99.9 under 250 ms, 40 requests/s, from Paris."""

STREAM: Final[dict[str, Any]] = {
    **{key: value for key, value in EMBED.items() if key != "language"},
    "task": "chat",
    "delayScope": "FIRST_TOKEN",
    "durationS": 4,
}
"""A stream of tokens in a session of 4 s."""

ERROR_MAX: Final = 1e-5
"""Single precision on a network of six layers stays well below; int8 or another model would be far above."""

STREAM_CUT_MS_MAX: Final = 250.0
"""What the demo accepts between the end of a lease and the last token; `aipaging bench expiry` measures it well."""

RECOVERED_MS_MAX: Final = 6_000.0
"""A lost anchor is noticed after 1.5 s of silence; the rest is relocation, on a machine that does everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that had to hold."""

    check: str
    ok: bool
    seen: str


@dataclass(slots=True)
class Story:
    """What has been seen so far.

    Attributes:
        say: Tells a line to whoever watches.
        checks: What had to hold.
        result: The document of `--json`.
    """

    say: Callable[[str], None]
    checks: list[Check] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0

    def check(self, check: str, seen: str, *, ok: bool) -> None:
        """Note a check, and tell it."""
        self.checks.append(Check(check=check, ok=ok, seen=seen))
        self.say(f"  {'[green]held[/]' if ok else '[red]FAILED[/]'}  {check}: {seen}")

    def count(self, sent: int, answered: int) -> None:
        """Add requests that had to be answered; those that something was killed under are told in their own act."""
        self.sent += sent
        self.answered += answered


class Acts:
    """The acts, in order."""

    def __init__(self, stack: Stack, clients: DemoClients, story: Story) -> None:
        self._stack = stack
        self._clients = clients
        self._story = story
        self._session: dict[str, Any] = {}

    async def play(self) -> None:
        """Play every act."""
        for act in (
            self._promise,
            self._page,
            self._refuse,
            self._embed,
            self._relocate,
            self._worsen,
            self._slow_anchor,
            self._lose_anchor,
            self._expire,
            self._kill_controller,
            self._verify,
        ):
            await act()
        story = self._story
        story.result["requests"] = {
            "sent": story.sent,
            "ok": story.answered,
            "failed": story.sent - story.answered,
        }

    async def _promise(self) -> None:
        self._story.say("[bold]1. Every domain promises its tail[/], signed with its own key")
        now = WallUs(time.time_ns() // 1000)
        answers = [await self._clients.promise(promise(name, now=now)) for name, *_ in DOMAINS]
        again, refusal = await self._clients.promise(promise(DOMAINS[0][0], now=now))
        forged = promise("edge-paris", sequence=2, offset_ms=1.0, now=now)
        raw = self._stack.keys_of("edge-dublin").signed(forged).raw.decode()
        status, foreign = await self._clients.call("POST", "/envelopes", {"envelope": raw}, operator=True)
        self._story.result["envelopes"] = {
            "accepted": sum(status == 201 for status, _ in answers),
            "refused": [refusal.get("code"), foreign.get("code")],
        }
        self._story.check(
            "signed envelopes come into force",
            f"{len(answers)} domains, keys " + ", ".join(str(one.get("keyId", "?"))[:6] for _, one in answers),
            ok=all(status == 201 for status, _ in answers),
        )
        self._story.check(
            "a replay and a promise for somebody else do not",
            f"{again} {refusal.get('code')}; {status} {foreign.get('code')}",
            ok=(refusal.get("code"), foreign.get("code"))
            == ("AI_PAGING.ENVELOPE_REPLAYED", "AI_PAGING.ENVELOPE_KEY_FOREIGN"),
        )

    async def _worsen(self) -> None:
        self._story.say("[bold]6. The edge that serves the session promises less[/]: its new envelope cannot carry it")
        await self._until_source_released()
        before = await self._clients.session(self._session)
        edge = next(one.domain for one in ANCHORS if one.name == before["anchorId"])
        number = before["relocation"]["number"]
        now = WallUs(time.time_ns() // 1000)
        async with self._clients.load(self._session) as load:
            await asyncio.sleep(0.3)
            await self._clients.promise(promise(edge, sequence=2, offset_ms=240.0, now=now))
            relocation = await self._until_relocated(after=number)
            await asyncio.sleep(0.3)
        after = await self._clients.session(self._session)
        self._story.count(len(load.outcomes), len(load.outcomes) - len(load.failed))
        self._story.result["superseded"] = {
            "cause": relocation.get("cause"),
            "phase": relocation["phase"],
            "requests_failed": len(load.failed),
            "contract": after.get("contract", {}).get("state"),
        }
        seen = f"{before['anchorId']} -> {after['anchorId']}, {relocation.get('cause')}, {len(load.failed)} failed"
        self._story.check(
            "the session moves to where its promise is a theorem",
            f"{seen}, contract {after.get('contract', {}).get('state')}",
            ok=relocation.get("cause") == "CONTRACT_UNPROVABLE"
            and after["anchorId"] != before["anchorId"]
            and after.get("contract", {}).get("state") == "HELD"
            and after["bound"]["epsilonBound"] <= after["bound"]["epsilon"]
            and not load.failed,
        )
        await self._clients.promise(promise(edge, sequence=3, now=now))

    async def _slow_anchor(self) -> None:
        self._story.say(
            "[bold]7. The anchor that serves the session becomes slow[/]: its envelope says nothing of that"
        )
        await self._until_source_released()
        slowness = Slowness(self._stack, self._clients, self._session)
        seen = await slowness.play({**EMBED, "ratePerSecond": 40})
        self._story.count(seen.sent, seen.answered)
        self._story.result["audit"] = seen.document()
        self._story.check(
            "the audit alarms, and requests go to the other anchor",
            f"{seen.source} -> {seen.target} {seen.relocated_ms:.0f} ms and {seen.requests} requests after the fault; "
            f"{seen.sent - seen.answered} failed",
            ok=seen.alarmed and seen.target != seen.source and seen.sent == seen.answered,
        )
        self._story.check(
            "the verdict is about the slow domain alone, and so is the blame",
            f"{', '.join(seen.violated)} violated; of {seen.observed:.1%} late {seen.blamed:.1%} are blamed on "
            f"{seen.domain}; trust {seen.trust_before} -> {seen.trust_after}",
            ok=seen.convicted,
        )
        self._story.check(
            "a session that may not leave is told",
            f"contract {seen.pinned_contract}",
            ok=seen.pinned_contract == "DEGRADED",
        )

    async def _page(self) -> None:
        self._story.say(
            '[bold]2. Page an intent[/]: "embed English text, p99.9 under 250 ms, 40 requests/s, from Paris"'
        )
        paged = [await self._clients.page(**EMBED) for _ in range(2)]
        paged.append(await self._clients.page(**{**STREAM, "durationS": 600}))
        self._session = paged[0]
        self._story.result["sessions"] = [
            {
                "aisi": one["aisi"],
                "anchor": one["anchorId"],
                "delay_ms": one["bound"]["delayMs"],
                "epsilon": one["bound"]["epsilon"],
                "epsilon_bound": one["bound"]["epsilonBound"],
            }
            for one in paged
        ]
        bound = self._session["bound"]
        for part in bound["budget"]:
            self._story.say(f"     {part['domain']:<14} {part['delayMs']:7.1f} ms  {part['epsilon']:.2e}")
        held = all(one["bound"]["epsilonBound"] <= one["bound"]["epsilon"] for one in paged)
        seen = f"P(delay > {bound['delayMs']:g} ms) <= {bound['epsilonBound']:.2e} at {self._session['anchorId']}"
        self._story.check("every admitted session carries a bound within its epsilon", seen, ok=held)

    async def _refuse(self) -> None:
        self._story.say("[bold]3. An intent that nobody can promise[/]: p99.9 under 20 ms")
        status, refusal = await self._clients.call("POST", "/sessions", {"intent": {**EMBED, "delayMs": 20}})
        candidates = refusal.get("candidates", [])
        self._story.result["refused"] = [
            {
                "constraint": refusal.get("constraint", ""),
                "message": refusal.get("message", ""),
                "candidates": candidates,
            }
        ]
        named = bool(candidates) and all(one.get("rejection") for one in candidates)
        seen = f"{status} {refusal.get('code')}: {refusal.get('message')}"
        self._story.check(
            "it is refused, and every candidate says why", seen, ok=named and refusal["constraint"] == "DELAY"
        )

    async def _embed(self) -> None:
        self._story.say("[bold]4. Real requests with the official openai client, through Envoy[/]")
        wanted = await asyncio.to_thread(reference.embed, SENTENCES)
        error = 0.0
        for text, row in zip(SENTENCES, wanted, strict=True):
            served = await self._clients.embed(self._session, text)
            error = max(error, *(abs(float(a) - float(b)) for a, b in zip(served, row, strict=True)))
        self._story.count(len(SENTENCES), len(SENTENCES))
        self._story.result["embedding"] = {"max_abs_error_vs_reference": error}
        self._story.check("embeddings are the model's own", f"largest difference {error:.1e}", ok=error <= ERROR_MAX)

    async def _relocate(self) -> None:
        self._story.say("[bold]5. Move the session under load[/], make-before-break")
        source = (await self._clients.session(self._session))["anchorId"]
        async with self._clients.load(self._session) as load:
            await asyncio.sleep(1.0)
            await self._clients.call("POST", f"/sessions/{self._session['sessionId']}/relocate", {})
            relocation = await self._until_relocated()
            await asyncio.sleep(1.0)
        self._story.count(len(load.outcomes), len(load.outcomes) - len(load.failed))
        moved = relocation["phase"] in {"SWITCHED", "SOURCE_RELEASED"}
        self._story.result["relocation"] = {
            "phase": relocation["phase"],
            "requests_failed": len(load.failed),
            "interruption_ms_max": round(load.interruption_ms(), 1),
        }
        seen = (
            f"{source} -> {relocation.get('targetAnchorId')}, {len(load.outcomes)} requests, "
            f"{len(load.failed)} failed, longest pause {load.interruption_ms():.0f} ms"
        )
        self._story.check("no request fails", seen, ok=moved and not load.failed)

    async def _until_relocated(self, limit_s: float = 10.0, *, after: int = 0) -> dict[str, Any]:
        relocation: dict[str, Any] = {"phase": "NONE"}
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            relocation = (await self._clients.session(self._session)).get("relocation", relocation)
            if relocation.get("number", 0) > after and relocation["phase"] in {"SWITCHED", "SOURCE_RELEASED", "FAILED"}:
                break
            await asyncio.sleep(0.02)
        return relocation

    async def _lose_anchor(self) -> None:
        self._story.say("[bold]8. Kill the anchor that serves the session[/] (SIGKILL to its sidecar)")
        await self._until_source_released()
        anchor = (await self._clients.session(self._session))["anchorId"]
        place = next(i for i, one in enumerate(ANCHORS) if one.name == anchor)
        async with self._clients.load(self._session) as load:
            await asyncio.sleep(0.5)
            killed_s = time.monotonic()
            self._stack.children[anchor].kill()
            recovered_s = await self._until_answered(load, killed_s)
            await asyncio.sleep(0.5)
        now_at = (await self._clients.session(self._session))["anchorId"]
        recovered_ms = round((recovered_s - killed_s) * 1000, 1)
        self._story.result["anchor_loss"] = {"recovered_ms": recovered_ms, "requests_failed": len(load.failed)}
        seen = f"{anchor} -> {now_at} after {recovered_ms:.0f} ms, {len(load.failed)} requests failed meanwhile"
        ok = now_at != anchor and recovered_ms <= RECOVERED_MS_MAX
        self._story.check("the session moves to a living anchor by itself", seen, ok=ok)
        await self._stack.start_sidecar(place)
        await self._clients.until_ready(len(ANCHORS))

    async def _until_source_released(self, limit_s: float = 10.0) -> None:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if (await self._clients.session(self._session))["relocation"]["phase"] == "SOURCE_RELEASED":
                return
            await asyncio.sleep(0.1)

    async def _until_answered(self, load: Load, since_s: float, limit_s: float = 20.0) -> float:
        """Return when the first request that began after a failure was answered."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            failed = [outcome.started_s for outcome in load.failed if outcome.started_s >= since_s - 0.1]
            answered = load.answered_after(min(failed)) if failed else []
            if answered:
                return min(outcome.ended_s for outcome in answered)
            await asyncio.sleep(0.02)
        return time.monotonic()

    async def _expire(self) -> None:
        self._story.say("[bold]9. Let a lease expire while a stream runs[/]: a session of 4 s, a stream of 16 s")
        session = await self._clients.page(**STREAM)
        # The wall clocks of client and controller are one here; the session's end is what it was told.
        ends_s = datetime.fromisoformat(session["expiresAt"]).timestamp()
        tokens, last_s, ending = await self._streamed(session)
        late_ms = round((last_s - ends_s) * 1000, 1)
        after = [await self._clients.try_embed(session, "too late") for _ in range(5)]
        served = sum(outcome.ok for outcome in after)
        self._story.result["expiry"] = {"requests_served_after_expiry": served, "stream_cut_late_ms": max(0.0, late_ms)}
        seen = (
            f"{tokens} tokens, the last {abs(late_ms):.0f} ms {'after' if late_ms > 0 else 'before'} the end; {ending}"
        )
        self._story.check(
            "the stream is cut at the lease's end, as an error",
            seen,
            ok=ending != "ended well" and late_ms <= STREAM_CUT_MS_MAX,
        )
        self._story.check("nothing is served afterwards", f"{served} of 5 requests", ok=served == 0)

    async def _streamed(self, session: dict[str, Any]) -> tuple[int, float, str]:
        """Return how many tokens came, when the last one did, and how the stream ended."""
        tokens, last_s = 0, time.time()
        try:
            stream = await self._clients.openai(session).chat.completions.create(
                model="load-generator",
                messages=[{"role": "user", "content": "go on"}],
                stream=True,
                max_tokens=400,
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    tokens, last_s = tokens + 1, time.time()
        except (openai.APIError, OSError) as error:
            return tokens, last_s, f"ended with {type(error).__name__}: {str(error)[:60]}"
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, the stream did not end well
            return tokens, last_s, f"ended with {type(error).__name__}"
        return tokens, last_s, "ended well"

    async def _kill_controller(self) -> None:
        self._story.say("[bold]10. Kill the controller[/] (SIGKILL), and see the steering die on time")
        async with self._clients.load(self._session) as load:
            await asyncio.sleep(1.0)
            self._stack.children["controller"].kill()
            killed_s = time.monotonic()
            await asyncio.sleep(LEASE_MS / 1000 + 2.0)
        # The last lease was answered before the kill, so nothing may be steered longer than one lease after it.
        late = load.answered_after(killed_s + LEASE_MS / 1000)
        meanwhile = load.answered_after(killed_s)
        self._story.result["controller_killed"] = {
            "requests_served_after_expiry": len(late),
            "requests_served_meanwhile": len(meanwhile),
        }
        seen = f"{len(meanwhile)} requests served under the lease that was left, {len(late)} after it"
        self._story.check(
            "the user plane outlives the controller, but not the lease", seen, ok=not late and bool(meanwhile)
        )
        await self._stack.start_controller()
        await self._clients.until_ready(len(ANCHORS))
        again = await self._answered_again()
        self._story.check("restarted, it serves the same session again", "same AIST, same client", ok=again)

    async def _answered_again(self, limit_s: float = 10.0) -> bool:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            outcome = await self._clients.try_embed(self._session, SENTENCES[0])
            if outcome.ok:
                return True
            await asyncio.sleep(0.1)
        return False

    async def _verify(self) -> None:
        self._story.say("[bold]11. Verify the evidence[/], offline, from the file alone")
        command = [sys.executable, "-m", "aipaging.apps.cli", "evidence", "verify", str(self._stack.journal), "--json"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        verdict: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            verdict = json.loads(done.stdout)
        keys = ("records", "chain_ok", "tree_ok", "signatures_ok", "invariants_ok", "first_bad")
        self._story.result["evidence"] = {key: verdict.get(key) for key in keys}
        seen = f"{verdict.get('records')} records"
        if done.returncode:
            seen += f": {verdict.get('first_bad') or done.stdout[:200] or done.stderr[-200:]}"
        self._story.check("chain, tree, signatures and invariants hold", seen, ok=done.returncode == 0)
