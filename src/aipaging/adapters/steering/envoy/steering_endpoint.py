"""The answer to a gateway's look-up: the anchor, the remaining lease, the epoch. A raw ASGI application.

For a cache that pulls, answering *is* installing. So the first answer per (session, epoch, gateway) is journalled
before it is sent, and after every wait the table is read again: what was revoked meanwhile is not answered.

Left out: TLS and the peer's certificate (`runtime.peer_identity`), the listener and its other routes (the server).
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from aipaging.adapters.steering.envoy.resources import cluster_name
from aipaging.adapters.steering.envoy.table import Steered, SteeringTable
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, UnavailableError, UnverifiedError
from aipaging.core.foundation.names import GatewayId, SessionId
from aipaging.core.foundation.time import MS, SECOND, Now, WallUs, shrunk_us
from aipaging.core.identity.claims import AistClaims
from aipaging.ports.signing import TokenVerifier
from aipaging.ports.steering import OnInstalled
from aipaging.runtime.peer_identity import IDENTITY

LOOK_UP_PATH: Final = "/steering/v1/look-up"

DRIFT_PPM: Final = 500
"""NTP slews a clock by at most 500 ppm; the gateway takes off as much again for its own."""

VERIFIED_TOKENS_MAX: Final = 65_536
"""About 500 bytes each: 32 MB. A token beyond them costs one signature check (0.1 ms) more."""

VERIFIED_FOR_US: Final = 300 * SECOND
"""How long a verification counts, so that a withdrawn key stops working without anybody telling this cache."""

INSTALLS_PENDING_MAX: Final = 4_096
"""First answers that wait for the journal; beyond it a look-up is refused rather than queued past its time-out."""

READS_MAX: Final = 3
"""A look-up that is overtaken by this many changes of its session is told to ask again."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Headers: TypeAlias = list[tuple[bytes, bytes]]

_LOG = logging.getLogger(__name__)


class VerifiedTokens:
    """A bounded memory of tokens whose signature has been checked; holds hashes, never a token."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        self._known: OrderedDict[bytes, tuple[AistClaims, WallUs]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Forget everything: a key was rotated or withdrawn."""
        self._known.clear()

    def claims(self, token: bytes, wall_us: WallUs) -> AistClaims:
        """Return the claims of a token that is valid now.

        Raises:
            UnverifiedError: It does not verify, or has expired.
        """
        key = hashlib.sha256(token).digest()
        known = self._known.get(key)
        if known is not None and wall_us < known[1]:
            self._known.move_to_end(key)
            return known[0]
        self._known.pop(key, None)
        claims = self._verifier.verify_aist(token.decode("ascii", "replace"))
        if claims.expires_us <= wall_us:
            raise UnverifiedError("the session token has expired", code="TOKEN_EXPIRED")
        self._known[key] = (claims, min(claims.expires_us, WallUs(wall_us + VERIFIED_FOR_US)))
        if len(self._known) > VERIFIED_TOKENS_MAX:
            self._known.popitem(last=False)
        return claims


class SteeringEndpoint:
    """Answers `GET /steering/v1/look-up`."""

    def __init__(
        self,
        table: SteeringTable,
        *,
        generation: Callable[[], str],
        verifier: TokenVerifier,
        on_installed: OnInstalled,
        gate: Callable[[], bool],
        clock: Callable[[], Now],
    ) -> None:
        """Set up.

        Args:
            table: What is answered from.
            generation: The revocation list's `<term>.<generation>` as of now.
            verifier: Of the AIST.
            on_installed: Awaited before the first answer per (session, epoch, gateway).
            gate: Whether this controller may grant time: leader inside its lease, journal healthy.
            clock: The controller's clocks.
        """
        self.tokens = VerifiedTokens(verifier)
        self._table = table
        self._generation = generation
        self._on_installed = on_installed
        self._gate = gate
        self._clock = clock
        self._installing: dict[tuple[SessionId, Epoch, GatewayId], asyncio.Task[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        del receive
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        if scope["path"] != LOOK_UP_PATH:
            answer = _refusal(404, b"NOT_FOUND", b"No such resource.")
        elif scope["method"] != "GET":
            answer = _refusal(405, b"METHOD_NOT_ALLOWED", b"A look-up is a GET.")
        else:
            answer = await self._answer(scope)
        status, headers, body = answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> tuple[int, _Headers, bytes]:
        role, gateway = scope.get("extensions", {}).get(IDENTITY, ("", ""))
        if role != "gateway":
            return _refusal(403, b"PERMISSION_DENIED", b"Only an enrolled gateway may look up.")
        if not self._gate():
            return _CLOSED
        token = _bearer(scope["headers"])
        try:
            claims = self.tokens.claims(token, self._clock().wall_us)
        except UnverifiedError:
            return _refusal(401, b"UNAUTHENTICATED", b"The session token does not verify or has expired.")
        return await self._steering(claims, GatewayId(gateway))

    async def _steering(self, claims: AistClaims, gateway: GatewayId) -> tuple[int, _Headers, bytes]:
        """Return the answer for a verified session; wait for the journal where this gateway is new to the epoch."""
        for _ in range(READS_MAX):
            steered = self._table.get(claims.session)
            now = self._clock()
            if steered is None or steered.deadline_us <= now.boot_us:
                return _refusal(403, b"NO_COMMIT", b"The session holds no valid admission lease (COMMIT).")
            if gateway in steered.gateways:
                return self._granted(steered, claims, now)
            try:
                await self._installed(steered, gateway)
            except AipagingError:
                _LOG.exception("a look-up could not be journalled; the gateway is told to ask again")
                return _CLOSED
            if not self._gate():
                return _CLOSED
        return _CLOSED

    async def _installed(self, steered: Steered, gateway: GatewayId) -> None:
        """Journal that a gateway takes up an epoch; concurrent misses share one record."""
        key = (steered.session, steered.epoch, gateway)
        task = self._installing.get(key)
        if task is None:
            if len(self._installing) >= INSTALLS_PENDING_MAX:
                raise UnavailableError("too many first look-ups are waiting for the journal", code="OVERLOADED")
            task = asyncio.create_task(self._install(steered, gateway))
            self._installing[key] = task
            task.add_done_callback(lambda _: self._installing.pop(key, None))
        # A client that goes away must not take the others' answer with it.
        await asyncio.shield(task)

    async def _install(self, steered: Steered, gateway: GatewayId) -> None:
        await self._on_installed(steered.session, steered.anchor, steered.epoch, gateway)
        self._table.took_up(steered, gateway)

    def _granted(self, steered: Steered, claims: AistClaims, now: Now) -> tuple[int, _Headers, bytes]:
        lease_ms = shrunk_us(steered.deadline_us - now.boot_us, DRIFT_PPM) // MS
        # The token says when it ends; the grant may be older than an extension of the session.
        token_ms = (claims.expires_us - now.wall_us) // MS
        if lease_ms <= 0 or token_ms <= 0:
            return _refusal(403, b"NO_COMMIT", b"The session's admission lease (COMMIT) ends now.")
        headers = [
            (b"x-aipaging-session", steered.session.encode()),
            (b"x-aipaging-anchor", cluster_name(steered.anchor).encode()),
            (b"x-aipaging-term", b"%d" % steered.epoch.term),
            (b"x-aipaging-n", b"%d" % steered.epoch.n),
            (b"x-aipaging-lease-ms", b"%d" % lease_ms),
            (b"x-aipaging-token-ms", b"%d" % token_ms),
            (b"x-aipaging-generation", self._generation().encode()),
            (b"x-aipaging-commit", str(steered.receipt).encode()),
            (b"x-aipaging-rate-mrps", b"%d" % steered.rate_mrps),
            (b"x-aipaging-burst", b"%d" % steered.burst),
            (b"content-length", b"0"),
        ]
        if claims.certificate:
            headers.append((b"x-aipaging-certificate", claims.certificate.encode()))
        return 200, headers, b""


def _bearer(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:]
    return b""


def _refusal(status: int, code: bytes, message: bytes) -> tuple[int, _Headers, bytes]:
    body = b'{"status":%d,"code":"%s","message":"%s"}' % (status, code, message)
    return status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body


_CLOSED: Final = _refusal(503, b"UNAVAILABLE", b"This controller may not grant time now; ask again shortly.")
