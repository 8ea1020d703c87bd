"""Spans to an OTLP endpoint, in batches, from a thread of the SDK: a collector that hangs holds up nobody.

No span holds an intent, a token, a prompt or an address of a client; `aipaging.correlator` and `aipaging.session` lead
from a trace to logs and evidence.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from aipaging.core.foundation.errors import UnavailableError

EXPORT_S_MAX = 5
"""A collector that needs longer loses this batch; spans that wait beyond the SDK's 2,048 are dropped."""


class OtlpSpan:
    """A span that has begun.

    Attributes:
        traceparent: The context of what is done below it.
    """

    __slots__ = ("_failure", "_span", "traceparent")

    def __init__(self, span: Any, *, traceparent: str, failure: Any) -> None:
        self._span = span
        self._failure = failure
        self.traceparent = traceparent

    def over(self, *, ended_ns: int, attributes: Mapping[str, str | int]) -> None:
        """End it; `error.type` among the attributes makes it a failure."""
        self._span.set_attributes(attributes)
        if "error.type" in attributes:
            self._span.set_status(self._failure)
        self._span.end(end_time=ended_ns)


class OtlpTracer:
    """A `Tracer` over OpenTelemetry's SDK."""

    def __init__(self, endpoint: str, *, service: str, exporter: Any = None) -> None:
        """Begin to export.

        Args:
            endpoint: OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
            service: `service.name` of every span.
            exporter: In place of the one to the endpoint; for tests.

        Raises:
            UnavailableError: The extra `tracing` is not installed.
        """
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UnavailableError(
                "traces need the extra `tracing`: pip install 'aipaging[tracing]', or leave otlp_endpoint out",
                code="EXTRA_MISSING",
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        processor = (
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S_MAX))
            if exporter is None
            else SimpleSpanProcessor(exporter)
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("aipaging")
        self._propagator = TraceContextTextMapPropagator()
        self._trace, self._failure = trace, trace.StatusCode.ERROR
        self._kinds = {False: trace.SpanKind.INTERNAL, True: trace.SpanKind.SERVER}

    @contextmanager
    def span(
        self, name: str, *, parent: str = "", server: bool = False, attributes: dict[str, str | int] | None = None
    ) -> Generator[None, None, None]:
        """See `Tracer.span`."""
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        with self._tracer.start_as_current_span(
            name, context=context, kind=self._kinds[server], attributes=attributes or {}
        ):
            yield

    def traceparent(self) -> str:
        """See `Tracer.traceparent`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")

    def past(self, name: str, *, parent: str, begun_ns: int, ended_ns: int, records: int) -> None:
        """See `Tracer.past`."""
        context = self._propagator.extract({"traceparent": parent})
        span = self._tracer.start_span(
            name, context=context, start_time=begun_ns, attributes={"aipaging.records": records}
        )
        span.end(end_time=ended_ns)

    def observed(
        self, name: str, *, parent: str, began_ns: int, ended_ns: int, attributes: Mapping[str, str | int | float]
    ) -> str:
        """Note what others saw of a request that is over, and return its span as `traceparent`.

        It is kept whether or not the client sampled its trace: what was late is not left to chance.

        Args:
            name: Of the span.
            parent: `traceparent` of whoever asked; without one it is a trace of its own.
            began_ns: Wall clock.
            ended_ns: Wall clock.
            attributes: Of the span; `error.type` among them makes it a failure.
        """
        version, _, rest = parent.partition("-")
        sampled = f"{version}-{rest[:-2]}01" if rest else ""
        context = self._propagator.extract({"traceparent": sampled} if sampled else {})
        span = self._tracer.start_span(
            name, context=context, kind=self._kinds[True], start_time=began_ns, attributes=attributes
        )
        if "error.type" in attributes:
            span.set_status(self._failure)
        span.end(end_time=ended_ns)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return carrier.get("traceparent", "")

    def opened(
        self, name: str, *, parent: str, kind: Literal["server", "client", "internal"], began_ns: int
    ) -> "OtlpSpan":
        """Begin a span of what is not done within one block; see `OtlpSpan`.

        Args:
            name: Of the span.
            parent: `traceparent` of whoever asked.
            kind: Whether it serves, asks, or neither.
            began_ns: Wall clock.
        """
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract({"traceparent": parent}),
            kind=self._trace.SpanKind[kind.upper()],
            start_time=began_ns,
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return OtlpSpan(span, traceparent=carrier.get("traceparent", ""), failure=self._failure)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()
