"""Histograms to an OTLP endpoint over HTTP (protobuf), by OpenTelemetry's own exporter and without its aggregation.

The SDK would aggregate measurements once more, and coarsen buckets as it does. What is sent here are the buckets of the
sketches as they are: cumulative exponential histograms at scale 8, in microseconds.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from aipaging.adapters.telemetry.otlp import Point
from aipaging.adapters.telemetry.semantic_conventions import UNITS_US
from aipaging.core.audit.histogram import ExponentialHistogram
from aipaging.core.foundation.errors import UnavailableError

EXPORT_S_MAX: Final = 5
"""A collector that needs longer loses this export; the next holds its counts, too."""


class OtlpHistograms:
    """Exports points; call it from a thread, for it waits for the collector."""

    def __init__(self, endpoint: str, *, service: str) -> None:
        """Set up.

        Args:
            endpoint: OTLP over HTTP, such as http://127.0.0.1:4318/v1/metrics.
            service: `service.name` of the resource.

        Raises:
            UnavailableError: The extra `tracing` is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - an extra
                OTLPMetricExporter,
            )
            from opentelemetry.sdk.metrics import export  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UnavailableError(
                "exported histograms need the extra `tracing`: pip install 'aipaging[tracing]', or leave "
                "otlp_endpoint out",
                code="EXTRA_MISSING",
            ) from error
        self._sdk: Any = export
        self._exporter: Any = OTLPMetricExporter(endpoint=endpoint, timeout=EXPORT_S_MAX)
        self._resource: Any = Resource.create({"service.name": service})
        self._scope: Any = InstrumentationScope("aipaging.audit")

    def export(self, points: Sequence[Point]) -> bool:
        """Send cumulative points, and return whether they were taken.

        Args:
            points: Exponential histograms, of one metric; others are passed over.
        """
        used = [(point, point.histogram) for point in points if isinstance(point.histogram, ExponentialHistogram)]
        if not used:
            return True
        unit = next(name for name, length in UNITS_US.items() if math.isclose(length, used[0][1].unit_us))
        sdk = self._sdk
        histogram = sdk.ExponentialHistogram(
            data_points=[self._point(*one) for one in used],
            aggregation_temporality=sdk.AggregationTemporality.CUMULATIVE,
        )
        metric = sdk.Metric(
            name=used[0][0].metric, description="Delays as the audit measured them.", unit=unit, data=histogram
        )
        scoped = sdk.ScopeMetrics(scope=self._scope, metrics=[metric], schema_url="")
        whole = sdk.MetricsData(
            resource_metrics=[sdk.ResourceMetrics(resource=self._resource, scope_metrics=[scoped], schema_url="")]
        )
        return bool(self._exporter.export(whole, timeout_millis=EXPORT_S_MAX * 1000) is sdk.MetricExportResult.SUCCESS)

    def _point(self, point: Point, histogram: ExponentialHistogram) -> Any:
        buckets = self._sdk.Buckets
        return self._sdk.ExponentialHistogramDataPoint(
            attributes=dict(point.attributes),
            start_time_unix_nano=point.start_us * 1000,
            time_unix_nano=point.end_us * 1000,
            count=histogram.count,
            sum=histogram.total or 0.0,
            scale=histogram.scale,
            zero_count=histogram.zero_count,
            positive=buckets(offset=histogram.offset, bucket_counts=list(histogram.counts)),
            negative=buckets(offset=0, bucket_counts=[]),
            flags=0,
            min=None,  # not kept
            max=None,
        )

    def close(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()
