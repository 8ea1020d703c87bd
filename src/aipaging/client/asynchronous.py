"""The asynchronous client: the blocking one, but for how it waits."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx

from aipaging.adapters.northbound.documents.catalogue import ServiceList
from aipaging.adapters.northbound.documents.intent import IntentDocument
from aipaging.adapters.northbound.documents.session import Resolution, SessionDocument
from aipaging.adapters.northbound.documents.wording import Interpretation
from aipaging.client import flows
from aipaging.client.blocking import PER_PAGE, TIMEOUT_S
from aipaging.client.calls import Call, Flow, Received, base_url, pause_s
from aipaging.client.credentials import BearerSecret, Credential
from aipaging.client.fields import IntentFields
from aipaging.client.held import HeldSession, SessionFace, openai_package, trust
from aipaging.core.foundation.errors import UnavailableError

if TYPE_CHECKING:
    import openai

T = TypeVar("T")


class AsyncClient:
    """Talks to one controller, from one event loop.

    Example:
        async with AsyncClient("https://control.example", credential=ClientSecret("app", secret)) as client:
            async with await client.page(task="embeddings", place="access-paris", delay_ms=250) as session:
                await session.openai().embeddings.create(model="all-MiniLM-L6-v2", input="make before break")
    """

    def __init__(
        self,
        url: str,
        *,
        credential: Credential | str,
        ca: Path | str | None = None,
        gateway_ca: Path | str | None = None,
        certificate: tuple[Path | str, Path | str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Take where to call and with what.

        Args:
            url: Of the controller's interface, without a path.
            credential: A bearer secret, or an OAuth2 credential.
            ca: PEM file of whom to trust for the controller; None for the system's.
            gateway_ca: Likewise for the gateway, in `session.openai()`; None: as `ca`.
            certificate: PEM files of a certificate and its key: where the operator trusts it, sessions are bound to it,
                so that a stolen session token is of no use.
            timeout_s: For each answer.

        Raises:
            InvalidInputError: The URL is none.
        """
        self._credential = BearerSecret(credential) if isinstance(credential, str) else credential
        self._gateway_tls = partial(trust, gateway_ca or ca, certificate)
        self._http = httpx.AsyncClient(base_url=base_url(url), verify=trust(ca, certificate), timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; sessions go on until they end."""
        await self._http.aclose()

    async def resolve(
        self, intent: IntentDocument | Mapping[str, Any] | None = None, **fields: Unpack[IntentFields]
    ) -> Resolution:
        """Return every candidate for an intent, with its bound or its reason; commits to nothing.

        Args:
            intent: The intent, as a document or in wire names; or
            **fields: its fields, such as `task`, `place`, `delay_ms`, `rate_per_second`.

        Raises:
            InvalidInputError: The intent is not one.
        """
        return await self.run(flows.resolve(flows.intent_from(intent, fields)))

    async def interpret(self, text: str, **known: Any) -> Interpretation:
        """Return what a sentence was read as; `known` are fields in wire names that hold against it."""
        return await self.run(flows.interpret(text, known))

    async def page(
        self, intent: IntentDocument | Mapping[str, Any] | None = None, *, key: str = "", **fields: Unpack[IntentFields]
    ) -> "AsyncPagedSession":
        """Page an intent: a session, or the reasons why there is none.

        Args:
            intent: The intent, as a document or in wire names; or
            key: Idempotency key: the same one again gives the same session, whatever happened to the first answer.
            **fields: its fields.

        Raises:
            InvalidInputError: The intent is not one.
            RefusedWithReasonsError: No candidate was admitted; `details["candidates"]` says why each was not.
            UnavailableError: The controller did not answer, in several attempts.
        """
        asked_s = time.monotonic()
        document = await self.run(flows.page(flows.intent_from(intent, fields), key or flows.new_key()))
        return AsyncPagedSession(self, HeldSession.of(document, asked_s), self._gateway_tls)

    async def read(self, session: str) -> SessionDocument:
        """Return a session."""
        return await self.run(flows.read(session))

    async def sessions(self, **filters: str) -> AsyncIterator[SessionDocument]:
        """Yield every session that matches; filters are in wire names, such as `status`."""
        number = 1
        while True:
            found = await self.run(flows.listed(filters, number, PER_PAGE))
            for session in found.sessions:
                yield session
            if number * PER_PAGE >= found.pagination.total_count:
                return
            number += 1

    async def services(self) -> ServiceList:
        """Return what is on offer."""
        return await self.run(flows.services())

    async def run(self, flow: Flow[T]) -> T:
        """Carry a flow out: send what it yields, and return what it returns."""
        try:
            call = next(flow)
            while True:
                call = flow.send(await self._sent(call))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def _sent(self, call: Call) -> Received:
        attempt = 0
        while True:
            attempt += 1
            received, failure = await self._once(call)
            wait_s = pause_s(call, attempt, received, random.random())  # noqa: S311 - spreads load, hides nothing
            if wait_s is None and received is not None:
                return received
            if wait_s is None:
                raise UnavailableError(
                    f"no answer from {self._http.base_url} ({failure})", code="CONTROLLER_UNREACHABLE"
                ) from failure
            await asyncio.sleep(wait_s)

    async def _once(self, call: Call) -> tuple[Received | None, httpx.TransportError | ssl.SSLError | None]:
        bearer = await self._bearer() if call.authenticated else ""
        try:
            answer = await self._http.request(
                call.method, call.url_path, content=call.body(), data=call.form, headers=call.headers(bearer)
            )
        except (httpx.TransportError, ssl.SSLError) as error:  # an alert after the handshake is not wrapped
            return None, error
        return Received(status=answer.status_code, content=answer.content, headers=answer.headers), None

    async def _bearer(self) -> str:
        bearer = self._credential.bearer(time.monotonic())
        if bearer is None:
            await self.run(self._credential.fetch(time.monotonic()))
            bearer = self._credential.bearer(time.monotonic())
        return bearer or ""


class AsyncPagedSession(SessionFace):
    """A session and its token. Renewal and relocation are the network's business and do not show here."""

    def __init__(self, client: AsyncClient, held: HeldSession, gateway_tls: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(held, gateway_tls)
        self._client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.end()

    async def token(self) -> str:
        """Return the session's token (AIST), after extending the session if it is about to end.

        Raises:
            RefusedError: The session has been ended.
        """
        self._held.present_token()
        if self._held.must_extend(time.monotonic()):
            await self.extend(self._held.step_s)
        return self._held.token

    async def refresh(self) -> SessionDocument:
        """Ask for the session as it is now."""
        self._held.take(await self._client.run(flows.read(self.id)))
        return self.document

    async def extend(self, additional_s: int) -> SessionDocument:
        """Let it last longer; capped by the operator."""
        self._held.take(await self._client.run(flows.extend(self.id, additional_s)))
        return self.document

    async def relocate(self) -> SessionDocument:
        """Ask for a move to the best other anchor; requests go on meanwhile."""
        self._held.take(await self._client.run(flows.relocate(self.id)))
        return self.document

    async def end(self) -> None:
        """End it; once is enough."""
        if self._held.token:
            self._held.token = ""
            await self._client.run(flows.end(self.id))

    def openai(self, **options: Any) -> "openai.AsyncOpenAI":
        """Return an official `openai` client for this session; its key is always the session's present token.

        Args:
            **options: For `openai.AsyncOpenAI`, such as `max_retries` or `timeout`.

        Raises:
            UnavailableError: The package `openai` is not installed.
        """
        package = openai_package()
        options.setdefault("http_client", package.DefaultAsyncHttpxClient(verify=self._gateway_tls()))
        found: openai.AsyncOpenAI = package.AsyncOpenAI(
            base_url=f"{self.gateway_url}/v1", api_key=self.token, **options
        )
        return found
