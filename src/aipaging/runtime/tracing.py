"""What a trace is made of, for those who take part in one; where it goes is an adapter's. None costs nothing."""

import re
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, 3.2, of the one version that there is."""


class Tracer(Protocol):
    """Makes spans; parents travel as W3C `traceparent`."""

    def span(
        self, name: str, *, parent: str = "", server: bool = False, attributes: dict[str, str | int] | None = None
    ) -> AbstractContextManager[None]:
        """Return a span around what is done inside it; without a parent, below the present one."""
        ...

    def traceparent(self) -> str:
        """Return the present span as `traceparent`, or "" outside of one."""
        ...

    def past(self, name: str, *, parent: str, begun_ns: int, ended_ns: int, records: int) -> None:
        """Note what has been done for several at once, below one of them; times of the wall clock."""
        ...


def sampled_parent(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the `traceparent` of a request whose trace is being recorded, or ""."""
    for name, value in headers:
        if name == b"traceparent":
            return value.decode("latin-1") if TRACEPARENT.fullmatch(value) and int(value[-2:], 16) & 1 else ""
    return ""


def steering_span(tracer: Tracer | None, trace: str) -> AbstractContextManager[None]:
    """Return the span of what is done in the user plane after the journal took a command."""
    return nullcontext() if tracer is None or not trace else tracer.span("steering", parent=trace)


def note_append(tracer: Tracer | None, traces: Iterable[str], records: int, seconds: float) -> None:
    """Note an append that has just ended in the trace of everybody who waited for it."""
    if tracer is None:
        return
    ended_ns = time.time_ns()
    begun_ns = ended_ns - int(seconds * 1e9)
    for trace in filter(None, traces):
        tracer.past("journal append", parent=trace, begun_ns=begun_ns, ended_ns=ended_ns, records=records)
