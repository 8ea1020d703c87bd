"""A load generator of our own: keep-alive HTTP/1.1 over raw sockets, one thread, epoll.

It runs as a process of its own, so that it shares no interpreter (and, on request, no core) with what it measures.
Closed loop: every connection has exactly one request under way. Paced: requests fall due on a fixed schedule and
are timed from when they were *due*, so that a slow server cannot hide its queue (coordinated omission).

Left out: pipelining, HTTP/2, requests that differ from one another.
"""

import array
import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import select
import socket
import ssl
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

READ_BYTES: Final = 65_536
"""One read takes a whole small answer; larger ones take several."""

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""An answer larger than this is not something that a benchmark here asks for: the connection is failed."""

LATENCIES_MAX: Final = 4_000_000
"""Latencies that are kept (16 MB); later ones are counted but not ranked."""

RECONNECT_DELAY_S: Final = 0.01
"""Keeps a refused port from turning the loop into a connect storm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to send, where, how hard and for how long.

    Attributes:
        host: Address to connect to.
        port: TCP port.
        request: The bytes of one whole request, sent again and again.
        connections: Connections, each with at most one request under way.
        seconds: How long to measure.
        rate_per_s: Requests per second on a fixed schedule, or None for the closed loop.
        cpu: The core to run on, or None for any.
        certificate: PEM file of the client's chain, for mutual TLS; empty for plain TCP.
        key: PEM file of the client's key.
        trust: PEM file of the authority that the server must chain to.
    """

    host: str
    port: int
    request: bytes
    connections: int
    seconds: float
    rate_per_s: float | None = None
    cpu: int | None = None
    certificate: str = ""
    key: str = ""
    trust: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What came back.

    Attributes:
        requests: Answers with a status of 2xx.
        seconds: How long was measured.
        p50_us: Median latency of those answers, in microseconds.
        p99_us: Their 99th percentile.
        failures: Other statuses, broken answers and refused connections.
        p999_us: The 99.9th percentile of the latencies.
        limited: Of the failures, answers of 429.
    """

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    failures: int
    p999_us: float = 0.0
    limited: int = 0

    @property
    def requests_per_s(self) -> float:
        """Successful requests per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


async def closed_loop(host: str, port: int, request: bytes, *, connections: int, seconds: float) -> LoadReport:
    """Send `request` over `connections` keep-alive connections for `seconds`, from a process of its own."""
    return await run_load(LoadPlan(host=host, port=port, request=request, connections=connections, seconds=seconds))


async def run_load(plan: LoadPlan) -> LoadReport:
    """Carry out a plan in a process of its own and return its report."""
    document = dataclasses.asdict(plan) | {"request": base64.b64encode(plan.request).decode("ascii")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate(json.dumps(document).encode())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"the load generator ended with status {process.returncode}")
    return LoadReport(**json.loads(output))


class _Connection:
    """One keep-alive connection and the answer it is reading."""

    __slots__ = ("due_ns", "need", "received", "sock", "started")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.need = -1  # bytes of the whole answer; -1 unknown, -2 chunked
        self.due_ns = 0
        self.started = False

    def feed(self, chunk: bytes) -> bool:
        """Take bytes; return whether the answer is whole."""
        received = self.received
        received += chunk
        if self.need == -1:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(received[:end]).lower()
            at = head.find(b"content-length:")
            if at >= 0:
                self.need = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
            elif b"transfer-encoding:" in head:
                self.need = -2
            else:
                self.need = end + 4
        if len(received) > ANSWER_BYTES_MAX:
            raise ConnectionError("answer too large")
        # A last chunk without trailers ends so, and a closed loop has no answer behind it.
        return received.endswith(b"\r\n0\r\n\r\n") if self.need == -2 else len(received) >= self.need

    def succeeded(self) -> bool:
        return self.received.startswith(b"2", 9)

    def begin(self, request: bytes, due_ns: int) -> None:
        self.received.clear()
        self.need = -1
        self.due_ns = due_ns
        self.started = True
        self.sock.sendall(request)


class _Generator:
    """The event loop of the generator process."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.poller = select.epoll()
        self.connections: dict[int, _Connection] = {}
        self.idle: deque[_Connection] = deque()
        self.latencies = array.array("I")
        self.requests = 0
        self.failures = 0
        self.limited = 0
        self.tls = _client_tls(plan)

    def connect(self) -> None:
        sock = socket.create_connection((self.plan.host, self.plan.port), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_hostname=self.plan.host)
        sock.settimeout(0)
        connection = _Connection(sock)
        self.connections[sock.fileno()] = connection
        self.poller.register(sock.fileno(), select.EPOLLIN)
        self.idle.append(connection)

    def drop(self, connection: _Connection) -> None:
        """Count a broken connection as a failure and open another."""
        self.failures += 1
        descriptor = connection.sock.fileno()
        self.connections.pop(descriptor, None)
        with contextlib.suppress(OSError, ValueError):
            self.poller.unregister(descriptor)
        connection.sock.close()
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        try:
            self.connect()
        except OSError:
            time.sleep(RECONNECT_DELAY_S)

    def send(self, connection: _Connection, due_ns: int) -> None:
        try:
            connection.begin(self.plan.request, due_ns)
        except OSError:
            self.drop(connection)

    def receive(self, connection: _Connection) -> None:
        """Read what there is; a whole answer is counted and frees the connection."""
        try:
            while True:
                chunk = connection.sock.recv(READ_BYTES)
                if not chunk or not connection.started:
                    self.drop(connection)
                    return
                if connection.feed(chunk):
                    self.finish(connection)
                    return
                if self.tls is None and len(chunk) < READ_BYTES:
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except (OSError, ValueError):
            self.drop(connection)

    def finish(self, connection: _Connection) -> None:
        elapsed_ns = time.perf_counter_ns() - connection.due_ns
        if connection.succeeded():
            self.requests += 1
            if len(self.latencies) < LATENCIES_MAX:
                self.latencies.append(elapsed_ns // 1000)
        else:
            self.failures += 1
            self.limited += connection.received.startswith(b"429", 9)
        connection.started = False
        self.idle.append(connection)

    def run(self) -> LoadReport:
        """Measure and report."""
        for _ in range(self.plan.connections):
            self.connect()
        began = time.perf_counter_ns()
        end = began + int(self.plan.seconds * 1e9)
        step_ns = 0 if self.plan.rate_per_s is None else int(1e9 / self.plan.rate_per_s)
        due = began
        while (now := time.perf_counter_ns()) < end:
            while self.idle and due <= now:
                self.send(self.idle.popleft(), due if step_ns else now)
                due += step_ns
            wait_s = max(0.0, (due - now) / 1e9) if step_ns and self.idle else 0.1
            # An epoll waits for whole milliseconds, rounded up: what fell due would be sent up to one late.
            select.select([self.poller], [], [], min(wait_s, 0.1))
            for descriptor, _ in self.poller.poll(0):
                connection = self.connections.get(descriptor)
                if connection is not None:
                    self.receive(connection)
        seconds = (time.perf_counter_ns() - began) / 1e9
        ranked = sorted(self.latencies)
        return LoadReport(
            requests=self.requests,
            seconds=seconds,
            p50_us=_quantile(ranked, 0.5),
            p99_us=_quantile(ranked, 0.99),
            failures=self.failures,
            p999_us=_quantile(ranked, 0.999),
            limited=self.limited,
        )


def _client_tls(plan: LoadPlan) -> ssl.SSLContext | None:
    if not plan.certificate:
        return None
    context = ssl.create_default_context(cafile=plan.trust)
    context.check_hostname = False
    context.load_cert_chain(plan.certificate, plan.key)
    return context


def _quantile(ranked: list[int], probability: float) -> float:
    return float(ranked[min(len(ranked) - 1, int(len(ranked) * probability))]) if ranked else 0.0


def main() -> None:
    """Read a plan as JSON on standard input, carry it out, print the report."""
    document = json.loads(sys.stdin.read())
    document["request"] = base64.b64decode(document["request"])
    plan = LoadPlan(**document)
    if plan.cpu is not None:
        os.sched_setaffinity(0, {plan.cpu})
    print(json.dumps(dataclasses.asdict(_Generator(plan).run())))


if __name__ == "__main__":
    main()
