"""Counters of the data path, and their Prometheus text (exposition format 0.0.4).

Labels are bounded: tenants beyond `TENANTS_MAX` are counted together as `other`.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

TENANTS_MAX: Final = 1_000
"""A tenant costs a few hundred bytes in every scrape."""

_BUCKETS_US: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000)
_BUCKETS_LONG_US: Final = (1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000)
BUCKETS_US: Final = _BUCKETS_US + _BUCKETS_LONG_US
"""From a pass-through to a long answer."""


class Histogram:
    """Delays, in the buckets that Prometheus reads."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_US) + 1)
        self.sum_us = 0

    def add(self, delay_us: int) -> None:
        """Count one delay."""
        self.counts[bisect_left(BUCKETS_US, delay_us)] += 1
        self.sum_us += delay_us

    def lines(self, name: str) -> Iterator[str]:
        """Yield the samples."""
        yield f"# TYPE {name} histogram"
        total = 0
        for bound_us, count in zip(BUCKETS_US, self.counts, strict=False):
            total += count
            yield f'{name}_bucket{{le="{bound_us / 1e6:g}"}} {total}'
        total += self.counts[-1]
        yield f'{name}_bucket{{le="+Inf"}} {total}'
        yield f"{name}_sum {self.sum_us / 1e6:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What the sidecar counts."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)  # (tenant, outcome)
        self.refused: defaultdict[tuple[str, str], int] = defaultdict(int)  # (tenant or "", code)
        self.cut: defaultdict[tuple[str, str], int] = defaultdict(int)  # (tenant, code)
        self.in_flight: defaultdict[str, int] = defaultdict(int)
        self.tokens: defaultdict[str, int] = defaultdict(int)
        self.tokens_unsaid = 0
        self.usage_refused = 0
        self.queue_delay = Histogram()
        self.first_byte_delay = Histogram()
        self.receipts_verified = 0
        self.receipts_forged = 0
        self.upstream_connects = 0
        self.upstream_retries = 0
        self.controller_failures = 0
        self._tenants: set[str] = set()

    def label(self, tenant: str) -> str:
        """Return the label under which a tenant is counted."""
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= TENANTS_MAX:
            return "other"
        self._tenants.add(tenant)
        return tenant

    def no_longer_in_flight(self, label: str) -> None:
        """Count one request less at the upstream."""
        self.in_flight[label] -= 1
        if not self.in_flight[label]:
            del self.in_flight[label]

    def text(self, gauges: dict[str, int], waiting_of: dict[str, int]) -> bytes:
        """Return everything in Prometheus' text format."""
        lines: list[str] = []
        for name, value in gauges.items():
            lines += [f"# TYPE aipaging_anchor_{name} gauge", f"aipaging_anchor_{name} {value}"]
        lines += _labelled("in_flight_requests", "gauge", "tenant", self.in_flight)
        lines += _labelled("queued_requests", "gauge", "tenant", waiting_of)
        lines += _labelled("tokens_total", "counter", "tenant", self.tokens)
        for name, pairs, second in (
            ("requests", self.requests, "outcome"),
            ("refused", self.refused, "code"),
            ("cut", self.cut, "code"),
        ):
            lines.append(f"# TYPE aipaging_anchor_{name}_total counter")
            lines += [
                f'aipaging_anchor_{name}_total{{tenant="{tenant}",{second}="{label}"}} {count}'
                for (tenant, label), count in sorted(pairs.items())
            ]
        for name in (
            "receipts_verified",
            "receipts_forged",
            "upstream_connects",
            "upstream_retries",
            "controller_failures",
            "tokens_unsaid",
            "usage_refused",
        ):
            lines += [
                f"# TYPE aipaging_anchor_{name}_total counter",
                f"aipaging_anchor_{name}_total {getattr(self, name)}",
            ]
        lines += self.queue_delay.lines("aipaging_anchor_queue_seconds")
        lines += self.first_byte_delay.lines("aipaging_anchor_first_byte_seconds")
        return ("\n".join(lines) + "\n").encode()


def _labelled(name: str, kind: str, label: str, values: dict[str, int]) -> list[str]:
    head = f"# TYPE aipaging_anchor_{name} {kind}"
    return [head, *(f'aipaging_anchor_{name}{{{label}="{key}"}} {value}' for key, value in sorted(values.items()))]
