"""The southbound client: leases, revocations, heartbeats, keys and the renewal of our own identity.

Mutual TLS; the server must be of the role `controller`. Every answer is decoded into a typed document, and what does
not decode counts as no answer: the sidecar then goes on with what it knows, until it ends.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import httpx
import msgspec

from aipaging.adapters.sidecar.usage import UsageBatch
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.lease.holder import HolderState, LeaseAnswer, LeaseQuestion

ANSWER_S_MAX: Final = 2.0
"""For an ordinary answer: several times a busy controller's tail, and well below any lease worth renewing."""

WAIT_MS: Final = 20_000
"""How long the controller may hold a long poll."""

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest answer is to 512 questions, about 100 kB; a key set is smaller."""

CONNECTIONS_MAX: Final = 9
"""Four questions, one long poll, one heartbeat, one batch of counts, one renewal, one spare."""


AnchorState: TypeAlias = Literal["READY", "DRAINING", "UNHEALTHY"]
"""What an anchor may say of itself."""


class _Remaining(msgspec.Struct):
    session: str
    term: int
    n: int
    remaining_ms: int
    state: Literal["ACTIVE", "DRAINING", "ENDED"]
    current_term: int
    current_n: int


class _RemainingAnswer(msgspec.Struct):
    leases: list[_Remaining]


class RevokedEpoch(msgspec.Struct, frozen=True):
    """Epochs of `session` up to (term, n) are dead."""

    session: str
    term: int
    n: int


class Revocations(msgspec.Struct, frozen=True):
    """An answer to the long poll.

    Attributes:
        term: The controller's term.
        sequence: Where to go on from.
        entries: What died since.
        reset: Whether entries were lost; every lease has to be asked about then.
    """

    term: int
    sequence: int
    entries: list[RevokedEpoch] = []
    reset: bool = False


class HeartbeatAnswer(msgspec.Struct, frozen=True):
    """What the controller says to a heartbeat.

    Attributes:
        interval_ms: Until the next one.
        sessions: How many sessions the anchor still serves; said while it drains.
    """

    interval_ms: int
    sessions: int = 0

    @property
    def interval_s(self) -> float:
        """Seconds until the next heartbeat; more than none, whatever was said."""
        return max(self.interval_ms, 1) / 1000


class RefusedCount(msgspec.Struct, frozen=True):
    """A count that the controller does not believe.

    Attributes:
        session: Of which session.
        code: Why, as a word.
    """

    session: str
    code: str


class _UsageAnswer(msgspec.Struct):
    refused: list[RefusedCount]


class Heartbeat(msgspec.Struct, frozen=True):
    """What an anchor says of itself.

    Attributes:
        state: READY, DRAINING or UNHEALTHY.
        boot: A name of this start of the process.
        sequence: Counts heartbeats of this boot.
        in_flight: Requests at the model server.
        queued: Requests that wait for a slot.
    """

    state: AnchorState
    boot: str
    sequence: int
    in_flight: int
    queued: int


class NodeIdentity(Protocol):
    """The node's certificate, as the sidecar uses it; implemented where the programs are put together."""

    def server_context(self) -> ssl.SSLContext:
        """Return a context that asks clients for a certificate."""
        ...

    def client_context(self) -> ssl.SSLContext:
        """Return a context for the controller."""
        ...

    def role_of(self, certificate: Mapping[str, Any]) -> str:
        """Return the role of a verified peer, or raise `UnverifiedError`."""
        ...

    def renewal_request(self) -> bytes | None:
        """Return a certificate request if the certificate should be renewed by now."""
        ...

    def store(self, chain_pem: bytes) -> None:
        """Take a renewed chain, in the server's contexts too; raise where it does not fit our key."""
        ...


class Southbound(Protocol):
    """A controller, as the sidecar asks it; also a `LeaseAuthority`. What has no answer raises `UnavailableError`."""

    async def remaining(self, questions: Sequence[LeaseQuestion]) -> Sequence[LeaseAnswer]:
        """Return what remains of these leases."""
        ...

    async def revocations(self, term: int, sequence: int) -> Revocations:
        """Return what was revoked after (term, sequence); waits until there is something."""
        ...

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Say how we are."""
        ...

    async def usage(self, boot: str, batch: UsageBatch) -> Sequence[RefusedCount]:
        """Say what sessions used; return the counts that were not believed."""
        ...

    async def keys(self) -> Mapping[str, Any]:
        """Return the JWK Set of the keys that sign receipts."""
        ...

    async def renew_identity(self, request: bytes) -> None:
        """Renew our certificate and go on with it."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


Answer = TypeVar("Answer")


class ControllerClient:
    """Asks the controller over the network; a `Southbound`."""

    def __init__(
        self, url: str, anchor: AnchorId, identity: NodeIdentity, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare a client.

        Args:
            url: `https://host:port` of the controller's southbound listener.
            anchor: Our id.
            identity: Our certificate.
            transport: Replaces the network in tests.
        """
        self._url = url
        self._anchor = anchor
        self._identity = identity
        self._transport = transport
        self._client = self._connected()

    def _connected(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            verify=self._identity.client_context(),
            timeout=httpx.Timeout(ANSWER_S_MAX),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            follow_redirects=False,
            trust_env=False,
            transport=self._transport,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def remaining(self, questions: Sequence[LeaseQuestion]) -> Sequence[LeaseAnswer]:
        """Return what remains of these leases.

        Raises:
            UnavailableError: There is no answer.
        """
        asked = [{"session": q.session, "term": q.epoch.term, "n": q.epoch.n} for q in questions]
        said = await self._ask(
            _RemainingAnswer, "POST", "/steering/v1/remaining", content=msgspec.json.encode({"leases": asked})
        )
        return [
            LeaseAnswer(
                session=SessionId(lease.session),
                asked=Epoch(lease.term, lease.n),
                state=HolderState[lease.state],
                remaining_ms=lease.remaining_ms,
                current=Epoch(lease.current_term, lease.current_n),
            )
            for lease in said.leases
        ]

    async def revocations(self, term: int, sequence: int) -> Revocations:
        """Return what was revoked after (term, sequence); waits until there is something.

        Raises:
            UnavailableError: There is no answer.
        """
        return await self._ask(
            Revocations,
            "GET",
            f"/steering/v1/revocations?after={term}.{sequence}&wait_ms={WAIT_MS}",
            timeout_s=WAIT_MS / 1000 + ANSWER_S_MAX,
        )

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Say how we are.

        Raises:
            UnavailableError: There is no answer.
        """
        return await self._ask(
            HeartbeatAnswer, "PUT", f"/anchors/{self._anchor}/heartbeat", content=msgspec.json.encode(beat)
        )

    async def usage(self, boot: str, batch: UsageBatch) -> Sequence[RefusedCount]:
        """Say what sessions used; return the counts that were not believed.

        Raises:
            UnavailableError: There is no answer: the same batch has to be sent again.
        """
        used = [
            {"session": session, "requests": requests, "tokens": tokens}
            for session, (requests, tokens) in batch.used.items()
        ]
        content = msgspec.json.encode({"boot": boot, "batch": batch.number, "used": used})
        said = await self._ask(_UsageAnswer, "PUT", f"/anchors/{self._anchor}/usage", content=content)
        return said.refused

    async def keys(self) -> Mapping[str, Any]:
        """Return the JWK Set of the keys that sign receipts.

        Raises:
            UnavailableError: There is no answer.
        """
        return await self._ask(dict[str, Any], "GET", "/identity/v1/keys")

    async def renew_identity(self, request: bytes) -> None:
        """Renew our certificate and go on with it.

        Raises:
            UnavailableError: There is no answer.
            AipagingError: The answer is not a certificate for our key.
        """
        chain = await self._bytes("POST", "/identity/v1/renew", content=request, media_type="application/x-pem-file")
        await asyncio.to_thread(self._identity.store, chain)
        former, self._client = self._client, self._connected()
        await former.aclose()

    async def _ask(
        self,
        answer: type[Answer],
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        timeout_s: float = ANSWER_S_MAX,
    ) -> Answer:
        said = await self._bytes(method, path, content=content, timeout_s=timeout_s)
        try:
            return msgspec.json.decode(said, type=answer)
        except msgspec.MsgspecError:
            raise UnavailableError(
                "the controller's answer is malformed; are both sides of one version?", code="ANSWER_MALFORMED"
            ) from None

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        media_type: str = "application/json",
        timeout_s: float = ANSWER_S_MAX,
    ) -> bytes:
        headers = {} if content is None else {"content-type": media_type}
        try:
            # The client's own timeout is per read: a drip of bytes would never meet it.
            async with asyncio.timeout(timeout_s):
                request = self._client.build_request(
                    method, path, content=content, headers=headers, timeout=httpx.Timeout(timeout_s)
                )
                response = await self._client.send(request, stream=True)
                try:
                    self._check_peer(response)
                    said = await _bounded(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError, OSError, RuntimeError) as error:
            raise UnavailableError("the controller does not answer", code=_why(error)) from None
        if response.status_code != HTTPStatus.OK:
            raise UnavailableError(
                f"the controller refused with {response.status_code}", code=f"STATUS_{response.status_code}"
            )
        return said

    def _check_peer(self, response: httpx.Response) -> None:
        """Make sure that a controller answered, not another node with a certificate of the same authority."""
        stream = response.extensions.get("network_stream")
        if stream is None or self._transport is not None:
            return
        peer = stream.get_extra_info("ssl_object")
        try:
            role = "" if peer is None else self._identity.role_of(peer.getpeercert())
        except AipagingError:
            role = ""
        if role != "controller":
            raise UnavailableError("the southbound server is not a controller", code="NOT_A_CONTROLLER")


async def _bounded(response: httpx.Response) -> bytes:
    said = bytearray()
    async for piece in response.aiter_bytes():
        said += piece
        if len(said) > ANSWER_BYTES_MAX:
            raise UnavailableError("the controller's answer is too long", code="ANSWER_TOO_LONG")
    return bytes(said)


def _why(error: Exception) -> str:
    return "TIMEOUT" if isinstance(error, TimeoutError | httpx.TimeoutException) else type(error).__name__
