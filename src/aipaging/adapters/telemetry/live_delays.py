"""The delays of a running audit, for those who ask and those who are told: one metric, as Prometheus and OTLP have it.

As text a histogram has the classic buckets, cut where the sketch has an edge, so they are exact. Who accepts the
protobuf form of Prometheus gets the sketch itself beside them, as a native histogram of schema 8.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aipaging.adapters.telemetry.otlp import Point, domain_attributes
from aipaging.adapters.telemetry.semantic_conventions import DOMAIN_DURATION, ERROR_TYPE
from aipaging.core.audit.delays import Series
from aipaging.core.audit.histogram import ExponentialHistogram

NAME: Final = DOMAIN_DURATION.replace(".", "_") + "_microseconds"
ABOUT: Final = "What the service took, less its client's own part; the remainder is end-to-end less the anchor."
LABELS: Final = ("tenant", "domain", "error")

EDGES_US: Final = tuple(2**power for power in range(7, 31))
"""Of the classic buckets: from 0.1 ms to 18 minutes, each an edge of the sketch."""

Listed = Callable[[], Sequence[tuple[Series, ExponentialHistogram]]]


class DelayFamily(HistogramMetricFamily):
    """The metric, with what its samples cannot hold.

    Attributes:
        native: The histograms by their labels, in the order of `LABELS`.
    """

    def __init__(self) -> None:
        super().__init__(NAME, ABOUT, labels=LABELS)
        self.native: dict[tuple[str, ...], ExponentialHistogram] = {}


class DelayCollector(Collector):
    """Reads the sketches at every scrape."""

    def __init__(self, listed: Listed) -> None:
        self._listed = listed

    def describe(self) -> Iterable[Metric]:
        """Return the metric without samples, for the registry."""
        return [DelayFamily()]

    def collect(self) -> Iterable[Metric]:
        """Yield the metric."""
        family = DelayFamily()
        for series, histogram in self._listed():
            labels = (series.tenant, series.domain, series.error)
            family.add_metric(labels, classic_buckets(histogram), sum_value=histogram.total)
            family.native[labels] = histogram
        yield family


def classic_buckets(histogram: ExponentialHistogram) -> list[tuple[str, float]]:
    """Return the cumulative counts at `EDGES_US`, and of all, as Prometheus' text has them."""
    upper = np.arange(histogram.offset + 1, histogram.offset + 1 + len(histogram.counts))
    cumulative = np.concatenate(([0], np.cumsum(np.asarray(histogram.counts, dtype=np.int64))))
    per_octave = 2**histogram.scale
    found: list[tuple[str, float]] = []
    for edge_us in EDGES_US:
        place = int(np.searchsorted(upper, (edge_us.bit_length() - 1) * per_octave, side="right"))
        found.append((f"{edge_us}.0", histogram.zero_count + int(cumulative[place])))
    return [*found, ("+Inf", histogram.count)]


def delay_points(listed: Sequence[tuple[Series, ExponentialHistogram]], *, start_us: int, now_us: int) -> list[Point]:
    """Return the cumulative points of OTLP.

    Args:
        listed: The histograms.
        start_us: Since when they count, wall clock.
        now_us: Wall clock.
    """
    return [
        Point(
            metric=DOMAIN_DURATION,
            attributes=domain_attributes(series.domain, series.tenant)
            | ({ERROR_TYPE: series.error} if series.error else {}),
            histogram=histogram,
            start_us=start_us,
            end_us=max(now_us, start_us + 1),
            cumulative=True,
        )
        for series, histogram in listed
    ]
