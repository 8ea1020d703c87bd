"""The demo as a client: the northbound API by httpx, the user plane by the official `openai` client.

The openai client never retries here: what the demo counts as answered was answered the first time.
"""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai

from aipaging.apps.demo.stack import Stack
from aipaging.core.envelope.document import EnvelopeDocument
from aipaging.core.foundation.errors import UnavailableError

BASE: Final = "/ai-paging/v0.1"
REQUEST_S_MAX: Final = 10.0
"""An embedding takes milliseconds; a request that takes longer than this has failed."""

PACE_S: Final = 0.09
"""Between two requests of one client under load: three of them stay within the session's 40 requests/s, which the
gateway enforces."""

SENTENCES: Final = (
    "The network finds the model, and proves the tail of the delay.",
    "A lease lasts at most its duration, where it is enforced.",
    "Make before break.",
    "Nothing is steered without a valid COMMIT.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request, as its client saw it; times on the monotonic clock."""

    started_s: float
    ended_s: float
    ok: bool
    why: str = ""


@dataclass(slots=True)
class Load:
    """Requests of a few concurrent clients, for as long as it is entered."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """Requests that were not answered with an embedding."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    def interruption_ms(self) -> float:
        """Return the longest time between two answers that follow each other."""
        ends = sorted(outcome.ended_s for outcome in self.outcomes if outcome.ok)
        return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=0.0) * 1000

    def answered_after(self, instant_s: float) -> list[Outcome]:
        """Return the requests that began after an instant and were answered."""
        return [outcome for outcome in self.outcomes if outcome.ok and outcome.started_s > instant_s]


class DemoClients:
    """Talks to one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._api = httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.ports.northbound}", timeout=REQUEST_S_MAX)
        # The openai package brings its own HTTP client; it is given the authority of the gateway's certificate.
        self._gateway = openai.DefaultAsyncHttpxClient(
            verify=ssl.create_default_context(cafile=str(stack.authority)), timeout=REQUEST_S_MAX
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._api.aclose()
        await self._gateway.aclose()

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, operator: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the document of a northbound call."""
        secret = self._stack.operator_secret if operator else self._stack.client_secret
        response = await self._api.request(
            method, BASE + path, json=body, headers={"authorization": f"Bearer {secret}"}
        )
        return response.status_code, response.json() if response.content else {}

    async def promise(self, document: EnvelopeDocument) -> tuple[int, dict[str, Any]]:
        """Send an envelope, signed with its domain's key, as the domain itself would; return status and answer."""
        signed = self._stack.keys_of(document.domain).signed(document)
        headers = {
            "authorization": f"Bearer {self._stack.operator_secret}",
            "content-type": "application/jose",
        }
        response = await self._api.post(f"{BASE}/envelopes", content=signed.raw, headers=headers)
        return response.status_code, response.json()

    async def page(self, **intent: Any) -> dict[str, Any]:
        """Return the session of an intent that must be admitted.

        Raises:
            UnavailableError: It was refused.
        """
        status, document = await self.call("POST", "/sessions", {"intent": intent})
        if status != 201:
            raise UnavailableError(f"the page was answered {status}: {document}", code="DEMO_PAGE_REFUSED")
        return document

    async def session(self, session: dict[str, Any]) -> dict[str, Any]:
        """Return a session as it is now."""
        return (await self.call("GET", f"/sessions/{session['sessionId']}"))[1]

    async def until_ready(self, anchors: int, limit_s: float = 30.0) -> None:
        """Wait until the gateway is connected and all anchors have been heard of.

        Raises:
            UnavailableError: That took too long.
        """
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if await self._is_ready(anchors):
                return
            await asyncio.sleep(0.1)
        raise UnavailableError(f"gateway and {anchors} anchors were not ready in {limit_s:g} s", code="DEMO_NOT_READY")

    async def _is_ready(self, anchors: int) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            if (await self._api.get("/readyz")).status_code == 200:
                _, document = await self.call("GET", "/anchors", operator=True)
                states = [anchor["state"] for anchor in document["anchors"]]
                return states.count("READY") >= anchors
        return False

    def openai(self, session: dict[str, Any]) -> openai.AsyncOpenAI:
        """Return the official client, pointed at the gateway with the session's AIST as its key."""
        return openai.AsyncOpenAI(
            base_url=session["gatewayUrl"] + "/v1",
            api_key=session["aist"],
            http_client=self._gateway,
            max_retries=0,
            timeout=REQUEST_S_MAX,
        )

    async def embed(self, session: dict[str, Any], text: str) -> list[float]:
        """Return the embedding of a text by way of the gateway."""
        answer = await self.openai(session).embeddings.create(
            model="all-MiniLM-L6-v2", input=text, encoding_format="float"
        )
        return answer.data[0].embedding

    async def try_embed(self, session: dict[str, Any], text: str) -> Outcome:
        """Return how a request went."""
        started_s = time.monotonic()
        try:
            await self.embed(session, text)
        except openai.APIError as error:
            why = f"{type(error).__name__}: {str(error)[:120]}"
            return Outcome(started_s=started_s, ended_s=time.monotonic(), ok=False, why=why)
        return Outcome(started_s=started_s, ended_s=time.monotonic(), ok=True)

    @contextlib.asynccontextmanager
    async def load(self, session: dict[str, Any], *, clients: int = 3) -> AsyncGenerator[Load]:
        """Send requests with a few concurrent clients until the block ends."""
        load = Load()
        over = asyncio.Event()

        async def one(number: int) -> None:
            while not over.is_set():
                outcome = await self.try_embed(session, SENTENCES[number % len(SENTENCES)])
                load.outcomes.append(outcome)
                await asyncio.sleep(max(0.0, outcome.started_s + PACE_S - time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(one(number))
            try:
                yield load
            finally:
                over.set()
