"""Prometheus metrics: what was answered, and what the control plane holds at the moment of a scrape."""

from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane

SECONDS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Around the goal of a page, 3 ms at the median."""


class Metrics:
    """The metrics of one listener, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "aipaging_http_request_seconds",
            "Requests answered, by operation and status.",
            ["operation", "status"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._healthy = self._gauge("aipaging_healthy", "1 if the engine may grant time.")
        self._term = self._gauge("aipaging_term", "The present leadership.")
        self._sessions = self._gauge("aipaging_sessions_live", "Sessions that are AVAILABLE.")
        self._kept = self._gauge("aipaging_sessions_kept", "Sessions known, ended ones that are kept included.")
        self._reservations = self._gauge("aipaging_reservations", "Reservations held.")
        self._anchors = self._gauge("aipaging_anchors", "Anchors by state.", "state")
        self._streams = self._gauge("aipaging_event_streams", "Open event streams.")
        self._reserved = self._gauge(
            "aipaging_domain_reserved_requests_per_second", "Rate reserved in a domain.", "domain"
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def streams(self, count: int) -> None:
        """Take note of how many event streams are open."""
        self._streams.set(count)

    def observe(self, name: str, status: int, seconds: float, /) -> None:
        """Count one answer."""
        self._requests.labels(name, str(status)).observe(seconds)

    async def scraped(self, control: ControlPlane) -> bytes:
        """Return the exposition text."""
        await control.view(lambda state, _: self._read(state))
        self._healthy.set(control.healthy)
        return generate_latest(self._registry)

    def _read(self, state: State) -> None:
        self._term.set(state.term)
        self._sessions.set(state.live)
        self._kept.set(len(state.sessions))
        self._reservations.set(len(state.ledger.reservations))
        counts = dict.fromkeys(AnchorState, 0)
        for anchor in state.catalogue.anchors.values():
            counts[anchor.state] += 1
        for anchor_state, count in counts.items():
            self._anchors.labels(anchor_state.value).set(count)
        for domain in state.catalogue.domains:
            self._reserved.labels(domain).set(state.ledger.domain_mrps(domain) / 1000)
