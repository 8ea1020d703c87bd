"""What every part of the sidecar has at hand."""

from dataclasses import dataclass, field

from aipaging.adapters.sidecar.clocks import Clocks
from aipaging.adapters.sidecar.log import Log
from aipaging.adapters.sidecar.metrics import Metrics
from aipaging.adapters.sidecar.traces import SpanMaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """Clocks, counters and the log.

    Attributes:
        clocks: Where time comes from.
        log: Where events go.
        metrics: What is counted.
        spans: Makes spans; None: nobody traces.
    """

    clocks: Clocks
    log: Log
    metrics: Metrics = field(default_factory=Metrics)
    spans: SpanMaker | None = None
