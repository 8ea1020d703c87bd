"""The processes of the sidecar's benchmark: a sidecar with a controller made of memory, and a paced event stream.

The sidecar is the real one: its receipts are signed and verified, its leases are asked about; only the network to the
controller is left out. A session's lease lasts as many milliseconds as its epoch's `n` says, from the first question.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from aipaging.adapters.sidecar.clocks import HostClocks
from aipaging.adapters.sidecar.controller import Heartbeat, HeartbeatAnswer, RefusedCount, Revocations
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.log import Log
from aipaging.adapters.sidecar.settings import SidecarSettings, parse_upstream, queue_limits
from aipaging.adapters.sidecar.sidecar import Sidecar
from aipaging.adapters.sidecar.usage import UsageBatch
from aipaging.adapters.signing.keys import Jwks
from aipaging.adapters.signing.peer import client_context, identity_of, server_context
from aipaging.adapters.signing.tokens import JwtVerifier
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, BootUs
from aipaging.core.lease.holder import HolderState, LeaseAnswer, LeaseQuestion

ANCHOR: Final = AnchorId("bench")
ISSUER: Final = "https://bench.example"
TRUST_DOMAIN: Final = "bench.example"
EVENT_MS: Final = 10
"""Between the events of a paced stream: a fast model's tokens."""

EVENTS: Final = 100

_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT: Final = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"token"}}]}\n\n'
_CHUNK: Final = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
_END: Final = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class PacedUpstream(asyncio.Protocol):
    """Answers every request with events on a fixed schedule; `/forever` never ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Begin a stream when a request's head is whole; there are no bodies here."""
        self._received += data
        if not self._received.endswith(b"\r\n\r\n") or self._transport is None:
            return
        forever = b"/forever" in self._received[:64]
        self._received = b""
        self._transport.write(_STREAM)
        self._event(0 if forever else EVENTS, self._loop.time())

    def _event(self, left: int, due_s: float) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(_CHUNK)
        if left == 1:
            self._transport.write(_END)
            return
        due_s += EVENT_MS / 1000
        self._loop.call_at(due_s, self._event, left - 1, due_s)


class MemoryController:
    """Grants every session a lease of `epoch.n` milliseconds from the first question about it."""

    def __init__(self, jwks: Mapping[str, Any], clocks: HostClocks) -> None:
        self._jwks = jwks
        self._clocks = clocks
        self._ends_us: dict[SessionId, int] = {}

    async def remaining(self, questions: Sequence[LeaseQuestion]) -> Sequence[LeaseAnswer]:
        """Return what remains."""
        now_us = self._clocks.boot_us()
        return [self._answer(question, now_us) for question in questions]

    def _answer(self, question: LeaseQuestion, now_us: BootUs) -> LeaseAnswer:
        end_us = self._ends_us.setdefault(question.session, now_us + question.epoch.n * MS)
        left_ms = max(0, end_us - now_us) // MS
        return LeaseAnswer(
            session=question.session,
            asked=question.epoch,
            state=HolderState.ACTIVE if left_ms else HolderState.ENDED,
            remaining_ms=left_ms,
            current=question.epoch,
        )

    async def revocations(self, term: int, sequence: int) -> Revocations:
        """Wait for ever: nothing is revoked."""
        await asyncio.get_running_loop().create_future()
        return Revocations(term=term, sequence=sequence)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Return a long interval."""
        del beat
        return HeartbeatAnswer(interval_ms=30_000)

    async def usage(self, boot: str, batch: UsageBatch) -> Sequence[RefusedCount]:
        """Believe everything."""
        del boot, batch
        return ()

    async def keys(self) -> Mapping[str, Any]:
        """Return the keys."""
        return self._jwks

    async def renew_identity(self, request: bytes) -> None:
        """Renew nothing."""
        del request

    async def close(self) -> None:
        """Close nothing."""


class BenchIdentity:
    """A `NodeIdentity` over a folder, never renewed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def server_context(self) -> ssl.SSLContext:
        """Return the listener's context."""
        return server_context(self._folder)

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context."""
        return client_context(self._folder)

    def role_of(self, certificate: Mapping[str, Any]) -> str:
        """Return the role of a verified peer."""
        return identity_of(certificate, trust_domain=TRUST_DOMAIN).role

    def renewal_request(self) -> bytes | None:
        """Renew nothing."""
        return None

    def store(self, chain_pem: bytes) -> None:
        """Renew nothing."""
        del chain_pem


async def serve_sidecar(upstream_port: int, folder: Path, *, tls: bool) -> None:
    """Run a sidecar until the process is ended; print its port."""
    clocks = HostClocks()
    jwks: Jwks = json.loads((folder / "jwks.json").read_text(encoding="ascii"))
    settings = SidecarSettings(
        anchor=ANCHOR,
        upstream=parse_upstream(f"http://127.0.0.1:{upstream_port}"),
        listen_host="127.0.0.1",
        listen_port=0,
        plaintext=not tls,
        queue=queue_limits(concurrency=512, waiting_max=1024),
    )
    sidecar = Sidecar(
        settings,
        MemoryController(jwks, clocks),
        lambda keys: JwtVerifier({"keys": keys["keys"]}, ISSUER, clocks.wall_us),
        identity=BenchIdentity(folder / "anchor") if tls else None,
        instruments=Instruments(clocks=clocks, log=Log(clocks, lambda _line: None)),
    )
    await sidecar.start()
    print(sidecar.port, flush=True)
    await sidecar.failed


async def serve_paced() -> None:
    """Run the paced upstream until the process is ended; print its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PacedUpstream(loop), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Play one role: `paced CORE`, or `sidecar CORE UPSTREAM_PORT FOLDER plain|tls`; core -1 is any."""
    role, core = sys.argv[1], int(sys.argv[2])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    if role == "paced":
        uvloop.run(serve_paced())
    else:
        uvloop.run(serve_sidecar(int(sys.argv[3]), Path(sys.argv[4]), tls=sys.argv[5] == "tls"))


if __name__ == "__main__":
    main()
