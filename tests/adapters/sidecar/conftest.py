"""A sidecar between real sockets: a scripted upstream on one side, a raw client on the other, a clock that we turn."""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from aipaging.adapters.sidecar.controller import HeartbeatAnswer, RefusedCount, Revocations
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.log import Log
from aipaging.adapters.sidecar.settings import SidecarSettings, Timeouts, parse_upstream, queue_limits
from aipaging.adapters.sidecar.sidecar import Sidecar
from aipaging.adapters.sidecar.usage import UsageBatch
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError, UnverifiedError
from aipaging.core.foundation.names import AnchorId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.identity.claims import CommitClaims
from aipaging.core.lease.holder import HolderState, HolderTerms, LeaseAnswer

ANCHOR = AnchorId("gpu-1")
EVENT = b'data: {"object":"chat.completion.chunk"}\n\n'
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
AIST = "Bearer aist-secret-material"
GATEWAYS = "x-forwarded-proto: https\r\n"
"""What only a gateway says; with it, a request can be repeated."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories():
    """Run on the loop that production runs on."""
    return {"uvloop": uvloop.new_event_loop}


class TurnedClocks:
    """Clocks that stand still until a test turns them."""

    def __init__(self) -> None:
        self.now_us = 1_000_000_000
        self.suspended_us = 0
        self.wall_step_us = 0

    def boot_us(self) -> BootUs:
        return BootUs(self.now_us + self.suspended_us)

    def monotonic_us(self) -> int:
        return self.now_us

    def wall_us(self) -> WallUs:
        return WallUs(self.now_us + self.wall_step_us)

    def turn(self, ms: float) -> None:
        self.now_us += int(ms * 1000)


def session_id(number: int = 1) -> SessionId:
    return SessionId(str(uuid.UUID(int=number, version=4)))


def receipt(
    session: int = 1,
    term: int = 1,
    n: int = 1,
    *,
    anchor: str = ANCHOR,
    tenant: str = "acme",
    rate: int = 1000,
    burst: int = 1_000_000,
) -> str:
    """Return what stands for a signed receipt here; the test verifier reads it back."""
    fields = {"session": session, "term": term, "n": n, "anchor": anchor, "tenant": tenant, "rate": rate}
    fields["burst"] = burst
    return "receipt." + json.dumps(fields, separators=(",", ":")).encode().hex()


class ReadingVerifier:
    """A `TokenVerifier` whose signature is a word."""

    def __init__(self) -> None:
        self.verified = 0

    def verify_aist(self, token: str):
        raise NotImplementedError

    def verify_commit(self, token: str) -> CommitClaims:
        self.verified += 1
        word, _, body = token.partition(".")
        try:
            said = json.loads(bytes.fromhex(body))
        except ValueError:
            said = None
        if word != "receipt" or said is None:
            raise UnverifiedError("not ours", code="TOKEN_SIGNATURE")
        return CommitClaims(
            session=session_id(said["session"]),
            tenant=TenantId(said["tenant"]),
            aisi=ServiceUri("aisi://op/svc/v1"),
            anchor=AnchorId(said["anchor"]),
            epoch=Epoch(said["term"], said["n"]),
            lease_ms=60_000,
            rate_mrps=said["rate"],
            burst=said["burst"],
            delay_us=1,
            epsilon="0.01",
            epsilon_bound="0.001",
            token_id_sha256="",
            commit_id="c",
            issued_us=WallUs(0),
            expires_us=WallUs(0),
        )


@dataclasses.dataclass
class ScriptedController:
    """Answers what the test says; counts what was asked."""

    remaining_ms: int = 60_000
    state: HolderState = HolderState.ACTIVE
    current: dict[SessionId, Epoch] = dataclasses.field(default_factory=dict)
    states: dict[SessionId, HolderState] = dataclasses.field(default_factory=dict)
    silent: bool = False
    gate: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    asked: list[tuple[SessionId, Epoch]] = dataclasses.field(default_factory=list)
    batches: int = 0
    revoked: "asyncio.Queue[Revocations]" = dataclasses.field(default_factory=asyncio.Queue)
    beats: list = dataclasses.field(default_factory=list)
    beat_seen: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    keys_there: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    hears: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    sessions: int = 0
    deaf_to_usage: bool = False
    disbelieved: frozenset[str] = frozenset()
    usage_batches: list[UsageBatch] = dataclasses.field(default_factory=list)
    usage_heard: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.keys_there.set()
        self.hears.set()

    async def remaining(self, questions):
        self.batches += 1
        self.asked += [(q.session, q.epoch) for q in questions]
        await self.gate.wait()
        if self.silent:
            raise UnavailableError("silent", code="TIMEOUT")
        return [
            LeaseAnswer(
                session=q.session,
                asked=q.epoch,
                state=self.states.get(q.session, self.state),
                remaining_ms=self.remaining_ms,
                current=self.current.get(q.session, q.epoch),
            )
            for q in questions
        ]

    async def revocations(self, term: int, sequence: int) -> Revocations:
        return await self.revoked.get()

    async def heartbeat(self, beat) -> HeartbeatAnswer:
        self.beats.append(beat)
        self.beat_seen.set()
        await self.hears.wait()
        return HeartbeatAnswer(interval_ms=30_000, sessions=self.sessions)

    async def usage(self, boot: str, batch: UsageBatch) -> list[RefusedCount]:
        self.usage_batches.append(batch)
        self.usage_heard.set()
        if self.deaf_to_usage:
            raise UnavailableError("the answer is lost", code="TIMEOUT")
        return [RefusedCount(session=s, code="USAGE_IMPLAUSIBLE") for s in batch.used if s in self.disbelieved]

    async def keys(self):
        await self.keys_there.wait()
        return {"keys": ["one"]}

    async def renew_identity(self, request: bytes) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedUpstream:
    """A server that does what a test wrote down, connection by connection, and keeps every byte it was sent."""

    def __init__(self) -> None:
        self.script: Script = answer_ok
        self.seen: list[bytearray] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        seen_index = len(self.seen)
        self.seen.append(bytearray())
        feed = reader.feed_data

        def keep(data: bytes) -> None:
            self.seen[seen_index] += data
            feed(data)

        reader.feed_data = keep  # type: ignore[method-assign]
        try:
            await self.script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def all_bytes(self) -> bytes:
        return b"".join(self.seen)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return head and body of the next request at the upstream."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    }
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return head, body
    return head, await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with its own body."""
    while True:
        head, body = await read_request(reader)
        shown = b"" if head.startswith(b"HEAD") else body
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body) + shown)
        await writer.drain()


def sending(whole: bytes, *, then: str = "close") -> Script:
    """Read a request, send `whole`, and `close`, `reset`, `stall`, or go `on` with the next."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole)
        await writer.drain()
        if then == "on":
            await script(reader, writer)
        elif then == "reset":
            await asyncio.sleep(0.05)  # let the bytes leave first: a reset overtakes them
            writer.transport.abort()
        elif then == "close":
            writer.close()
            await writer.wait_closed()
        else:
            await reader.read()

    return script


class Client:
    """A raw HTTP client: sends bytes, reads what comes, knows an end from a cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines[1:]:
            if line:
                name, _, value = line.partition(":")
                key = name.lower()
                fields[key] = f"{fields[key]}, {value.strip()}" if key in fields else value.strip()
        return int(lines[0].split(" ")[1]), fields

    async def response(self, *, bodyless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Return a whole response; raise `IncompleteReadError` where it is cut."""
        status, fields = await self.head()
        if bodyless or status in {204, 304}:
            return status, fields, b""
        if "chunked" in fields.get("transfer-encoding", ""):
            body = b""
            while True:
                line = await self.reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                if not size:
                    while (await self.reader.readuntil(b"\r\n")) != b"\r\n":
                        pass
                    return status, fields, body
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
        return status, fields, await self.reader.readexactly(int(fields.get("content-length", "0")))

    async def until_closed(self) -> bytes:
        """Return everything up to the end of the connection, however it ends."""
        got = b""
        try:
            while piece := await self.reader.read(65536):
                got += piece
        except ConnectionError:
            pass
        return got

    def close(self) -> None:
        self.writer.transport.abort()


def request(
    method: str = "POST",
    target: str = "/v1/chat/completions",
    body: bytes = b"{}",
    *,
    commit: str | None = "",
    extra: str = "",
) -> bytes:
    """Return a request as the gateway sends it."""
    commit = receipt() if commit == "" else commit
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway.example", f"Authorization: {AIST}"]
    if commit is not None:
        lines.append(f"x-aipaging-commit: {commit}")
    if method not in {"GET", "HEAD"} and "transfer-encoding" not in extra.lower():
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines) + "\r\n" + extra + "\r\n"
    return head.encode("latin-1") + (body if method not in {"GET", "HEAD"} else b"")


def decoded(wire: bytes) -> tuple[bytes, bool]:
    """Return the body in `wire` and whether it ended as a body does."""
    body = b""
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return body, True
        body, wire = body + wire[:size], wire[size + 2 :]
    return body, False


def cut_event(body: bytes, code: str = "LEASE_ENDED") -> bool:
    before, _, last = body.rpartition(b"event: error\ndata: ")
    return (
        bool(last.endswith(b"\n\n"))
        and json.loads(last)["error"]["code"] == code
        and (not before or before.endswith(b"\n\n"))
    )


@dataclasses.dataclass
class Bench:
    """Everything that a test of the sidecar has at hand."""

    sidecar: Sidecar
    upstream: ScriptedUpstream
    controller: ScriptedController
    clocks: TurnedClocks
    verifier: ReadingVerifier
    log_lines: list[str]
    clients: list[Client]

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.sidecar.port, limit=1 << 24)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def ask(self, raw: bytes, *, bodyless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own."""
        client = await self.client()
        client.send(raw)
        return await client.response(bodyless=bodyless)

    def lapse(self, ms: float) -> None:
        """Let time pass for the leases, as the timer would notice it."""
        self.clocks.turn(ms)
        self.sidecar.path.gate.tick()

    async def metric(self, name: str) -> str:
        """Return the lines of one metric."""
        _, _, text = await self.ask(request("GET", "/aipaging/v1/metrics", commit=None))
        return "\n".join(line for line in text.decode().split("\n") if line.startswith(name))


BenchMaker = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make_bench() -> AsyncIterator[BenchMaker]:
    """Return what starts a sidecar on loopback; everything is closed afterwards."""
    made: list[Bench] = []

    async def make(*, slots: int = 8, waiting: int = 16, prefix: str = "", keys_there: bool = True, **changes) -> Bench:
        spans = changes.pop("spans", None)
        upstream = ScriptedUpstream()
        await upstream.start()
        clocks, controller, verifier, lines = TurnedClocks(), ScriptedController(), ReadingVerifier(), []
        url = changes.pop("url", f"http://127.0.0.1:{upstream.port}{prefix}")
        settings = SidecarSettings(
            anchor=ANCHOR,
            upstream=parse_upstream(url, authorization=changes.pop("authorization", None)),
            listen_host="127.0.0.1",
            listen_port=0,
            plaintext=True,
            queue=queue_limits(concurrency=slots, waiting_max=waiting, slots=changes.pop("own", ())),
            reservations=changes.pop("reservations", True),
            usage_s=changes.pop("usage_s", 3600.0),
            timeouts=Timeouts(**changes),
            terms=HolderTerms(drift_ppm=0),
        )
        sidecar = Sidecar(
            settings,
            controller,
            lambda _keys: verifier,
            identity=None,
            instruments=Instruments(clocks=clocks, log=Log(clocks, lines.append), spans=spans),
        )
        if not keys_there:
            controller.keys_there.clear()
        await sidecar.start()
        if keys_there:
            await controller.beat_seen.wait()  # the health probe has its answer, and does not meet a test's script
        made.append(Bench(sidecar, upstream, controller, clocks, verifier, lines, []))
        return made[-1]

    yield make
    for bench in made:
        for client in bench.clients:
            client.close()
        await bench.sidecar.close()
        await bench.upstream.close()


@pytest.fixture
async def bench(make_bench: BenchMaker) -> Bench:
    return await make_bench()
