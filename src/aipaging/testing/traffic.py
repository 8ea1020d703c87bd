"""Clients of many sessions at once, as a process of their own: what each request came to, on the boot clock.

The process is steered by lines of JSON on standard input, so that sessions can begin, change their token and end
while all others go on:

    {"key": 7, "token": "...", "kind": "json" | "stream"}   a client of a session begins, or goes on with a new token
    {"key": 7}                                              it ends

and stops when the input ends; what every request came to is then in the file that its argument names. A client has one
keep-alive connection and sends one request after the other: a JSON request every `period_ms`, never earlier; streams
one after the other with as much between them. Nobody repeats a request: whatever was not answered whole, with 200,
failed, and the client goes on at its pace.
"""

import asyncio
import contextlib
import json
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from aipaging.testing.recording_upstream import boot_us

ANSWER_S_MAX: Final = 10.0
"""What was not answered in this time has failed."""

STOP_S_MAX: Final = 30.0
"""Writing a few hundred thousand outcomes takes seconds on a busy machine."""

BODY: Final = b'{"input":"hello"}'
OK: Final = 200
BROKEN: Final = 0
"""The status of what got no answer: a refused or a broken connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPlan:
    """How all clients behave.

    Attributes:
        host: Where the gateway listens.
        port: Its port.
        period_ms: From one request of a client to its next.
        tokens: Of a stream.
        gap_ms: Between two tokens.
        seed: Clients begin at random within their period.
    """

    host: str
    port: int
    period_ms: float
    tokens: int = 0
    gap_ms: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, as its client saw it.

    Attributes:
        key: Whose.
        kind: `json` or `stream`.
        sent_us: When it was sent.
        last_us: When the last piece of its answer came.
        status: Of the answer, or 0.
        whole: Whether the answer was complete; a stream must have said that it is done.
        code: What a refusal or a cut stream said, such as `LEASE_ENDED`.
    """

    key: int
    kind: str
    sent_us: int
    last_us: int
    status: int
    whole: bool
    code: str

    @property
    def ok(self) -> bool:
        """Whether it was answered as asked."""
        return self.status == OK and self.whole


class Traffic:
    """The clients, seen from the benchmark that steers them."""

    def __init__(self, process: Process, path: Path) -> None:
        self._process = process
        self._path = path

    async def client(self, key: int, token: str, *, kind: str = "json") -> None:
        """Have a client begin, or go on with another token."""
        await self._tell({"key": key, "token": token, "kind": kind})

    async def end(self, key: int) -> None:
        """Have a client end after its present request."""
        await self._tell({"key": key})

    async def stop(self) -> list[Outcome]:
        """End all clients and return what all their requests came to."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        async with asyncio.timeout(STOP_S_MAX):
            await self._process.wait()
        return [Outcome(*row) for row in json.loads(self._path.read_text())]

    async def _tell(self, order: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def traffic(plan: TrafficPlan, path: Path) -> AsyncGenerator[Traffic]:
    """Run the clients' process; `path` is where it writes its outcomes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, json.dumps(asdict(plan)), str(path), stdin=PIPE
    )
    try:
        yield Traffic(process, path)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# --- in the clients' process --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Client:
    """One client."""

    key: int
    kind: str
    request: bytes
    over: bool = False
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


@dataclass(slots=True)
class _Answer:
    """An answer as it is read."""

    status: int = BROKEN
    last_us: int = 0
    whole: bool = False
    body: bytearray = field(default_factory=bytearray)


class _Clients:
    """All clients of the process."""

    def __init__(self, plan: TrafficPlan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)  # noqa: S311 - spreads requests, keeps no secret
        self._clients: dict[int, _Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcomes: list[Outcome] = []

    def order(self, order: dict[str, Any]) -> None:
        """Carry out one line of the input."""
        key = int(order["key"])
        known = self._clients.get(key)
        if "token" not in order:
            if known is not None:
                known.over = True
            return
        if known is not None:
            known.request = self._request(key, known.kind, order["token"])
            return
        client = _Client(key, order["kind"], self._request(key, order["kind"], order["token"]))
        self._clients[key] = client
        task = asyncio.get_running_loop().create_task(self._run(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Call every client off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _request(self, key: int, kind: str, token: str) -> bytes:
        target = f"/json/{key}" if kind == "json" else f"/stream/{key}/{self._plan.tokens}/{self._plan.gap_ms:g}"
        head = (
            f"POST {target} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
        )
        return head.encode() + BODY

    async def _run(self, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        period_s = self._plan.period_ms / 1000
        due_s = loop.time() + self._chance.random() * period_s
        try:
            while not client.over:
                await asyncio.sleep(due_s - loop.time())
                began_s = loop.time()
                await self._send(client)
                # A stream's pause begins at its end; a late JSON request does not make the next ones hurry.
                due_s = max(due_s, loop.time() if client.kind == "stream" else began_s) + period_s
        finally:
            client.close()

    async def _send(self, client: _Client) -> None:
        answer = _Answer()
        sent_us = boot_us()
        try:
            async with asyncio.timeout(ANSWER_S_MAX if client.kind == "json" else None):
                if client.reader is None or client.writer is None:
                    client.reader, client.writer = await asyncio.open_connection(self._plan.host, self._plan.port)
                    sent_us = boot_us()
                client.writer.write(client.request)
                await _read(client.reader, answer)
        except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
            answer.whole = False
        if not answer.whole:
            client.close()
        self.outcomes.append(
            Outcome(
                client.key,
                client.kind,
                sent_us,
                answer.last_us or boot_us(),
                answer.status,
                answer.whole and (client.kind == "json" or b"data: [DONE]" in answer.body),
                "" if answer.status == OK and answer.whole else _code(bytes(answer.body)),
            )
        )


async def _read(reader: asyncio.StreamReader, answer: _Answer) -> None:
    """Read one answer; what is known of a broken one stays in `answer`."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    answer.status = int(head[9:12])
    answer.last_us = boot_us()
    at = head.find(b"content-length:")
    if at >= 0:
        answer.body += await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
    elif b"transfer-encoding: chunked" in head:
        while length := int(await reader.readuntil(b"\r\n"), 16):
            piece = await reader.readexactly(length + 2)
            answer.body[:] = piece[:-2]  # the last one is all that matters
            if b"error" not in piece:
                answer.last_us = boot_us()
        await reader.readexactly(2)
    if at >= 0:
        answer.last_us = boot_us()
    answer.whole = True


def _code(body: bytes) -> str:
    """Return the code of a refusal, or of the last event of a cut stream."""
    _, found, rest = body.partition(b'"code":"')
    return rest.partition(b'"')[0].decode("ascii", "replace")[:40] if found else ""


async def _serve(plan: TrafficPlan) -> list[Outcome]:
    clients = _Clients(plan)
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        clients.order(json.loads(line))
    await clients.finish()
    return clients.outcomes


def main() -> None:
    """Send what the first argument plans; write the outcomes where the second says."""
    outcomes = uvloop.run(_serve(TrafficPlan(**json.loads(sys.argv[1]))))
    Path(sys.argv[2]).write_text(json.dumps([astuple(outcome) for outcome in outcomes]))


if __name__ == "__main__":
    main()
