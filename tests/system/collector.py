"""A collector of traces: takes OTLP over HTTP as an operator's does, and keeps every span."""

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HOST = "127.0.0.1"
WAIT_S_MAX = 120.0
"""Exporters send every five seconds at the latest; a busy machine takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span as it was exported; ids in hex."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, object]
    failed: bool

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.span}-01"


class Collector:
    """Listens in threads of its own."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers["content-length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._server.server_port}/v1/traces"

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for each in scope.spans:
                    values = {
                        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in each.attributes
                    }
                    self.spans.append(
                        Span(
                            service=service,
                            name=each.name,
                            trace=each.trace_id.hex(),
                            span=each.span_id.hex(),
                            parent=each.parent_span_id.hex(),
                            began_ns=each.start_time_unix_nano,
                            ended_ns=each.end_time_unix_nano,
                            attributes=values,
                            failed=each.status.code == 2,
                        )
                    )

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def until(self, enough: Callable[[], bool]) -> None:
        """Return when what was exported is enough."""
        end_s = time.monotonic() + WAIT_S_MAX
        while not enough():
            assert time.monotonic() < end_s, [(span.service, span.name, span.trace) for span in self.spans]
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
