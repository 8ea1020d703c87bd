"""Late requests as spans: below the client's own span where it sent a `traceparent`, with the anchor's part inside.

The names are those of the GenAI semantic conventions where they have one. A client that forges a `traceparent` puts a
span of its own lateness into a trace that it names; nothing else comes of it, for nothing is counted by traces.
"""

from collections.abc import Sequence
from typing import Final

from aipaging.adapters.telemetry import semantic_conventions as names
from aipaging.adapters.tracing.otlp import OtlpTracer
from aipaging.core.audit.telemetry import Status
from aipaging.ports.telemetry import LateRequest

ERRORS: Final = {Status.ERROR: "error", Status.TIMEOUT: "timeout", Status.LOST: "lost"}


class LateRequestSpans:
    """A `LateRequests` that exports spans."""

    def __init__(self, tracer: OtlpTracer) -> None:
        self._tracer = tracer

    def keep(self, requests: Sequence[LateRequest]) -> None:
        """See `LateRequests.keep`."""
        for request in requests:
            self._keep(request)

    def _keep(self, request: LateRequest) -> None:
        seen = request.seen
        operation = names.OPERATIONS.get(request.task, request.task)
        attributes: dict[str, str | int | float] = {
            names.OPERATION_NAME: operation,
            names.PROVIDER_NAME: "aipaging",
            names.SERVICE: request.service,
            names.TENANT: request.tenant,
            names.SESSION: seen.session,
            names.ANCHOR: seen.anchor,
            names.DOMAIN: "end-to-end",
            names.EXCEEDED: ",".join(request.exceeded),
            names.PROMISED_MS: request.delay_ms,
        }
        if seen.status in ERRORS:
            attributes[names.ERROR_TYPE] = ERRORS[Status(seen.status)]
        parent = f"00-{seen.trace}-{seen.parent}-01" if seen.trace and seen.parent else ""
        whole = self._tracer.observed(
            operation,
            parent=parent,
            began_ns=seen.start_us * 1000,
            ended_ns=(seen.start_us + max(0, seen.total_us)) * 1000,
            attributes=attributes,
        )
        if seen.anchor_us >= 0 and seen.sent_us >= 0:
            began_us = seen.start_us + seen.sent_us
            self._tracer.observed(
                f"anchor {seen.anchor}",
                parent=whole,
                began_ns=began_us * 1000,
                ended_ns=(began_us + seen.anchor_us) * 1000,
                attributes={names.DOMAIN: request.domain, names.ANCHOR: seen.anchor},
            )
