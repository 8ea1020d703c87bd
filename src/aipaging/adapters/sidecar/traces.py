"""The spans of one request: as a whole, in the queue, and at the model server.

Only of requests whose trace is being recorded, which the gateway says by `traceparent` (W3C Trace Context): every other
passes with the context that it came with, and costs a comparison. What a span says is for operators, and names a
session; nothing in it came from a body or from another header.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol

from aipaging.adapters.sidecar.clocks import Clocks
from aipaging.runtime.tracing import TRACEPARENT


class OpenSpan(Protocol):
    """A span that has begun.

    Attributes:
        traceparent: The context of what is done below it.
    """

    @property
    def traceparent(self) -> str:
        """Return the context of what is done below it."""
        ...

    def over(self, *, ended_ns: int, attributes: Mapping[str, str | int]) -> None:
        """End it; `error.type` among the attributes makes it a failure."""
        ...


class SpanMaker(Protocol):
    """Begins spans; times are of the wall clock."""

    def opened(
        self, name: str, *, parent: str, kind: Literal["server", "client", "internal"], began_ns: int
    ) -> OpenSpan:
        """Begin a span below `parent`, a `traceparent`."""
        ...


class RequestTrace:
    """What is told of one request."""

    __slots__ = ("_at_model", "_began_boot_us", "_began_ns", "_clocks", "_maker", "_queued", "_request")

    def __init__(self, maker: SpanMaker, clocks: Clocks, parent: bytes) -> None:
        """Begin: the request has arrived, with a context that `is_recorded`."""
        self._maker = maker
        self._clocks = clocks
        self._began_boot_us = clocks.boot_us()
        self._began_ns = clocks.wall_us() * 1000
        self._request = maker.opened(
            "anchor request", parent=parent.decode("ascii"), kind="server", began_ns=self._began_ns
        )
        self._queued: OpenSpan | None = maker.opened(
            "queue", parent=self._request.traceparent, kind="internal", began_ns=self._began_ns
        )
        self._at_model: OpenSpan | None = None

    def _now_ns(self) -> int:
        """Return the wall clock of the beginning, moved on by the clock that is never stepped."""
        return self._began_ns + (self._clocks.boot_us() - self._began_boot_us) * 1000

    def dispatched(self) -> None:
        """Leave the queue for the model server."""
        now_ns = self._now_ns()
        self._leave_queue(now_ns)
        self._at_model = self._maker.opened(
            "model server", parent=self._request.traceparent, kind="client", began_ns=now_ns
        )

    @property
    def passed_on(self) -> bytes:
        """Return the context for the model server."""
        span = self._request if self._at_model is None else self._at_model
        return span.traceparent.encode("ascii")

    def over(self, *, status: int, code: str, session: str) -> None:
        """End: answered with `status`, or refused, cut or given up for the reason `code`."""
        now_ns = self._now_ns()
        self._leave_queue(now_ns)
        attributes: dict[str, str | int] = {"http.response.status_code": status} if status else {}
        if code:
            attributes["error.type"] = code
        if self._at_model is not None:
            self._at_model.over(ended_ns=now_ns, attributes=attributes)
            self._at_model = None
        if session:
            attributes["aipaging.session"] = session
        self._request.over(ended_ns=now_ns, attributes=attributes)

    def _leave_queue(self, now_ns: int) -> None:
        if self._queued is not None:
            self._queued.over(ended_ns=now_ns, attributes={})
            self._queued = None


SAMPLED: Final = 1


def is_recorded(traceparent: bytes | None) -> bool:
    """Return whether a request's trace is being recorded."""
    return (
        traceparent is not None
        and TRACEPARENT.fullmatch(traceparent) is not None
        and bool(int(traceparent[-2:], 16) & SAMPLED)
    )
